"""The addresses where engines may answer: the user's choices, or else the usual sockets.

The order is the docker CLI's: ``DOCKER_HOST``, ``DOCKER_CONTEXT``, the current context, the
default socket (docker/cli, cli/command/cli.go, resolveContextName); and the podman CLI's:
``CONTAINER_HOST``, ``CONTAINER_CONNECTION``, its own socket.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import suppress
from pathlib import Path

import attrs

from imgload.core.errors import EngineUnreachable
from imgload.engines.discovery.attempt import Candidate
from imgload.engines.discovery.config_files import home_folder
from imgload.engines.endpoint import EngineKind, Tls

Environ = Mapping[str, str]
_VARIABLES: dict[EngineKind, str] = {"docker": "DOCKER_HOST", "podman": "CONTAINER_HOST"}


def candidates(environ: Environ) -> Iterator[Candidate]:
    """Yield the candidates to try: for each kind the chosen one, or else the usual ones."""
    for kind in _VARIABLES:
        choice = _choice(kind, environ)
        if choice:
            yield choice
        if not choice or not choice.chosen:
            yield from _usual(kind, environ)


def skipped_candidates(environ: Environ) -> Iterator[tuple[Candidate, str]]:
    """Yield the candidates to skip, each with the reason."""
    from imgload.engines.discovery.docker_contexts import other_contexts  # noqa: PLC0415 - start-up
    from imgload.engines.discovery.podman_connections import other_connections  # noqa: PLC0415

    for kind in _VARIABLES:
        choice = _choice(kind, environ)
        if choice and choice.chosen:
            for candidate in _usual(kind, environ):
                yield attrs.evolve(candidate, take=choice.undo), f"{choice.origin} overrides it"
        with suppress(EngineUnreachable):
            for candidate in (other_contexts if kind == "docker" else other_connections)(environ):
                yield candidate, "it is not the current one"


def named_address(url: str, origin: str, environ: Environ) -> Candidate:
    """Return the candidate for an address that the user gave for this run."""
    tls = tls_of(environ) if url.startswith("tcp://") else None
    kind: EngineKind = "podman" if "podman" in url else "docker"
    return Candidate(kind, url, origin, explicit=True, chosen=True, tls=tls)


def tls_of(environ: Environ) -> Tls | None:
    """Return the TLS settings of the docker CLI's variables, or None.

    A ``DOCKER_TLS_VERIFY`` (verified) or ``DOCKER_TLS`` (unverified) that is not empty turns TLS
    on; ``DOCKER_CERT_PATH`` names the folder (docker/cli, cli/flags/options.go).
    """
    verify = bool(environ.get("DOCKER_TLS_VERIFY"))
    if not verify and not environ.get("DOCKER_TLS"):
        return None
    named = environ.get("DOCKER_CERT_PATH") or environ.get("DOCKER_CONFIG")
    folder = Path(named) if named else home_folder(environ) / ".docker"
    return Tls.in_folder(folder, verify=verify)


def _choice(kind: EngineKind, environ: Environ) -> Candidate | None:
    """Return the user's choice; settings files are read only if no variable decides."""
    variable = _VARIABLES[kind]
    if url := environ.get(variable):
        named = named_address(url, variable, environ)
        return attrs.evolve(named, kind=kind, undo=f"unset {variable}")
    try:
        if kind == "docker":
            from imgload.engines.discovery.docker_contexts import chosen_context  # noqa: PLC0415 - start-up

            return chosen_context(environ)
        from imgload.engines.discovery.podman_connections import chosen_connection  # noqa: PLC0415 - start-up

        return chosen_connection(environ)
    except EngineUnreachable as error:
        return Candidate(kind, "", "its settings", problem=error)


def _usual(kind: EngineKind, environ: Environ) -> Iterator[Candidate]:
    from imgload.engines.discovery.sockets import usual_sockets  # noqa: PLC0415 - start-up

    yield from usual_sockets(kind, environ)
    if kind == "podman":
        from imgload.engines.discovery.podman_connections import default_connection  # noqa: PLC0415 - start-up

        try:
            default = default_connection(environ)
        except EngineUnreachable as error:
            default = Candidate(kind, "", "its settings", problem=error)
        if default:
            yield default
