"""Map the errors of connections and SDKs to imgload's errors.

The class of an SDK's error says little: both SDKs wrap urllib3's wrapping of the socket's error.
The chain of causes has the original error.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import wraps
from http import HTTPStatus
from http.client import HTTPException, IncompleteRead
from typing import Concatenate, ParamSpec, TypeVar

from imgload.core.errors import (
    ArchiveInvalid,
    EngineError,
    EngineFailed,
    EngineNotPermitted,
    EngineUnreachable,
    ImgloadError,
)
from imgload.engines.base import Engine
from imgload.engines.endpoint import Endpoint
from imgload.engines.http import Answer

WRONG_SHAPE = (
    *(LookupError, TypeError, AttributeError, ValueError, OverflowError),  # of a JSON document
    ArchiveInvalid,  # of a digest or a platform in it
)
"""The errors of reading an answer that violates the engine's API."""
_E = TypeVar("_E", bound=Engine)
_P = ParamSpec("_P")
_T = TypeVar("_T")


def checked(method: Callable[Concatenate[_E, _P], _T]) -> Callable[Concatenate[_E, _P], _T]:
    """Make a method raise EngineFailed if an answer violates the engine's API.

    The method must not run its caller's code: that code's errors would be mapped as well.
    """

    @wraps(method)
    def wrapper(self: _E, /, *args: _P.args, **options: _P.kwargs) -> _T:
        try:
            return method(self, *args, **options)
        except WRONG_SHAPE as error:
            why = error.message if isinstance(error, ImgloadError) else repr(error)
            message = "its answer is not what its API specifies"
            raise _failed(self.endpoint, f"{message}: {why}") from error

    return wrapper


@contextmanager
def map_errors(endpoint: Endpoint, doing: str) -> Iterator[None]:
    """Map the errors of a connection or SDK to EngineError; `doing` as in "listing containers"."""
    try:
        yield
    except ImgloadError:
        raise
    except Exception as error:
        of_sdk = type(error).__module__.startswith(("docker.", "podman.", "urllib3."))
        if not of_sdk and not isinstance(error, (OSError, HTTPException)):
            raise
        raise _engine_error(endpoint, doing, error) from error


def _engine_error(endpoint: Endpoint, doing: str, error: BaseException) -> EngineError:
    from imgload.engines.discovery.explain import permit, start  # noqa: PLC0415 - start-up

    causes = list(_causes(error))
    if any(isinstance(c, PermissionError) for c in causes):
        message = f"{endpoint}: permission denied while {doing}"
        return EngineNotPermitted(message, hint=permit(endpoint.kind))
    if any(isinstance(c, (FileNotFoundError, ConnectionRefusedError)) for c in causes):
        message = f"{endpoint}: nobody answers while {doing}"
        return EngineUnreachable(message, hint=start(endpoint.url))
    if timed_out(error):
        return _failed(endpoint, f"no answer for too long while {doing}")
    why = str(getattr(error, "explanation", None) or error).strip()[:2000]
    if isinstance(error, IncompleteRead):
        why = "the connection broke in the middle"
    return _failed(endpoint, f"{doing} failed: {why}")


def _failed(endpoint: Endpoint, message: str, *, refused: bool = False) -> EngineFailed:
    from imgload.engines.discovery.explain import health  # noqa: PLC0415 - start-up

    return EngineFailed(f"{endpoint}: {message}", hint=health(endpoint.kind), refused=refused)


def timed_out(error: BaseException) -> bool:
    """Whether a timeout is the error or one of its causes."""
    return any(isinstance(c, TimeoutError) or "Timeout" in type(c).__name__ for c in _causes(error))


def _causes(error: BaseException) -> Iterator[BaseException]:
    seen: set[int] = set()
    pending: list[object] = [error]
    while pending:
        cause = pending.pop()
        if isinstance(cause, BaseException) and id(cause) not in seen:
            seen.add(id(cause))
            yield cause
            reason = getattr(cause, "reason", None)
            pending += [cause.__cause__, cause.__context__, *cause.args, reason]


def raise_for_status(answer: Answer, endpoint: Endpoint, doing: str) -> None:
    """Raise EngineFailed with the engine's own message if an answer is an error or a redirect."""
    if answer.status < HTTPStatus.MULTIPLE_CHOICES:
        return
    with answer:
        data = answer.read()
    from imgload.oci.document import load_json  # noqa: PLC0415 - start-up

    try:
        body = load_json(data)
        text = str(body.get("message") or body.get("cause") or body)
    except (ValueError, AttributeError):
        text = data.decode(errors="replace")
    raise _failed(endpoint, f"{doing} failed: {text.strip()[:2000]}", refused=True)
