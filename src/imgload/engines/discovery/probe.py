"""Asking an address which engine it is."""

from __future__ import annotations

import contextlib
import http.client
import re
from urllib.parse import urlsplit

import attrs

from imgload.core.errors import EngineError, EngineUnreachable, UsageError
from imgload.engines.discovery.attempt import Candidate
from imgload.engines.endpoint import Endpoint
from imgload.engines.http import Connection

CONNECT_SECONDS = 0.8
"""For a connection over the network to come about."""
PROBE_SECONDS = 2.0
"""For an answer: Podman's service may only be starting."""
_VERSION = re.compile(r"[\w.+-]{1,40}", re.ASCII)
_SCHEMES = ("unix://", "tcp://", "http://", "ssh://")
_WANTS_TLS = b"HTTP request to an HTTPS server"
_LONGEST = 4096
_USE_TLS = "export DOCKER_TLS_VERIFY=1, and DOCKER_CERT_PATH where ca.pem, cert.pem, key.pem are"


def probe(candidate: Candidate) -> Endpoint:
    """Ask one address which engine it is.

    Raises:
        EngineError: when nothing answers there, or it may not be asked.
        UsageError: when it is no address at all.

    """
    if candidate.problem:
        raise candidate.problem
    _require_address(candidate)
    try:
        return _ask(candidate)
    except EngineError as error:
        hint = "; or ".join(filter(None, [error.hint, candidate.undo]))
        raise type(error)(f"{candidate}: {error.message}", hint=hint) from error
    except (OSError, ValueError, http.client.HTTPException) as error:
        raise _explained(candidate, error) from error


def _require_address(candidate: Candidate) -> None:
    if candidate.url.startswith("npipe:"):
        raise EngineUnreachable(
            f"{candidate}: imgload does not speak over named pipes of Windows",
            hint="run it within WSL, where the engine has a socket",
        )
    if not _is_address(candidate):
        raise UsageError(
            f"{candidate.origin}: not an engine's address: {candidate.url!r}",
            hint="write it as unix:///path/to/engine.sock, tcp://host:port or ssh://user@host",
        )


def _is_address(candidate: Candidate) -> bool:
    if not candidate.url.startswith(_SCHEMES):
        return False
    try:
        parts = urlsplit(candidate.url)
        if parts.scheme == "ssh":
            return _is_remote(candidate)
        _ = parts.port  # raises
    except ValueError:
        return False
    return bool(parts.netloc + parts.path if parts.scheme == "unix" else parts.hostname)


def _is_remote(candidate: Candidate) -> bool:
    from imgload.engines.ssh import Remote  # noqa: PLC0415 - start-up

    return bool(Remote.parse(candidate.url, candidate.kind))


def _way_to(candidate: Candidate) -> Endpoint:
    """Return the endpoint as far as it is known without asking."""
    known = Endpoint(candidate.kind, candidate.url, candidate.origin, tls=candidate.tls)
    if not candidate.url.startswith("ssh://"):
        return known
    from imgload.engines.ssh import open_tunnel  # noqa: PLC0415 - start-up

    return open_tunnel(known, identity=candidate.identity, machine=candidate.machine)


def _ask(candidate: Candidate) -> Endpoint:
    way = _way_to(candidate)
    try:
        headers, body = _ping(way)
    except BaseException:
        if way.tunnel:
            way.tunnel.close()
        raise
    libpod = headers.get("libpod-api-version")
    version = libpod or headers.get("api-version")
    if not version or not _VERSION.fullmatch(version):
        if _WANTS_TLS in body:
            raise EngineUnreachable("it speaks TLS only", hint=_USE_TLS)
        raise EngineUnreachable("something answers that is no engine", hint="correct the address")
    return attrs.evolve(way, kind="podman" if libpod else "docker", version=version)


def _ping(way: Endpoint) -> tuple[dict[str, str], bytes]:
    """Return the headers, and where they are no engine's, the beginning of the body."""
    url = way.tunnel.url if way.tunnel else way.url
    tls = way.tls.context() if way.tls else None
    with contextlib.closing(Connection(url, PROBE_SECONDS, tls, CONNECT_SECONDS)) as connection:
        connection.request("GET", "/_ping", headers={"Host": "localhost"})
        answer = connection.getresponse()
        headers = {name.lower(): value for name, value in answer.getheaders()}
        return headers, b"" if "api-version" in headers else answer.read(_LONGEST)


def _explained(candidate: Candidate, error: Exception) -> EngineError:
    from imgload.engines.discovery.explain import silence  # noqa: PLC0415 - start-up

    return silence(candidate, error)
