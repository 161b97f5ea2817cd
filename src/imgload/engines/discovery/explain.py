"""What to tell a user when no engine answers: one screen, and the command that changes it."""

from __future__ import annotations

import ssl
from collections.abc import Sequence
from pathlib import Path

from imgload.core.errors import (
    EngineError,
    EngineNotPermitted,
    EngineUnreachable,
    ImgloadError,
)
from imgload.engines.discovery.attempt import Attempt, Candidate
from imgload.engines.discovery.hints import permit, start, start_any
from imgload.engines.discovery.sockets import is_installed

_MOST = 12
_NO_TLS = "unset DOCKER_TLS_VERIFY DOCKER_TLS"
_TRUST = (
    "see whether ca.pem (in DOCKER_CERT_PATH, or in the context) signed it, and for which names"
    " it is"
)
_OUR_OWN = (
    "put the cert.pem and key.pem that it accepts beside ca.pem (in DOCKER_CERT_PATH, or in the"
    " context)"
)


def silence(candidate: Candidate, error: Exception) -> EngineError:
    """Return the error for an address where no engine could be asked."""
    where = f"{candidate}: nobody answers: "
    if isinstance(error, PermissionError):
        hint = permit(candidate.kind)
        return EngineNotPermitted(f"{candidate}: permission denied", hint=hint)
    if isinstance(error, ssl.SSLCertVerificationError):
        why = f"{candidate}: its certificate is not trusted: {error.verify_message}"
        return EngineUnreachable(why, hint=_TRUST)
    if isinstance(error, ssl.SSLError) and "ALERT" in (error.reason or ""):
        return EngineNotPermitted(f"{candidate}: it refuses our certificate", hint=_OUR_OWN)
    if isinstance(error, ssl.SSLError):
        return EngineUnreachable(f"{where}it does not speak TLS ({_why(error)})", hint=_NO_TLS)
    hint = "; or ".join(filter(None, [start(candidate.url), candidate.undo]))
    return EngineUnreachable(f"{where}{_why(error)}", hint=hint)


def _why(error: Exception) -> str:
    return getattr(error, "strerror", None) or str(error) or type(error).__name__


def nothing_answers(attempts: Sequence[Attempt], absent: Sequence[Candidate]) -> EngineError:
    """Return the error that says what was tried.

    Args:
        attempts: everything that was asked, and what was passed over.
        absent: the usual sockets that are not there.

    """
    failed = [attempt for attempt in attempts if attempt.error and not attempt.passed_over]
    lines = ["no container engine answers"]
    lines += [f"  {attempt.error.message}" for attempt in failed[:_MOST] if attempt.error]
    chosen = {attempt.candidate.kind for attempt in failed if attempt.candidate.chosen}
    missing = [_short(place) for place in absent if place.kind not in chosen]
    lines += [f"  not there: {', '.join(missing)}"] if missing else []
    lines += [f"  {line}" for line in _others(attempts)]
    first = _first(failed)
    kind = type(first) if first else EngineUnreachable
    return kind("\n".join(lines), hint=_hint(attempts, absent, first))


def with_silent(error: ImgloadError, silent: Sequence[Attempt]) -> ImgloadError:
    """Return an error with the engines that could not be asked.

    Args:
        error: that something was not found.
        silent: the attempts whose failure matters.

    """
    errors = [attempt.error for attempt in silent if attempt.error]
    message = "; and ".join([error.message, *(e.message for e in errors)])
    hint = "; or ".join(filter(None, [errors[0].hint, error.hint]))
    return type(error)(message, hint=hint)


def _first(failed: Sequence[Attempt]) -> EngineError | None:
    """Return the failure that is nearest to what the user wants."""

    def weight(attempt: Attempt) -> tuple[bool, bool]:
        return (not attempt.candidate.chosen, not isinstance(attempt.error, EngineNotPermitted))

    return min(failed, key=weight).error if failed else None


def _hint(
    attempts: Sequence[Attempt], absent: Sequence[Candidate], first: EngineError | None
) -> str:
    others = [a.candidate.take for a in attempts if a.passed_over and a.endpoint]
    stopped = [start(place.url) for place in absent if is_installed(place)]
    remedies = [*others[:1], first.hint if first else "", *stopped[:1]]
    known = "; or ".join(dict.fromkeys(filter(None, remedies)))
    return known or f"{start_any()}; or name one: --from unix:///path/to/engine.sock"


def _short(absent: Candidate) -> str:
    path = absent.url.removeprefix("unix://")
    home = str(Path.home())
    return f"~{path.removeprefix(home)}" if path.startswith(f"{home}/") else path


def _others(attempts: Sequence[Attempt]) -> list[str]:
    return [
        f"{attempt.endpoint} answers, and is not asked: {attempt.passed_over}"
        for attempt in attempts
        if attempt.passed_over and attempt.endpoint
    ]
