"""Where engines may be: the choices of the user, and else the usual places.

The order is the docker CLI's: ``DOCKER_HOST``, ``DOCKER_CONTEXT``, the current context, the
default socket (docker/cli, cli/command/cli.go, resolveContextName); and the podman CLI's:
``CONTAINER_HOST``, ``CONTAINER_CONNECTION``, its own socket.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from functools import partial
from typing import TYPE_CHECKING

import attrs

from imgload.core.errors import EngineUnreachable
from imgload.engines.discovery.attempt import Candidate
from imgload.engines.endpoint import EngineKind

if TYPE_CHECKING:
    from imgload.engines.tls import Tls

Environ = Mapping[str, str]
_VARIABLES: dict[EngineKind, str] = {"docker": "DOCKER_HOST", "podman": "CONTAINER_HOST"}


def candidates(environ: Environ) -> Iterator[Candidate]:
    """Yield what is to be asked: for each kind what was chosen, or else the usual places."""
    for kind in _VARIABLES:
        found = list(_choice(kind, environ))
        yield from found
        if not any(candidate.chosen for candidate in found):
            yield from _usual(kind, environ)


def passed_over(environ: Environ) -> Iterator[tuple[Candidate, str]]:
    """Yield what is not asked, and why: a choice took its place, or it is not the current one."""
    for kind in _VARIABLES:
        choice = next((found for found in _choice(kind, environ) if found.chosen), None)
        if choice:
            for place in _usual(kind, environ):
                undone = attrs.evolve(place, take=choice.undo)
                yield undone, f"{choice.origin} takes its place"
        for place in _named(kind, environ):
            yield place, "it is not the current one"


def named_address(url: str, origin: str, environ: Environ) -> Candidate:
    """Return the candidate for an address that was given for this run."""
    kind: EngineKind = "podman" if "podman" in url else "docker"
    tls = _tls(environ) if url.startswith("tcp://") else None
    return Candidate(kind, url, origin, explicit=True, chosen=True, tls=tls)


def _tls(environ: Environ) -> Tls | None:
    from imgload.engines.tls import tls_of  # noqa: PLC0415 - start-up

    return tls_of(environ)


def _choice(kind: EngineKind, environ: Environ) -> Iterator[Candidate]:
    variable = _VARIABLES[kind]
    if url := environ.get(variable):
        given = named_address(url, variable, environ)
        yield attrs.evolve(given, kind=kind, undo=f"unset {variable}")
        return
    yield from _or_problem(kind, partial(_chosen, kind), environ)


def _chosen(kind: EngineKind, environ: Environ) -> Candidate | None:
    """Return what settings files choose; they are read where no variable says more."""
    if kind == "docker":
        from imgload.engines.discovery.docker_contexts import chosen_context  # noqa: PLC0415 - start-up

        return chosen_context(environ)
    from imgload.engines.discovery.podman_connections import chosen_connection  # noqa: PLC0415 - start-up

    return chosen_connection(environ)


def _usual(kind: EngineKind, environ: Environ) -> Iterator[Candidate]:
    from imgload.engines.discovery.sockets import usual_sockets  # noqa: PLC0415 - start-up

    yield from usual_sockets(kind, environ)
    if kind == "podman":
        from imgload.engines.discovery.podman_connections import default_connection  # noqa: PLC0415 - start-up

        yield from _or_problem(kind, default_connection, environ)


def _or_problem(
    kind: EngineKind, read: Callable[[Environ], Candidate | None], environ: Environ
) -> Iterator[Candidate]:
    try:
        found = read(environ)
    except EngineUnreachable as error:
        found = Candidate(kind, "", "its settings", problem=error)
    if found:
        yield found


def _named(kind: EngineKind, environ: Environ) -> Iterator[Candidate]:
    from imgload.engines.discovery.docker_contexts import other_contexts  # noqa: PLC0415
    from imgload.engines.discovery.podman_connections import other_connections  # noqa: PLC0415 - start-up

    try:
        yield from (other_contexts if kind == "docker" else other_connections)(environ)
    except EngineUnreachable:
        return
