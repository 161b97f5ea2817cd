"""The errors and hints for engines that do not answer."""

import ssl

import pytest

from imgload.core.errors import EngineFailed, EngineNotPermitted, EngineUnreachable
from imgload.engines.discovery.candidates import Attempt, Candidate
from imgload.engines.discovery.probe import no_engine_error, probe_error
from imgload.engines.endpoint import Endpoint

STALE = Candidate("docker", "unix:///d", "DOCKER_HOST", chosen=True, undo="unset DOCKER_HOST")
USUAL = Candidate("podman", "unix:///p", "rootless Podman")
GONE = EngineUnreachable("docker is gone", hint="start docker")
UNSET = "unset DOCKER_HOST"
DENIED = EngineNotPermitted("podman may not be asked", hint="ask nicely")


def test_no_engine_error_lists_all_attempts() -> None:
    """One line each; what is missing of a kind that was chosen is no news."""
    absent = [Candidate("docker", "unix:///a", ""), Candidate("podman", "unix:///b", "")]
    attempts = [Attempt(STALE, error=GONE), Attempt(USUAL, error=DENIED)]
    error = no_engine_error(attempts, absent)
    assert error.message.splitlines() == [
        "no container engine answers",
        "  docker is gone",
        "  podman may not be asked",
        "  not found: /b",
    ]


@pytest.mark.parametrize("swapped", [False, True])
def test_no_engine_error_has_the_class_and_hint_of_the_choice(swapped: bool) -> None:  # noqa: FBT001
    """Then what may not be asked, then the rest; the exit status is the same."""
    attempts = [Attempt(STALE, error=GONE), Attempt(USUAL, error=DENIED)]
    error = no_engine_error(attempts[::-1] if swapped else attempts, [])
    assert isinstance(error, EngineUnreachable)
    assert error.hint == "start docker"
    odd = Attempt(USUAL, error=EngineFailed("odd"))
    assert isinstance(no_engine_error([odd, attempts[1]], []), EngineNotPermitted)


@pytest.mark.parametrize("hint", ["start docker", f"start docker; or {UNSET}"])
def test_no_engine_error_suggests_a_skipped_engine_first(hint: str) -> None:
    """It was passed over for the choice; each step is suggested once."""
    gone = EngineUnreachable("docker is gone", hint=hint)
    other = Candidate("docker", "unix:///o", "Colima", take=UNSET)
    reason = "DOCKER_HOST overrides it"
    hidden = Attempt(other, Endpoint("docker", "unix:///o"), skip_reason=reason)
    error = no_engine_error([Attempt(STALE, error=gone), hidden], [])
    assert "docker at unix:///o answers but is not used: DOCKER_HOST overrides it" in str(error)
    assert error.hint == f"{UNSET}; or start docker"


def test_no_engine_error_without_attempts_suggests_start_and_from() -> None:
    """Start one, or name one."""
    error = no_engine_error([], [])
    assert isinstance(error, EngineUnreachable)
    assert "--from" in error.hint


def test_no_engine_error_is_limited_in_length() -> None:
    """However much is silent."""
    many = [Attempt(attempt, error=GONE) for attempt in [USUAL] * 50]
    assert len(no_engine_error(many, []).message.splitlines()) < 20


def alert(reason: str) -> ssl.SSLError:
    error = ssl.SSLError(1, f"[SSL: {reason}] told by the other side")
    error.reason = reason
    return error


@pytest.mark.parametrize(
    ("error", "kind", "said", "hint"),
    [
        (PermissionError(13, "x"), EngineNotPermitted, "permission denied", "usermod"),
        (ConnectionRefusedError(111, "refused"), EngineUnreachable, "refused", "unset DOCKER_HOST"),
        (TimeoutError(), EngineUnreachable, "TimeoutError", "unset DOCKER_HOST"),
        (alert("WRONG_VERSION_NUMBER"), EngineUnreachable, "not speak TLS", "unset DOCKER_TLS"),
        (alert("TLSV13_ALERT_CERTIFICATE_REQUIRED"), EngineNotPermitted, "refuses", "cert.pem"),
    ],
)
def test_probe_error_has_reason_and_hint(
    error: Exception, kind: type, said: str, hint: str
) -> None:
    """With where the address was found."""
    told = probe_error(STALE, error)
    assert isinstance(told, kind)
    assert said in told.message
    assert "DOCKER_HOST" in told.message
    assert hint in told.hint
