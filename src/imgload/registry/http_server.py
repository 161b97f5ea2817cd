"""An HTTP server that bounds its connections, its threads and the heads of requests."""

from __future__ import annotations

import contextlib
import io
import json
import socket
import socketserver
import threading
import time
from collections.abc import Iterable
from http import HTTPStatus
from http.client import LineTooLong
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

from imgload.core import trace

MAX_STRANGERS = 256
"""Connections that have not yet named the secret path; one more closes the oldest of them."""
MAX_ADMITTED = 256
"""Connections that have named it; one more is refused. Docker's containerd store opens one or two
per layer in parallel, and an image may have 127; a body is read only when its turn comes."""
_MAX_HEAD = 32 << 10
"""Bytes of a request's headers; Python alone would keep a hundred lines of 64 KiB."""
_TLS_HANDSHAKE = b"\x16"
_PAUSE = 0.05
_PLAIN_HTTP = (
    b"HTTP/1.1 400 Bad Request\r\nContent-Type: text/plain\r\nContent-Length: 12\r\n"
    b"Connection: close\r\n\r\nplain HTTP.\n"
)
"""A client that starts with TLS falls back to HTTP only after a well-formed answer."""


class BoundedServer(ThreadingHTTPServer):
    """A server with one thread per connection; its secret path admits connections."""

    daemon_threads = True
    request_queue_size = 2 * MAX_ADMITTED
    """Connections that wait to be accepted; the kernel of one more retries after a second."""

    def __init__(self, address: str, handler: type[BaseHTTPRequestHandler]) -> None:
        self._strangers: dict[socket.socket, None] = {}
        self._admitted: set[socket.socket] = set()
        self._lock = threading.Lock()
        self._closed = False
        self._thread = threading.Thread(target=self._serve, name="registry", daemon=True)
        super().__init__((address, 0), handler)

    def server_bind(self) -> None:
        socketserver.TCPServer.server_bind(self)  # HTTPServer's looks its name up in the DNS

    def start(self) -> None:
        """Serve on a thread."""
        self._thread.start()

    def _serve(self) -> None:
        while not self._closed:
            try:
                connection, address = self.get_request()
            except OSError:  # no more file descriptors
                time.sleep(_PAUSE)
                continue
            try:
                if not self._closed:
                    self.process_request(connection, address)
                    continue
            except RuntimeError:  # no more threads
                time.sleep(_PAUSE)
            self.shutdown_request(connection)

    def shutdown(self) -> None:
        """Accept no more connections; `serve_forever` would take until the end of its poll."""
        self._closed = True
        with contextlib.suppress(OSError), socket.socket() as connection:
            connection.settimeout(1)
            connection.connect(self.server_address)
        self._thread.join()

    def process_request(self, request: Any, client_address: Any) -> None:
        """Bound the threads that programs other than the engine can occupy."""
        with self._lock:
            self._strangers[request] = None
            oldest = list(self._strangers)[:-MAX_STRANGERS]
            for connection in oldest:
                del self._strangers[connection]
        _shut_down(oldest)
        super().process_request(request, client_address)

    def admit(self, connection: socket.socket) -> bool:
        """Return False for a connection that knows the repository, but is beyond the bound."""
        with self._lock:
            if connection not in self._admitted and len(self._admitted) >= MAX_ADMITTED:
                return False
            self._strangers.pop(connection, None)
            self._admitted.add(connection)
            return True

    def shutdown_request(self, request: Any) -> None:
        with self._lock:
            self._strangers.pop(request, None)
            self._admitted.discard(request)
        super().shutdown_request(request)

    def server_close(self) -> None:
        """Close all connections, so that no thread outlives the server."""
        super().server_close()
        with self._lock:
            connections = [*self._strangers, *self._admitted]
        _shut_down(connections)

    def handle_error(self, *_: object) -> None:
        """Print nothing: a client that disconnects is no error."""


def _shut_down(connections: Iterable[socket.socket]) -> None:
    for connection in connections:
        with contextlib.suppress(OSError):
            connection.shutdown(socket.SHUT_RDWR)


class _Head(io.BufferedIOBase):
    """Lines of a request's head, together not longer than _MAX_HEAD."""

    def __init__(self, stream: io.BufferedIOBase) -> None:
        self._stream = stream
        self._left = _MAX_HEAD

    def readline(self, size: int | None = -1, /) -> bytes:
        if self._left <= 0:
            raise LineTooLong("header")
        line = self._stream.readline(min(size, self._left) if size and size > 0 else self._left)
        self._left -= len(line)
        return line


class BoundedHandler(BaseHTTPRequestHandler):
    """Reads the head of a request within bounds."""

    protocol_version = "HTTP/1.1"
    raw_requestline: bytes
    peer = ""
    """The name of the client for the log; empty for its address."""
    began = 0.0

    def parse_request(self) -> bool:
        if self.raw_requestline.startswith(_TLS_HANDSHAKE):
            self.wfile.write(_PLAIN_HTTP)
            self.close_connection = True
            return False
        self.began = time.monotonic()
        stream = self.rfile
        self.rfile = _Head(stream)
        try:
            return super().parse_request()
        finally:
            self.rfile = stream

    def _answer(self, status: int, headers: dict[str, str] | None = None, length: int = 0) -> None:
        line = self.requestline.removesuffix(" HTTP/1.1")
        trace.log(f"{self.peer or self.client_address[0]}: {line}: {int(status)}", self.began)
        self.send_response_only(status)
        for name, value in {**(headers or {}), "Content-Length": str(length)}.items():
            self.send_header(name, value)
        if self.close_connection:
            self.send_header("Connection", "close")
        self.end_headers()

    def _answer_document(
        self, raw: bytes, headers: dict[str, str], status: int = HTTPStatus.OK
    ) -> None:
        """Answer with a body, which a HEAD request does not get."""
        self._answer(status, headers, len(raw))
        if self.command != "HEAD":
            self.wfile.write(raw)

    def _answer_error(self, status: int, code: str, headers: dict[str, str] | None = None) -> None:
        """Answer with an error code (OCI distribution spec, "Error Codes")."""
        raw = json.dumps({"errors": [{"code": code}]}).encode()
        self._answer_document(raw, {**(headers or {}), "Content-Type": "application/json"}, status)

    def send_error(self, code: int, *_: object) -> None:
        """Answer a request that `http.server` refuses."""
        self.close_connection = True
        if code == HTTPStatus.NOT_IMPLEMENTED:
            methods = sorted(name[3:] for name in dir(self) if name.startswith("do_"))
            allow = {"Allow": ", ".join(methods)}
            self._answer_error(HTTPStatus.METHOD_NOT_ALLOWED, "UNSUPPORTED", allow)
        else:
            self._answer_error(code, "UNSUPPORTED")

    def log_message(self, *_: object) -> None:
        """Print nothing: a library is silent."""
