"""Probe candidates: ask which engine answers at an address, or explain why none does."""

from __future__ import annotations

import contextlib
import http.client
import os
import re
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from urllib.parse import urlsplit

import attrs

from imgload.core.errors import EngineError, EngineNotPermitted, EngineUnreachable, UsageError
from imgload.core.parallel import in_parallel
from imgload.engines.discovery.candidates import Attempt, Candidate, candidates, is_installed
from imgload.engines.endpoint import Endpoint, EngineKind, permit, start, start_any
from imgload.engines.http import Connection

CONNECT_SECONDS = 0.8  # the limit for a connection over the network
PROBE_SECONDS = 2.0  # the limit for an answer: systemd may only now start Podman's service
_VERSION = re.compile(r"[\w.+-]{1,40}", re.ASCII)
_SCHEMES = ("unix://", "tcp://", "http://", "ssh://")
_LOOPBACK = {"localhost", "127.0.0.1", "::1"}
_MAX_BODY = 4096
_MAX_ERRORS = 12
_TLS_FILES = "(in DOCKER_CERT_PATH, or in the context)"
_CHECK_CA = f"check that ca.pem {_TLS_FILES} signed it, and that it names this host"
_CHECK_CLIENT = f"put a cert.pem and key.pem that the engine accepts beside ca.pem {_TLS_FILES}"


def first_endpoint(kind: EngineKind) -> Endpoint:
    """Return the first engine of a kind by order of precedence; EngineError if none answers."""
    attempts = probe_all([*candidates(os.environ)])
    endpoints = [attempt.endpoint for attempt in attempts if attempt.endpoint]
    first = next((endpoint for endpoint in endpoints if endpoint.kind == kind), None)
    for endpoint in endpoints:
        if endpoint.tunnel and endpoint is not first:
            endpoint.tunnel.close()
    if first is None:
        raise no_engine_error(attempts, headline=f"no {kind.capitalize()} answers")
    return first


def probe_all(tried: Sequence[Candidate], *, everything: bool = False) -> list[Attempt]:
    """Probe candidates in parallel; the last resorts if no other answers, or if `everything`."""
    attempts: dict[Candidate, Attempt] = {}
    for last_resort in (False, True):
        if everything or not any(attempt.endpoint for attempt in attempts.values()):
            batch = [c for c in tried if c.last_resort == last_resort]
            results = in_parallel([partial(_attempt, candidate) for candidate in batch])
            attempts |= zip(batch, results, strict=True)
    return [attempts.get(candidate, Attempt(candidate)) for candidate in tried]


def _attempt(candidate: Candidate) -> Attempt:
    try:
        return Attempt(candidate, probe(candidate))
    except EngineError as error:
        error.endpoint = error.endpoint or candidate.url
        return Attempt(candidate, error=error)
    except UsageError as error:
        if candidate.explicit:
            raise
        hint = "; or ".join(filter(None, [error.hint, candidate.undo]))
        return Attempt(candidate, error=EngineUnreachable(error.message, hint=hint))


def probe(candidate: Candidate) -> Endpoint:
    """Ask an address which engine it is; EngineError, or UsageError for an invalid address."""
    if candidate.problem:
        raise candidate.problem
    if candidate.url.startswith("npipe:"):
        raise EngineUnreachable(
            f"{candidate}: imgload does not support Windows named pipes",
            hint="run it within WSL, where the engine has a socket",
        )
    if not _is_address(candidate):
        raise UsageError(
            f"{candidate.origin}: not an engine's address: {candidate.url!r}",
            hint="write it as unix:///path/to/engine.sock, tcp://host:port or ssh://user@host",
        )
    try:
        return _ping(candidate)
    except EngineError as error:
        hint = "; or ".join(filter(None, [error.hint, candidate.undo]))
        raise type(error)(f"{candidate}: {error.message}", hint=hint) from error
    except (OSError, ValueError, http.client.HTTPException) as error:
        raise probe_error(candidate, error) from error


def _is_address(candidate: Candidate) -> bool:
    with contextlib.suppress(ValueError):
        parts = urlsplit(candidate.url)
        if parts.scheme == "ssh":
            from imgload.engines.ssh import Remote  # noqa: PLC0415 - start-up

            return bool(Remote.parse(candidate.url, candidate.kind))
        _ = parts.port  # raises
        host = parts.netloc + parts.path if parts.scheme == "unix" else parts.hostname
        return bool(host) and candidate.url.startswith(_SCHEMES)
    return False


def _ping(candidate: Candidate) -> Endpoint:
    endpoint = Endpoint(candidate.kind, candidate.url, candidate.origin, tls=candidate.tls)
    if candidate.url.startswith("ssh://"):
        from imgload.engines.ssh import Remote, SshTunnel  # noqa: PLC0415 - start-up

        remote = Remote.parse(candidate.url, candidate.kind, identity=candidate.identity)
        if candidate.machine and remote.login.host in _LOOPBACK:
            remote = attrs.evolve(remote, login=attrs.evolve(remote.login, is_vm=True))
        endpoint = attrs.evolve(endpoint, tunnel=SshTunnel(remote))
    try:
        url = endpoint.tunnel.url if endpoint.tunnel else endpoint.url
        tls = endpoint.tls.context() if endpoint.tls else None
        with contextlib.closing(Connection(url, PROBE_SECONDS, tls, CONNECT_SECONDS)) as connection:
            connection.request("GET", "/_ping", headers={"Host": "localhost"})
            answer = connection.getresponse()
            headers = answer.headers
            body = b"" if "api-version" in headers else answer.read(_MAX_BODY)
    except BaseException:
        if endpoint.tunnel:
            endpoint.tunnel.close()
        raise
    if b"HTTP request to an HTTPS server" in body:
        files = "DOCKER_CERT_PATH=FOLDER with ca.pem, cert.pem, key.pem"
        hint = f"export DOCKER_TLS_VERIFY=1 and {files}"
        raise EngineUnreachable("it speaks TLS only", hint=hint)
    return identified(endpoint, headers)


def identified(endpoint: Endpoint, headers: http.client.HTTPMessage) -> Endpoint:
    """Add the kind and version that a ping reports; EngineUnreachable if it reports none."""
    libpod = headers.get("Libpod-Api-Version")
    version = libpod or headers.get("Api-Version") or ""
    if not _VERSION.fullmatch(version):
        message = "the server at this address is not Docker or Podman"
        raise EngineUnreachable(message, hint="correct the address")
    return attrs.evolve(endpoint, kind="podman" if libpod else "docker", version=version)


def probe_error(candidate: Candidate, error: Exception) -> EngineError:
    """Return the error for a candidate that could not be probed."""
    import ssl  # noqa: PLC0415 - start-up

    why = getattr(error, "strerror", None) or str(error) or type(error).__name__
    message = f"{candidate}: nobody answers: {why}"
    hint = "; or ".join(filter(None, [start(candidate.url), candidate.undo]))
    match error:
        case PermissionError():
            hint = permit(candidate.kind)
            return EngineNotPermitted(f"{candidate}: permission denied", hint=hint)
        case ssl.SSLCertVerificationError():
            message = f"{candidate}: its certificate is not trusted: {error.verify_message}"
            hint = _CHECK_CA
        case ssl.SSLError() if "ALERT" in (error.reason or ""):
            message = f"{candidate}: it refuses our certificate"
            return EngineNotPermitted(message, hint=_CHECK_CLIENT)
        case ssl.SSLError():
            message = f"{candidate}: nobody answers: it does not speak TLS ({why})"
            hint = "unset DOCKER_TLS_VERIFY DOCKER_TLS"
    return EngineUnreachable(message, hint=hint)


def no_engine_error(
    attempts: Sequence[Attempt],
    absent: Sequence[Candidate] = (),
    headline: str = "no container engine answers",
) -> EngineError:
    """Return the error for the case that no engine answers, with all attempts.

    Its class and hint are those of the chosen candidate's error, or else of a refused permission.
    """
    failed = [attempt for attempt in attempts if attempt.error and not attempt.skip_reason]
    skipped = [a for a in attempts if a.skip_reason and a.endpoint]
    lines = [headline]
    lines += [f"  {attempt.error.message}" for attempt in failed[:_MAX_ERRORS] if attempt.error]
    chosen = {attempt.candidate.kind for attempt in failed if attempt.candidate.chosen}
    paths = [c.url.removeprefix("unix://") for c in absent if c.kind not in chosen]
    missing = [re.sub(rf"^{re.escape(str(Path.home()))}(?=/)", "~", path) for path in paths]
    lines += [f"  not found: {', '.join(missing)}"] if missing else []
    lines += [f"  {a.endpoint} answers but is not used: {a.skip_reason}" for a in skipped]

    def weight(attempt: Attempt) -> tuple[bool, bool]:
        return (not attempt.candidate.chosen, not isinstance(attempt.error, EngineNotPermitted))

    error = min(failed, key=weight).error if failed else None
    takes = [attempt.candidate.take for attempt in skipped]
    stopped = [start(candidate.url) for candidate in absent if is_installed(candidate)]
    hints = [*takes[:1], error.hint if error else "", *stopped[:1]]
    hints = [*filter(None, hints)] or [start_any(), "name one: --from unix:///path/to/engine.sock"]
    hint = "; or ".join(dict.fromkeys("; or ".join(hints).split("; or ")))
    return (type(error) if error else EngineUnreachable)("\n".join(lines), hint=hint)
