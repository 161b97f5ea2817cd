"""HTTP over an engine's socket: one connection for each request, and bodies as streams.

The SDKs use requests, whose import takes longer than a survey of a node. They are used for the
caller's clients only: `imgload.engines.sdk`.
"""

from __future__ import annotations

import http.client
import json
import socket
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager
from functools import wraps
from http import HTTPStatus
from typing import TYPE_CHECKING, Any, TypeVar, cast
from urllib.parse import urlencode, urlsplit

import attrs

from imgload.core import trace
from imgload.core.errors import (
    ArchiveInvalid,
    EngineError,
    EngineFailed,
    EngineNotPermitted,
    EngineUnreachable,
    ImgloadError,
)
from imgload.engines.base import CHUNK, Backend, Chunk
from imgload.engines.causes import cause_of, hint_for, refused_request
from imgload.engines.endpoint import Endpoint, permit, start
from imgload.oci.document import load_json

if TYPE_CHECKING:
    import ssl

CONTROL_SECONDS = 60.0
CONNECT_SECONDS = 10.0
STREAM_SECONDS = 600.0
"""The longest silence of a stream; Docker 20.10 spools a whole save before its first byte."""
LOOK_UP_SECONDS = 10.0
"""The longest query of an engine to this process; other requests may delay it."""
_SPOOLED_A_SECOND = 20 << 20  # bytes; a save may be silent for that much longer
_BUFFER = 256 << 10
_MAX_JSON = 64 << 20
Params = Sequence[tuple[str, str]]


def save_seconds(size: int) -> float:
    """Return the longest silence of a save of so many bytes."""
    return STREAM_SECONDS + size / _SPOOLED_A_SECOND


@attrs.frozen
class Request:
    """An HTTP request; `seconds` is the longest silence, None for no limit."""

    method: str
    path: str
    params: Mapping[str, str] | Params = ()
    json: Any = None
    stream: Iterable[Chunk] | None = None
    headers: Mapping[str, str] = attrs.field(factory=dict)
    seconds: float | None = attrs.field(factory=lambda: CONTROL_SECONDS)

    @property
    def body(self) -> bytes | Iterator[bytes] | None:
        if self.stream is not None:
            return (bytes(chunk) for chunk in self.stream if chunk)
        return json.dumps(self.json).encode() if self.json is not None else None

    @property
    def content_type(self) -> dict[str, str]:
        if self.stream is not None:
            return {"Content-Type": "application/x-tar"}
        return {"Content-Type": "application/json"} if self.json is not None else {}


class _Response(http.client.HTTPResponse):
    """A response with a read buffer large enough for streams."""

    def __init__(self, sock: socket.socket, *args: Any, **options: Any) -> None:
        super().__init__(sock, *args, **options)
        self.fp = sock.makefile("rb", _BUFFER)  # type: ignore[assignment]


class Connection(http.client.HTTPConnection):
    """A connection to ``unix:///path`` or ``tcp://host:port``.

    `seconds` is the longest silence, None for no limit; `connect_seconds` the limit for connecting.
    """

    response_class = _Response

    def __init__(
        self,
        url: str,
        seconds: float | None,
        tls: ssl.SSLContext | None = None,
        connect_seconds: float = CONNECT_SECONDS,
    ) -> None:
        parts = urlsplit(url)
        self._path = (parts.netloc + parts.path) if parts.scheme == "unix" else None
        self._tls, self._seconds = tls, seconds
        host = "localhost" if self._path else parts.hostname or "localhost"
        port = None if self._path else parts.port or (2376 if tls else 2375)
        super().__init__(host, port, timeout=connect_seconds)

    def connect(self) -> None:
        if self._path is None:
            super().connect()
        else:
            self.sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
            self.sock.settimeout(self.timeout)
            self.sock.connect(self._path)
        if self._tls:
            self.sock = self._tls.wrap_socket(self.sock, server_hostname=self.host)
        self.sock.settimeout(self._seconds)


class Answer(AbstractContextManager["Answer"]):
    """A response after its headers, on a connection of its own; `request` as in ``GET /info``."""

    def __init__(self, connection: Any, response: http.client.HTTPResponse, request: str) -> None:
        self.request = request
        self.status, self.headers = response.status, response.headers
        self._connection, self._response = connection, response

    def chunks(self) -> Iterator[bytes]:
        """Yield the body in chunks; ConnectionError if it ends early."""
        while chunk := self._response.read(CHUNK):
            yield chunk
        if self._response.length:  # http.client treats it as the end
            raise ConnectionError(f"cut off {self._response.length} bytes before the end")

    def lines(self) -> Iterator[bytes]:
        """Yield the lines of the body, longer ones in parts; HTTPException if it ends early."""
        rest = b""
        while piece := self._response.read1(CHUNK):  # `readline` ends at a break between chunks
            *lines, rest = (rest + piece).split(b"\n")
            yield from lines
            if len(rest) >= CHUNK:
                yield rest
                rest = b""
        if rest:
            yield rest

    def read(self) -> bytes:
        """Return the whole body of a document; EngineFailed if it is too long."""
        data = bytearray()
        for chunk in self.chunks():
            data += chunk
            if len(data) > _MAX_JSON:
                raise EngineFailed(f"the engine's answer is longer than {_MAX_JSON} bytes")
        return bytes(data)

    def take_over(self) -> tuple[socket.socket, Any]:
        """Return the bare connection: its socket, and the reader with the data received so far.

        A proxy that does not upgrade connections may have encoded the data, and passes no input on.
        """
        bare: Any = self._response.fp
        sock: socket.socket = bare.raw._sock  # noqa: SLF001 - `connection` may have closed its own
        sock.settimeout(None)
        return sock, bare if self.upgraded else self._response

    @property
    def upgraded(self) -> bool:
        """Whether the connection is now a stream in both directions."""
        return self.status == HTTPStatus.SWITCHING_PROTOCOLS

    def close(self) -> None:
        self._response.close()
        self._connection.close()

    def __exit__(self, *_: object) -> None:
        self.close()


class Wire:
    """An HTTP client for one engine on a unix socket, a TCP port or a tunnel; thread-safe."""

    def __init__(self, endpoint: Endpoint) -> None:
        self.endpoint = endpoint
        self._tls = endpoint.tls.context() if endpoint.tls else None
        if endpoint.tunnel:
            endpoint.tunnel.open()

    def send(self, request: Request) -> Answer:
        """Send a request and read the headers of the response; OSError if the engine is gone."""
        tunnel, path = self.endpoint.tunnel, request.path
        url = tunnel.url if tunnel else self.endpoint.url
        connection = Connection(url, request.seconds, self._tls)
        own = {"Host": "localhost", "Connection": "close"}
        headers = {**own, **request.headers, **request.content_type}
        target = f"{path}?{urlencode(request.params)}" if request.params else path
        line, began = f"{request.method} {path}", time.monotonic()
        try:
            connection.request(request.method, target, request.body, headers)
            answer = Answer(connection, connection.getresponse(), line)
        except BaseException as error:
            connection.close()
            trace.log(f"{self.endpoint.url} {line}: {error!r:.200}", began)
            raise
        if trace.enabled():
            trace.log(f"{self.endpoint.url} {line}: {answer.status}", began)
        return answer

    def close(self) -> None:
        if self.endpoint.tunnel:
            self.endpoint.tunnel.close()


# The errors of connections and SDKs, mapped to imgload's.

WRONG_SHAPE = (
    *(LookupError, TypeError, AttributeError, ValueError, OverflowError),  # of a JSON document
    ArchiveInvalid,  # of a digest or a platform in it
)
"""The errors of reading an answer that violates the engine's API."""
_Method = TypeVar("_Method", bound=Callable[..., Any])


def checked(method: _Method) -> _Method:
    """Make a method raise EngineFailed if an answer violates the engine's API.

    The method must not run its caller's code: that code's errors would be mapped as well.
    """

    @wraps(method)
    def wrapper(self: Backend, /, *args: Any, **options: Any) -> Any:
        try:
            return method(self, *args, **options)
        except WRONG_SHAPE as error:
            why = error.message if isinstance(error, ImgloadError) else repr(error)
            message = "its answer does not follow its API"
            raise failed(self.endpoint, f"{message}: {why}") from error

    return cast("_Method", wrapper)


@contextmanager
def map_errors(endpoint: Endpoint, doing: str) -> Iterator[None]:
    """Map the errors of a connection or SDK to EngineError; `doing` as in "listing containers".

    The class of an SDK's error says little: both SDKs wrap urllib3's wrapping of the socket's
    error. The chain of causes has the original error.
    """
    try:
        yield
    except ImgloadError as error:
        error.endpoint = error.endpoint or endpoint.url
        raise
    except Exception as error:
        of_sdk = type(error).__module__.startswith(("docker.", "podman.", "urllib3."))
        if not of_sdk and not isinstance(error, (OSError, http.client.HTTPException)):
            raise
        raise _engine_error(endpoint, doing, error) from error


def _engine_error(endpoint: Endpoint, doing: str, error: BaseException) -> EngineError:
    causes = list(_causes(error))
    if any(isinstance(cause, PermissionError) for cause in causes):
        message = f"{endpoint}: permission denied while {doing}"
        return EngineNotPermitted(message, hint=permit(endpoint.kind), endpoint=endpoint.url)
    if any(isinstance(cause, (FileNotFoundError, ConnectionRefusedError)) for cause in causes):
        message = f"{endpoint}: nobody answers while {doing}"
        return EngineUnreachable(message, hint=start(endpoint.url), endpoint=endpoint.url)
    if timed_out(error):
        return failed(endpoint, f"no answer for too long while {doing}")
    why = str(getattr(error, "explanation", None) or error).strip()[:2000]
    if isinstance(error, http.client.IncompleteRead):
        why = "the connection broke in the middle"
    return failed(endpoint, f"{doing} failed: {why}")


def failed(
    endpoint: Endpoint, message: str, *, refused: bool = False, request: str = ""
) -> EngineFailed:
    """Return the error of an engine, with the hint for its cause."""
    cause = cause_of(message)
    return EngineFailed(
        f"{endpoint}: {message}",
        hint=refused_request(request) if request else hint_for(message, endpoint.kind),
        endpoint=endpoint.url,
        refused=refused,
        final=cause is not None and cause.final,
        request=request,
    )


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


_REFUSALS = {HTTPStatus.UNAUTHORIZED, HTTPStatus.FORBIDDEN, HTTPStatus.METHOD_NOT_ALLOWED}
"""Answers of proxies and authorization plugins; an engine has no other use for them."""


def status_error(
    status: int, body: bytes, endpoint: Endpoint, doing: str, request: str
) -> EngineFailed:
    """Return the error of an answer: the engine's own message, or the request that was refused."""
    text, is_refused = "", status in _REFUSALS
    try:
        document = load_json(body)
        text = str(document.get("message") or document.get("cause") or document).strip()[:2000]
    except (ValueError, AttributeError):  # the page of a proxy
        is_refused = True
    if is_refused:
        refusal = f"{request} is refused with HTTP status {status}"
        text = f"{refusal}: {text}" if text else refusal
    asked = request if is_refused else ""
    return failed(endpoint, f"{doing} failed: {text}", refused=True, request=asked)
