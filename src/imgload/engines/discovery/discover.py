"""Find the engines that this machine can reach, and open them."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, closing, contextmanager, suppress
from functools import partial

import attrs

from imgload.core import trace
from imgload.core.errors import ClusterNotFound, EngineError, ImageNotFound, NodeNotFound
from imgload.core.parallel import in_parallel
from imgload.engines.base import Engine
from imgload.engines.discovery.candidates import (
    Attempt,
    Candidate,
    absent_sockets,
    candidates,
    skipped_candidates,
)
from imgload.engines.discovery.probe import no_engine_error, probe_all
from imgload.engines.endpoint import Endpoint


@attrs.frozen
class Discovery:
    """All attempts in order of precedence, and the usual sockets that do not exist (on failure)."""

    attempts: tuple[Attempt, ...]
    absent: tuple[Candidate, ...] = ()

    @property
    def endpoints(self) -> tuple[Endpoint, ...]:
        """The engines to use, without duplicates."""
        return tuple(a.endpoint for a in self.attempts if a.used and a.endpoint)

    @property
    def errors(self) -> tuple[EngineError, ...]:
        return tuple(a.error for a in self.attempts if a.error and not a.skip_reason)

    @property
    def unreachable(self) -> tuple[Attempt, ...]:
        """The failed attempts to mention when an image or cluster is not found."""
        return tuple(attempt for attempt in self.attempts if attempt.is_worth_mentioning)

    def required_at(self, url: str) -> Endpoint:
        """Return the endpoint of the engine at a tried address; EngineError if none answered."""
        tried = (a for a in self.attempts if a.candidate.url == url and not a.skip_reason)
        return next(tried).resolved_endpoint

    def require(self) -> tuple[Endpoint, ...]:
        """Return the endpoints; EngineError if no engine answers."""
        if self.endpoints:
            return self.endpoints
        raise no_engine_error(self.attempts, self.absent)


@contextmanager
def with_discovery_errors(unreachable: Sequence[Attempt]) -> Iterator[None]:
    """Add the errors of failed attempts to a "not found" error, one a line, and the first hint."""
    try:
        yield
    except (ImageNotFound, ClusterNotFound, NodeNotFound) as error:
        errors = [attempt.error for attempt in unreachable if attempt.error]
        if not errors:
            raise
        message = "\n  ".join([error.message, *(e.message for e in errors)])
        hint = "; or ".join(filter(None, [errors[0].hint, error.hint]))
        extended = type(error)(message, hint=hint)
        vars(extended).update(vars(error) | {"message": extended.message, "hint": extended.hint})
        raise extended from error


def discover(
    environ: Mapping[str, str] | None = None,
    *,
    also: Sequence[Candidate] = (),
    everything: bool = False,
) -> Discovery:
    """Probe all candidates in parallel, those in `also` first.

    Candidates that a choice overrides (``DOCKER_HOST``, a context, a connection) are tried only if
    the choice fails, for the error message. `everything` includes skipped candidates and sockets
    that do not exist. UsageError if an address that the user gave for this run is not valid.
    """
    variables = os.environ if environ is None else environ
    usual = list(candidates(variables))
    given = [_with_credentials(candidate, usual) for candidate in also]
    urls = {candidate.url for candidate in given}
    others = [candidate for candidate in usual if candidate.url not in urls]
    attempts = _mark_duplicates(probe_all([*given, *others], everything=everything))
    for attempt in attempts if trace.enabled() else ():
        outcome = attempt.error.message if attempt.error else attempt.same_as or attempt.endpoint
        trace.log(f"engines: {attempt.candidate}: {outcome or 'nothing there'}")
    failed = not any(a.used for a in attempts)
    failed |= any(a.error and a.candidate.chosen for a in attempts)
    if not failed and not everything:
        return Discovery(tuple(attempts))
    absent = tuple(absent_sockets(variables))
    return Discovery((*attempts, *_skipped(attempts, variables)), absent)


def _with_credentials(given: Candidate, usual: Sequence[Candidate]) -> Candidate:
    """Return a given address with the TLS files and the key of a context with the same address."""
    same = next((candidate for candidate in usual if candidate.url == given.url), given)
    return attrs.evolve(given, tls=given.tls or same.tls, identity=given.identity or same.identity)


def rediscover(earlier: Discovery) -> Discovery:
    """Probe the sockets that did not answer earlier, and add the engines that do now."""
    known = [attempt for attempt in earlier.attempts if attempt.endpoint]
    tried = {attempt.candidate.url for attempt in known}
    sockets = [c for c in candidates(os.environ) if c.url.startswith("unix://")]
    answered = [a for a in probe_all([c for c in sockets if c.url not in tried]) if a.endpoint]
    return Discovery(tuple(_mark_duplicates([*known, *answered]))) if answered else earlier


def connect(endpoint: Endpoint) -> Engine:
    """Open an engine."""
    if endpoint.kind == "podman":
        from imgload.engines.podman import Podman  # noqa: PLC0415 - start-up

        return Podman(endpoint)
    from imgload.engines.docker import Docker  # noqa: PLC0415 - start-up

    return Docker(endpoint)


def _skipped(attempts: Sequence[Attempt], variables: Mapping[str, str]) -> Iterator[Attempt]:
    """Yield the skipped candidates; probe only sockets: other addresses may be far away."""
    tried = {attempt.candidate.url for attempt in attempts}
    skipped = [(c, reason) for c, reason in skipped_candidates(variables) if c.url not in tried]
    sockets = [candidate for candidate, _ in skipped if candidate.url.startswith("unix://")]
    probed = dict(zip(sockets, probe_all(sockets, everything=True), strict=True))
    for candidate, reason in skipped:
        yield attrs.evolve(probed.get(candidate, Attempt(candidate)), skip_reason=reason)


def _mark_duplicates(attempts: Sequence[Attempt]) -> list[Attempt]:
    """Mark attempts that lead to the same socket, or engines with the same identity."""
    sockets = {a.endpoint.url: _socket_key(a.endpoint) for a in attempts if a.endpoint}
    distinct = {sockets[a.endpoint.url]: a.endpoint for a in attempts[::-1] if a.endpoint}
    keys = list(distinct)
    if len(distinct) > len({endpoint.kind for endpoint in distinct.values()}):
        keys = in_parallel([partial(_identity, endpoint) for endpoint in distinct.values()])
    key_of = dict(zip(distinct, keys, strict=True))
    first: dict[str, Endpoint] = {}
    marked = []
    for attempt in attempts:
        endpoint = attempt.endpoint
        same = first.setdefault(key_of[sockets[endpoint.url]], endpoint) if endpoint else None
        if endpoint and same is not endpoint:
            if endpoint.tunnel:
                endpoint.tunnel.close()
            attempt = attrs.evolve(attempt, same_as=same)  # noqa: PLW2901
        marked.append(attempt)
    return marked


def _socket_key(endpoint: Endpoint) -> str:
    """Return the same text for two paths of one socket, and the address of other endpoints."""
    if endpoint.url.startswith("unix://"):
        with suppress(OSError):
            file = os.stat(endpoint.url.removeprefix("unix://"))  # noqa: PTH116 - no Path needed
            return f"{file.st_dev}:{file.st_ino}"
    return endpoint.url


def _identity(endpoint: Endpoint) -> str:
    try:
        with closing(connect(endpoint)) as engine:
            return f"{endpoint.kind} {engine.identity()}"
    except EngineError:
        return endpoint.url


@contextmanager
def open_engines(
    also: Sequence[Candidate] = (), *, required: bool = True
) -> Iterator[tuple[Discovery, dict[Endpoint, Engine]]]:
    """Discover and open the engines, and close them at the end.

    EngineError if none answers, unless none is required.
    """
    with ExitStack() as stack:
        discovery = discover(also=also)
        from imgload.core.state import remove_stale_folders  # noqa: PLC0415 - start-up

        remove_stale_folders()
        engines = {}
        for endpoint in discovery.require() if required else discovery.endpoints:
            engine = engines[endpoint] = connect(endpoint)
            stack.callback(engine.close)
            engine.tidy()
        yield discovery, engines
