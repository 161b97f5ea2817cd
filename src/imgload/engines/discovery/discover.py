"""Which engines can be reached from here."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, closing, contextmanager, suppress
from functools import partial

import attrs

from imgload.core.errors import (
    ClusterNotFound,
    EngineError,
    EngineUnreachable,
    ImageNotFound,
    NodeNotFound,
    UsageError,
)
from imgload.core.parallel import in_parallel
from imgload.engines.base import Engine
from imgload.engines.discovery.attempt import Attempt, Candidate
from imgload.engines.discovery.candidates import candidates, passed_over
from imgload.engines.discovery.probe import probe
from imgload.engines.endpoint import Endpoint


@attrs.frozen
class Discovery:
    """Every address that was tried, or passed over, and what came of it.

    Args:
        attempts: in the order of precedence.
        absent: usual sockets that are not there; listed where not enough was found.

    """

    attempts: tuple[Attempt, ...]
    absent: tuple[Candidate, ...] = ()

    @property
    def endpoints(self) -> tuple[Endpoint, ...]:
        """The engines that answer, each once."""
        return tuple(a.endpoint for a in self.attempts if a.used and a.endpoint)

    @property
    def errors(self) -> tuple[EngineError, ...]:
        """Why the others do not."""
        return tuple(a.error for a in self.attempts if a.error and not a.passed_over)

    @property
    def silent(self) -> tuple[Attempt, ...]:
        """The attempts whose failure a user should hear of when something is not found."""
        return tuple(attempt for attempt in self.attempts if attempt.matters)

    def required_at(self, url: str) -> Endpoint:
        """Return the engine that was found by an address, whichever way is taken to it.

        Raises:
            EngineError: when it did not answer.

        """
        tried = (a for a in self.attempts if a.candidate.url == url and not a.passed_over)
        return next(tried).answered

    def require(self) -> tuple[Endpoint, ...]:
        """Return the endpoints.

        Raises:
            EngineError: when there is none.

        """
        if self.endpoints:
            return self.endpoints
        from imgload.engines.discovery.explain import nothing_answers  # noqa: PLC0415 - start-up

        raise nothing_answers(self.attempts, self.absent)


@contextmanager
def explained(silent: Sequence[Attempt]) -> Iterator[None]:
    """Add to "not found" which engines could not be asked.

    Args:
        silent: the attempts whose failure matters.

    """
    try:
        yield
    except (ImageNotFound, ClusterNotFound, NodeNotFound) as error:
        if not silent:
            raise
        from imgload.engines.discovery.explain import with_silent  # noqa: PLC0415 - start-up

        raise with_silent(error, silent) from error


def discover(
    environ: Mapping[str, str] | None = None,
    *,
    also: Sequence[Candidate] = (),
    everything: bool = False,
) -> Discovery:
    """Ask every place at once which engine is there.

    What a choice takes the place of (``DOCKER_HOST``, a context, a connection) is asked only
    where that does not answer, to say so.

    Args:
        environ: in place of the process's environment.
        also: further addresses, asked first.
        everything: ask also what is passed over, and list what is absent.

    Raises:
        UsageError: when what was chosen for this run is no address.

    """
    variables = os.environ if environ is None else environ
    given = {place.url for place in also}
    others = [place for place in candidates(variables) if place.url not in given]
    attempts = _distinct(_asked([*also, *others], everything=everything))
    lacking = not any(a.used for a in attempts)
    lacking |= any(a.error and a.candidate.chosen for a in attempts)
    if not lacking and not everything:
        return Discovery(tuple(attempts))
    from imgload.engines.discovery.sockets import absent_sockets  # noqa: PLC0415 - start-up

    absent = tuple(absent_sockets(variables))
    return Discovery((*attempts, *_passed_over(attempts, variables)), absent)


def connect(endpoint: Endpoint) -> Engine:
    """Open an engine."""
    if endpoint.kind == "podman":
        from imgload.engines.podman import PodmanEngine  # noqa: PLC0415 - start-up

        return PodmanEngine(endpoint)
    from imgload.engines.docker import DockerEngine  # noqa: PLC0415 - start-up

    return DockerEngine(endpoint)


def _asked(places: Sequence[Candidate], *, everything: bool) -> list[Attempt]:
    """Return an attempt for each place; last resorts are asked when nobody else answers."""
    first = [place for place in places if everything or not place.last_resort]
    found = dict(zip(first, _ask_all(first), strict=True))
    if not any(attempt.endpoint for attempt in found.values()):
        rest = [place for place in places if place not in found]
        found |= zip(rest, _ask_all(rest), strict=True)
    return [found.get(place, Attempt(place)) for place in places]


def _ask_all(places: Sequence[Candidate]) -> list[Attempt]:
    return in_parallel([partial(_ask, place) for place in places])


def _ask(place: Candidate) -> Attempt:
    try:
        return Attempt(place, probe(place))
    except EngineError as error:
        return Attempt(place, error=error)
    except UsageError as error:
        if place.explicit:
            raise
        hint = "; or ".join(filter(None, [error.hint, place.undo]))
        return Attempt(place, error=EngineUnreachable(error.message, hint=hint))


def _passed_over(attempts: Sequence[Attempt], variables: Mapping[str, str]) -> Iterator[Attempt]:
    """Yield what else there is; only what is on this machine is asked."""
    tried = {attempt.candidate.url for attempt in attempts}
    others = [(p, why) for p, why in passed_over(variables) if p.url not in tried]
    near = [place for place, _ in others if place.url.startswith("unix://")]
    answers = dict(zip(near, _ask_all(near), strict=True))
    for place, why in others:
        yield attrs.evolve(answers.get(place, Attempt(place)), passed_over=why)


def _distinct(attempts: Sequence[Attempt]) -> list[Attempt]:
    """Mark the further ways to an engine that was found already."""
    first: dict[str, Endpoint] = {}
    settled = [_marked(a, first, _file(a.endpoint)) for a in attempts]
    left = [attempt for attempt in settled if attempt.used]
    kinds = [a.endpoint.kind for a in left if a.endpoint]
    if len(kinds) == len(set(kinds)):
        return settled
    identities = dict(zip(left, in_parallel([partial(_identity, a) for a in left]), strict=True))
    first.clear()
    return [_marked(a, first, identities.get(a, "")) for a in settled]


def _marked(attempt: Attempt, first: dict[str, Endpoint], identity: str) -> Attempt:
    if attempt.endpoint is None or not identity:
        return attempt
    other = first.setdefault(identity, attempt.endpoint)
    if other is attempt.endpoint:
        return attempt
    if attempt.endpoint.tunnel:
        attempt.endpoint.tunnel.close()
    return attrs.evolve(attempt, same_as=other)


def _file(endpoint: Endpoint | None) -> str:
    """Return the same text for one socket reached by two paths."""
    if endpoint is None or not endpoint.url.startswith("unix://"):
        return endpoint.url if endpoint else ""
    try:
        found = os.stat(endpoint.url.removeprefix("unix://"))  # noqa: PTH116 - no Path needed
    except OSError:
        return endpoint.url
    return f"{found.st_dev}:{found.st_ino}"


def _identity(attempt: Attempt) -> str:
    """Return what the engine says of itself; its address where it says nothing."""
    endpoint = attempt.answered
    try:
        with closing(connect(endpoint)) as engine:
            return f"{endpoint.kind} {engine.identity()}"
    except EngineError:
        return endpoint.url


def _remove_stale_folders() -> None:
    """Remove the temporary folders of killed runs; there are hardly ever any."""
    from imgload.core.state import RUN_FOLDER, temporary_folder  # noqa: PLC0415 - start-up

    with suppress(OSError):
        if any(entry.name.startswith(RUN_FOLDER) for entry in os.scandir(temporary_folder())):
            from imgload.core.temporary import remove_stale  # noqa: PLC0415 - start-up

            remove_stale()


@contextmanager
def open_engines(
    also: Sequence[Candidate] = (),
) -> Iterator[tuple[Discovery, dict[Endpoint, Engine]]]:
    """Find and open the engines, and close them at the end.

    Args:
        also: addresses to ask beside the usual ones.

    Raises:
        EngineError: when none answers.

    """
    with ExitStack() as stack:
        found = discover(also=also)
        _remove_stale_folders()
        yield found, {endpoint: _opened(endpoint, stack) for endpoint in found.require()}


def _opened(endpoint: Endpoint, stack: ExitStack) -> Engine:
    engine = connect(endpoint)
    stack.callback(engine.close)
    engine.tidy()
    return engine
