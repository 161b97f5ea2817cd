"""HTTP over an engine's socket: one connection for each request, and bodies as streams.

The SDKs use requests, whose import takes longer than a survey of a node. They are used for the
caller's clients only: `imgload.engines.sdk`.
"""

from __future__ import annotations

import http.client
import json
import socket
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Self
from urllib.parse import urlencode, urlsplit

import attrs

from imgload.core.errors import EngineFailed
from imgload.engines.base import CHUNK, Chunk
from imgload.engines.endpoint import Endpoint

if TYPE_CHECKING:
    import ssl

CONTROL_SECONDS = 60.0
CONNECT_SECONDS = 10.0
STREAM_SECONDS = 600.0
"""The longest silence of a stream; Docker 20.10 spools a whole save before its first byte."""
LOOK_UP_SECONDS = 10.0
"""The longest query of an engine to this process; other requests may delay it."""
_SPOOLED_A_SECOND = 20 << 20
"""Bytes; a save may be silent for that much longer."""
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


class Answer:
    """A response after its headers, on a connection of its own."""

    def __init__(self, connection: Any, response: http.client.HTTPResponse) -> None:
        self.status, self.headers = response.status, response.headers
        self._connection, self._response = connection, response

    def chunks(self) -> Iterator[bytes]:
        """Yield the body in chunks; ConnectionError if it ends early."""
        while chunk := self._response.read(CHUNK):
            yield chunk
        if self._response.length:  # http.client treats it as the end
            raise ConnectionError(f"cut off {self._response.length} bytes before the end")

    def lines(self) -> Iterator[bytes]:
        while line := self._response.readline(CHUNK):
            yield line

    def read(self) -> bytes:
        """Return the whole body of a document; EngineFailed if it is too long."""
        data = bytearray()
        for chunk in self.chunks():
            data += chunk
            if len(data) > _MAX_JSON:
                raise EngineFailed(f"the engine's answer is longer than {_MAX_JSON} bytes")
        return bytes(data)

    def take_over(self) -> tuple[socket.socket, Any]:
        """Return the bare connection: its socket, and the reader with the data received so far."""
        reader: Any = self._response.fp
        sock: socket.socket = reader.raw._sock  # noqa: SLF001 - `connection` may have closed its own
        sock.settimeout(None)
        return sock, reader

    def close(self) -> None:
        self._response.close()
        self._connection.close()

    def __enter__(self) -> Self:
        return self

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
        try:
            connection.request(request.method, target, request.body, headers)
            return Answer(connection, connection.getresponse())
        except BaseException:
            connection.close()
            raise

    def close(self) -> None:
        """Close the connections that are kept for further requests."""
        if self.endpoint.tunnel:
            self.endpoint.tunnel.close()
