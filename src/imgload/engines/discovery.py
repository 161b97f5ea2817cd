"""Which engines can be reached from here."""

from __future__ import annotations

import contextlib
import http.client
import os
import re
from collections.abc import Iterator, Mapping
from functools import partial
from pathlib import Path

import attrs

from imgload.engines.base import Endpoint, Engine, EngineKind
from imgload.engines.wire import Connection
from imgload.errors import EngineError, EngineNotPermitted, EngineUnreachable, UsageError
from imgload.parallel import in_parallel

PROBE_SECONDS = 2.0
_VERSION = re.compile(r"[\w.+-]{1,40}", re.ASCII)
_VARIABLES: dict[EngineKind, str] = {"docker": "DOCKER_HOST", "podman": "CONTAINER_HOST"}
_SCHEMES = ("unix://", "tcp://", "http://", "ssh://")


@attrs.frozen
class Candidate:
    """An address where an engine may answer; `explicit` when the user set it."""

    kind: EngineKind
    url: str
    origin: str
    explicit: bool = False


@attrs.frozen
class Discovery:
    """The engines that answer, and why the others do not."""

    endpoints: tuple[Endpoint, ...]
    errors: tuple[EngineError, ...]

    def require(self) -> tuple[Endpoint, ...]:
        """Return the endpoints.

        Raises:
            EngineError: when there is none.

        """
        if self.endpoints:
            return self.endpoints
        if self.errors:
            raise self.errors[0]
        raise EngineUnreachable(
            "no container engine found: neither a Docker nor a Podman socket is where they usually"
            " are, and DOCKER_HOST and CONTAINER_HOST are not set",
            hint="start one (sudo systemctl start docker, or systemctl --user start podman.socket)"
            " or name it: --from unix:///path/to/engine.sock",
        )


def discover(environ: Mapping[str, str] | None = None) -> Discovery:
    """Ask every usual place at once which engine is there.

    Args:
        environ: in place of the process's environment.

    """
    places = list(candidates(os.environ if environ is None else environ))
    answers = in_parallel([partial(_answer, place) for place in places])
    found = [a for a in answers if isinstance(a, Endpoint)]
    unique = {_identity(endpoint.url): endpoint for endpoint in reversed(found)}
    kept = [e for e in found if unique[_identity(e.url)] is e]
    return Discovery(tuple(kept), tuple(a for a in answers if isinstance(a, EngineError)))


def candidates(environ: Mapping[str, str]) -> Iterator[Candidate]:
    """Yield where engines may be; a variable that names one settles its kind."""
    for kind, variable in _VARIABLES.items():
        if url := environ.get(variable):
            yield Candidate(kind, url, variable, explicit=True)
        else:
            for path in _sockets(kind, environ):
                if path.exists():
                    yield Candidate(kind, f"unix://{path}", str(path))


def _sockets(kind: EngineKind, environ: Mapping[str, str]) -> Iterator[Path]:
    runtime = environ.get("XDG_RUNTIME_DIR")
    if kind == "docker":
        yield Path("/var/run/docker.sock")
        if runtime:
            yield Path(runtime, "docker.sock")
    else:
        if runtime:
            yield Path(runtime, "podman/podman.sock")
        yield Path("/run/podman/podman.sock")


def _answer(candidate: Candidate) -> Endpoint | EngineError | None:
    try:
        return probe(candidate)
    except EngineError as error:
        return error


def probe(candidate: Candidate) -> Endpoint:
    """Ask one address which engine it is.

    Raises:
        EngineError: when nothing answers there, or it may not be asked.

    """
    kind, url = candidate.kind, candidate.url
    if not url.startswith(_SCHEMES):
        raise UsageError(
            f"{candidate.origin}: not an engine's address: {url!r}",
            hint="write it as unix:///path/to/engine.sock, tcp://host:port or ssh://user@host",
        )
    if url.startswith("ssh://"):
        return Endpoint(kind, url, candidate.origin)
    try:
        headers = _ping(url)
    except PermissionError as error:
        raise EngineNotPermitted(
            f"{kind} at {url}: permission denied",
            hint="join the socket's group (sudo usermod -aG docker $USER, then log in again)"
            " or run as a user who may open it",
        ) from error
    except (OSError, ValueError, http.client.HTTPException) as error:
        raise EngineUnreachable(
            f"{kind} at {url} (from {candidate.origin}): nobody answers: {_why(error)}",
            hint="start it, or correct the address",
        ) from error
    libpod = headers.get("libpod-api-version")
    version = libpod or headers.get("api-version")
    if not version or not _VERSION.fullmatch(version):
        raise EngineUnreachable(
            f"{kind} at {url} (from {candidate.origin}): something answers that is no engine",
            hint="correct the address",
        )
    return Endpoint("podman" if libpod else "docker", url, candidate.origin, version)


def _why(error: Exception) -> str:
    return getattr(error, "strerror", None) or str(error) or type(error).__name__


def _ping(url: str) -> dict[str, str]:
    with contextlib.closing(Connection(url, PROBE_SECONDS)) as connection:
        connection.request("GET", "/_ping", headers={"Host": "localhost"})
        return {name.lower(): value for name, value in connection.getresponse().getheaders()}


def _identity(url: str) -> str:
    """Return the same text for the same socket reached by two paths."""
    return f"unix://{os.path.realpath(url[7:])}" if url.startswith("unix://") else url


def connect(endpoint: Endpoint) -> Engine:
    """Open an engine."""
    if endpoint.kind == "podman":
        from imgload.engines.podman import PodmanEngine  # noqa: PLC0415 - start-up

        return PodmanEngine(endpoint)
    from imgload.engines.docker import DockerEngine  # noqa: PLC0415 - start-up

    return DockerEngine(endpoint)
