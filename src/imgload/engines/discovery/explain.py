"""Error messages and hints for engines that do not answer."""

from __future__ import annotations

import re
import ssl
import sys
from collections.abc import Sequence
from pathlib import Path

from imgload.core.errors import EngineError, EngineNotPermitted, EngineUnreachable, ImgloadError
from imgload.engines.discovery.candidates import Attempt, Candidate, is_installed
from imgload.engines.endpoint import EngineKind

_START_COMMANDS = (
    (r"/\.colima/(default|\*)/", "colima start"),
    (r"/\.colima/(?P<name>[\w-]+)/", "colima start {name}"),
    (r"/\.orbstack/", "orb start"),
    (r"/\.rd/", "rdctl start"),
    (r"/\.docker/(desktop|run)/", "docker desktop start"),
    (r"podman/machine/|-api\.sock$", "podman machine start"),
    (r"^unix:///run/user/\d+/docker\.sock$", "systemctl --user start docker"),
    (r"^unix:///run/user/\d+/podman/podman\.sock$", "systemctl --user start podman.socket"),
    (r"^unix:///run/podman/", "sudo systemctl start podman.socket"),
    (r"^unix://(/var)?/run/docker\.sock$", "sudo systemctl start docker"),
)
"""The command for each pattern of an address."""
_START_ANY = {
    "linux": "sudo systemctl start docker, or systemctl --user start podman.socket",
    "darwin": "docker desktop start, colima start, or podman machine start",
}
_PERMIT: dict[EngineKind, str] = {
    "docker": "join the socket's group (sudo usermod -aG docker $USER, then log in again)",
    "podman": "start a Podman of your own (systemctl --user start podman.socket)",
}
_MAX_ERRORS = 12
_TLS_FILES = "(in DOCKER_CERT_PATH, or in the context)"
_CHECK_CA = f"check that ca.pem {_TLS_FILES} signed it, and that it names this host"
_CHECK_CLIENT = f"put a cert.pem and key.pem that the engine accepts beside ca.pem {_TLS_FILES}"


def probe_error(candidate: Candidate, error: Exception) -> EngineError:
    """Return the error for a candidate that could not be probed."""
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
    hint = "; or ".join(dict.fromkeys(hints))
    return (type(error) if error else EngineUnreachable)("\n".join(lines), hint=hint)


def extend_error(error: ImgloadError, silent: Sequence[Attempt]) -> ImgloadError:
    """Return a "not found" error extended by the errors of failed attempts."""
    errors = [attempt.error for attempt in silent if attempt.error]
    message = "; and ".join([error.message, *(e.message for e in errors)])
    hint = "; or ".join(filter(None, [errors[0].hint, error.hint]))
    extended = type(error)(message, hint=hint)
    vars(extended).update(vars(error) | {"message": extended.message, "hint": extended.hint})
    return extended


def start(url: str) -> str:
    """Return the command that starts the engine at an address."""
    for pattern, command in _START_COMMANDS:
        if match := re.search(pattern, url):
            return command.format(**match.groupdict())
    return f"start the engine that listens at {url}"


def start_any() -> str:
    return _START_ANY.get(sys.platform, "start Docker or Podman")


def health(kind: EngineKind) -> str:
    """Return how to check an engine that answers with errors."""
    return f"check the engine: {kind} info"


def permit(kind: EngineKind) -> str:
    """Return how to get permission for an engine's socket."""
    return f"{_PERMIT[kind]}, or run as a user with access to it"
