"""An HTTP server on loopback, of which nobody can have more than a few threads and some memory."""

from __future__ import annotations

import contextlib
import io
import socket
import threading
from collections.abc import Iterable
from http.client import LineTooLong
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

MAX_STRANGERS = 256
"""Connections that have not asked for anything in our repository; one more, and the first goes."""
MAX_ADMITTED = 256
"""Connections that have; one more is not let in. Docker's containerd store opens one or two for
each layer at once, and an image may have 127; a body is read only when its turn comes."""
_MAX_HEAD = 32 << 10
"""Bytes of a request's headers; Python alone would keep a hundred lines of 64 KiB."""


class LoopbackServer(ThreadingHTTPServer):
    """A server on a free port of 127.0.0.1, one thread for each connection."""

    daemon_threads = True
    request_queue_size = 2 * MAX_ADMITTED
    """Connections that wait to be taken; one more is tried again by its kernel after a second."""

    def __init__(self, handler: type[BaseHTTPRequestHandler]) -> None:
        super().__init__(("127.0.0.1", 0), handler)
        self._strangers: dict[socket.socket, None] = {}
        self._admitted: set[socket.socket] = set()
        self._guard = threading.Lock()

    def process_request(self, request: Any, client_address: Any) -> None:
        """Bound the threads that others than the engine can take."""
        with self._guard:
            self._strangers[request] = None
            crowd = list(self._strangers)[:-MAX_STRANGERS]
            for first in crowd:
                del self._strangers[first]
        _hang_up(crowd)
        super().process_request(request, client_address)

    def admit(self, connection: socket.socket) -> bool:
        """Take a connection for the engine's, since it knows the repository; False if too many."""
        with self._guard:
            if connection not in self._admitted and len(self._admitted) >= MAX_ADMITTED:
                return False
            self._strangers.pop(connection, None)
            self._admitted.add(connection)
            return True

    def shutdown_request(self, request: Any) -> None:
        """Forget a connection that is closed."""
        with self._guard:
            self._strangers.pop(request, None)
            self._admitted.discard(request)
        super().shutdown_request(request)

    def server_close(self) -> None:
        """Close what is still connected as well: nobody keeps a thread beyond the push."""
        super().server_close()
        with self._guard:
            there = [*self._strangers, *self._admitted]
        _hang_up(there)

    def handle_error(self, *_: object) -> None:
        """Say nothing: a client that goes away is no error, and a library is silent."""


def _hang_up(connections: Iterable[socket.socket]) -> None:
    for connection in connections:
        with contextlib.suppress(OSError):
            connection.shutdown(socket.SHUT_RDWR)


class Head(io.BufferedIOBase):
    """The head of a request, read line by line, up to a bound."""

    def __init__(self, stream: io.BufferedIOBase) -> None:
        self._stream = stream
        self._left = _MAX_HEAD

    def readline(self, size: int | None = -1, /) -> bytes:
        """Return a line, which is not longer than asked for; LineTooLong beyond the bound."""
        if self._left <= 0:
            raise LineTooLong("header")
        line = self._stream.readline(min(size, self._left) if size and size > 0 else self._left)
        self._left -= len(line)
        return line
