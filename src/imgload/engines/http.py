"""HTTP to an engine, over its socket: a connection for each request, and bodies as streams.

The SDKs speak HTTP through requests, whose import alone takes longer than a survey of a node. They
are used where they do more than that: `imgload.engines.sdk`.
"""

from __future__ import annotations

import http.client
import json
import socket
from abc import ABC, abstractmethod
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
"""How long a connection may take to come about."""
STREAM_SECONDS = 600.0
"""How long a stream may stay silent; Docker 20.10 spools a whole save before its first byte."""
LOOK_UP_SECONDS = 10.0
"""How long an engine may take to ask this process for something; others may hold it up."""
_SPOOLED_A_SECOND = 20 << 20
"""Bytes, at least; what is spooled has that much longer."""
_BUFFER = 256 << 10
_MOST_JSON = 64 << 20
_PORT = 2375
_TLS_PORT = 2376


def save_seconds(size: int) -> float:
    """Return how long a save of so many bytes may stay silent."""
    return STREAM_SECONDS + size / _SPOOLED_A_SECOND


@attrs.frozen
class Request:
    """A request; `seconds` without a byte end it, None waits for ever."""

    method: str
    path: str
    params: Mapping[str, str] | Sequence[tuple[str, str]] = ()
    json: Any = None
    stream: Iterable[Chunk] | None = None
    headers: Mapping[str, str] = attrs.field(factory=dict)
    seconds: float | None = attrs.field(factory=lambda: CONTROL_SECONDS)

    @property
    def target(self) -> str:
        """The path with its parameters."""
        return f"{self.path}?{urlencode(self.params)}" if self.params else self.path

    @property
    def body(self) -> bytes | Iterator[bytes] | None:
        """What is sent: the stream, or the JSON document, or nothing."""
        if self.stream is not None:
            return (bytes(chunk) for chunk in self.stream if chunk)
        return json.dumps(self.json).encode() if self.json is not None else None


class Answer(ABC):
    """A response whose headers were read; `date` is empty where the engine does not state it."""

    status: int
    date: str

    @abstractmethod
    def chunks(self) -> Iterator[bytes]:
        """Yield the body; OSError when it is cut off."""

    @abstractmethod
    def lines(self) -> Iterator[bytes]:
        """Yield the body line by line."""

    @abstractmethod
    def take_over(self) -> tuple[socket.socket, Any]:
        """Return the bare connection: the socket, and the reader that has what came already."""

    @abstractmethod
    def close(self) -> None:
        """Drop the connection."""

    def read(self) -> bytes:
        """Return the whole of a document.

        Raises:
            EngineFailed: when it is absurdly long.

        """
        data = bytearray()
        for chunk in self.chunks():
            data += chunk
            if len(data) > _MOST_JSON:
                raise EngineFailed(f"the engine's answer is longer than {_MOST_JSON} bytes")
        return bytes(data)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


class Wire(ABC):
    """The way to an engine; may be used by several threads at once."""

    version: str

    @abstractmethod
    def send(self, request: Request) -> Answer:
        """Send a request and read the response's headers; OSError when nobody answers."""

    @abstractmethod
    def close(self) -> None:
        """Let go of what is kept open."""


class _Response(http.client.HTTPResponse):
    """A response with a reader large enough for streams."""

    def __init__(self, sock: socket.socket, *args: Any, **options: Any) -> None:
        super().__init__(sock, *args, **options)
        self.fp = sock.makefile("rb", _BUFFER)  # type: ignore[assignment]


class Connection(http.client.HTTPConnection):
    """A connection to ``unix:///path`` or ``tcp://host:port``.

    Args:
        url: the address.
        seconds: without a byte end it; None waits for ever.
        tls: how to speak TLS; None for not at all.
        patience: seconds for the connection to come about.

    """

    response_class = _Response

    def __init__(
        self,
        url: str,
        seconds: float | None,
        tls: ssl.SSLContext | None = None,
        patience: float = CONNECT_SECONDS,
    ) -> None:
        parts = urlsplit(url)
        self._path = (parts.netloc + parts.path) if parts.scheme == "unix" else None
        self._tls, self._seconds = tls, seconds
        host = "localhost" if self._path else parts.hostname or "localhost"
        port = None if self._path else parts.port or (_TLS_PORT if tls else _PORT)
        super().__init__(host, port, timeout=patience)

    def connect(self) -> None:
        """Connect, to a socket's path as well, and over TLS."""
        if self._path is None:
            super().connect()
        else:
            self.sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
            self.sock.settimeout(self.timeout)
            self.sock.connect(self._path)
        if self._tls:
            self.sock = self._tls.wrap_socket(self.sock, server_hostname=self.host)
        self.sock.settimeout(self._seconds)


@attrs.frozen
class SocketWire(Wire):
    """An engine on a unix socket, or on TCP, with TLS or without."""

    endpoint: Endpoint
    version: str
    _tls: ssl.SSLContext | None = attrs.field(init=False)

    @_tls.default
    def _read_tls(self) -> ssl.SSLContext | None:
        return self.endpoint.tls.context() if self.endpoint.tls else None

    def send(self, request: Request) -> Answer:
        """Open a connection for the one request."""
        connection = Connection(self.endpoint.url, request.seconds, self._tls, CONNECT_SECONDS)
        headers = {"Host": "localhost", "Connection": "close", **request.headers}
        if request.json is not None:
            headers["Content-Type"] = "application/json"
        chunked = request.stream is not None
        if chunked:
            headers |= {"Transfer-Encoding": "chunked", "Content-Type": "application/x-tar"}
        try:
            connection.request(
                request.method, request.target, request.body, headers, encode_chunked=chunked
            )
            return SocketAnswer(connection, connection.getresponse())
        except BaseException:
            connection.close()
            raise

    def close(self) -> None:
        """Nothing is kept open."""


class SocketAnswer(Answer):
    """A response on a connection of its own."""

    def __init__(self, connection: Connection, response: http.client.HTTPResponse) -> None:
        self.status = response.status
        self.date = response.headers.get("Date", "")
        self._connection = connection
        self._response = response

    def chunks(self) -> Iterator[bytes]:
        """Yield the body in pieces of at most 1 MiB."""
        while chunk := self._response.read(CHUNK):
            yield chunk
        if self._response.length:  # http.client takes this for the end
            raise ConnectionError(f"cut off {self._response.length} bytes before the end")

    def lines(self) -> Iterator[bytes]:
        """Yield the body's lines as they come."""
        while line := self._response.readline(CHUNK):
            yield line

    def take_over(self) -> tuple[socket.socket, Any]:
        """Return socket and reader; the socket no longer times out."""
        reader: Any = self._response.fp
        sock: socket.socket = reader.raw._sock  # noqa: SLF001 - it may be closed in `connection`
        sock.settimeout(None)
        return sock, reader

    def close(self) -> None:
        """Close the socket, too."""
        self._response.close()
        self._connection.close()
