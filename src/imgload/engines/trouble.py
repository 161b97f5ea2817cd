"""The connections' errors, told in imgload's: one place, for both engines.

Which class an SDK raises says little (both wrap urllib3's wrapping of the socket's error), so the
chain of causes is walked for what really happened.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import wraps
from http import HTTPStatus
from http.client import HTTPException, IncompleteRead
from typing import Concatenate, ParamSpec, TypeVar

from imgload.engines.base import Endpoint, Engine
from imgload.engines.wire import Answer
from imgload.errors import (
    ArchiveInvalid,
    EngineError,
    EngineFailed,
    EngineNotPermitted,
    EngineUnreachable,
    ImgloadError,
)

WRONG_SHAPE = (
    *(LookupError, TypeError, AttributeError, ValueError, OverflowError),  # of a JSON document
    ArchiveInvalid,  # of a digest or a platform in it
)
"""Errors of reading an answer that does not follow the engine's API."""
_E = TypeVar("_E", bound=Engine)
_P = ParamSpec("_P")
_T = TypeVar("_T")


def understood(method: Callable[Concatenate[_E, _P], _T]) -> Callable[Concatenate[_E, _P], _T]:
    """Make a method raise EngineFailed when an answer does not follow the engine's API.

    Only for methods that run no code of their caller's, whose errors are others.
    """

    @wraps(method)
    def checked(self: _E, /, *args: _P.args, **options: _P.kwargs) -> _T:
        try:
            return method(self, *args, **options)
        except WRONG_SHAPE as error:
            from imgload.engines.remedies import health  # noqa: PLC0415 - start-up

            why = error.message if isinstance(error, ImgloadError) else repr(error)
            message = f"{self.endpoint}: its answer is not what its API specifies: {why}"
            raise EngineFailed(message, hint=health(self.endpoint.kind)) from error

    return checked


@contextmanager
def translated(endpoint: Endpoint, doing: str) -> Iterator[None]:
    """Raise EngineError in place of whatever a connection or an SDK raises.

    Args:
        endpoint: the engine, for the message.
        doing: what was being done, as "listing containers".

    """
    try:
        yield
    except ImgloadError:
        raise
    except (OSError, HTTPException) as error:
        raise engine_error(endpoint, doing, error) from error
    except Exception as error:
        if not type(error).__module__.startswith(("docker.", "podman.", "urllib3.")):
            raise
        raise engine_error(endpoint, doing, error) from error


def engine_error(endpoint: Endpoint, doing: str, error: BaseException) -> EngineError:
    """Return the imgload error for an SDK's error."""
    from imgload.engines.remedies import health, permit, start  # noqa: PLC0415 - start-up

    causes = list(_causes(error))
    if any(isinstance(c, PermissionError) for c in causes):
        return EngineNotPermitted(
            f"{endpoint}: permission denied while {doing}",
            hint=permit(endpoint.kind),
        )
    if any(isinstance(c, (FileNotFoundError, ConnectionRefusedError)) for c in causes):
        return EngineUnreachable(
            f"{endpoint}: nobody answers while {doing}",
            hint=start(endpoint.url),
        )
    what = f"{doing} failed: {_explanation(error)}"
    if timed_out(error):
        what = f"no answer for too long while {doing}"
    return EngineFailed(f"{endpoint}: {what}", hint=health(endpoint.kind))


def timed_out(error: BaseException) -> bool:
    """Whether an error is, or comes from, nothing having come for too long."""
    return any(isinstance(c, TimeoutError) or "Timeout" in type(c).__name__ for c in _causes(error))


def _causes(error: BaseException) -> Iterator[BaseException]:
    seen: set[int] = set()
    waiting: list[BaseException | None] = [error]
    while waiting:
        current = waiting.pop()
        if current is None or id(current) in seen:
            continue
        seen.add(id(current))
        yield current
        waiting += [current.__cause__, current.__context__]
        waiting += [arg for arg in current.args if isinstance(arg, BaseException)]
        reason = getattr(current, "reason", None)
        waiting.append(reason if isinstance(reason, BaseException) else None)


def _explanation(error: BaseException) -> str:
    if isinstance(error, IncompleteRead):
        return "the connection broke in the middle"
    explanation = getattr(error, "explanation", None)
    return str(explanation or error).strip()[:2000]


def refuse_bad_answer(answer: Answer, endpoint: Endpoint, doing: str) -> None:
    """Raise EngineFailed with the engine's own words when an answer is an error or a redirect."""
    if answer.status < HTTPStatus.MULTIPLE_CHOICES:
        return
    with answer:
        data = answer.read()
    from imgload.oci.jsontext import load_json  # noqa: PLC0415 - start-up

    try:
        body = load_json(data)
        text = str(body.get("message") or body.get("cause") or body)
    except (ValueError, AttributeError):
        text = data.decode(errors="replace")
    from imgload.engines.remedies import health  # noqa: PLC0415 - start-up

    what = f"{endpoint}: {doing} failed: {text.strip()[:2000]}"
    raise EngineFailed(what, hint=health(endpoint.kind), refused=True)
