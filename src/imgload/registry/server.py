"""An HTTP server on loopback that bounds its threads, its memory and the uploads left open."""

from __future__ import annotations

import contextlib
import socket
import threading
from collections.abc import Iterable
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

from imgload.registry.sink import MAX_MANIFEST_BYTES, UploadWriter
from imgload.registry.spool import Quota

MAX_STRANGERS = 256
"""Connections that have not yet named the repository; one more closes the oldest of them."""
MAX_ADMITTED = 256
"""Connections that have named it; one more is refused. Docker's containerd store opens one or two
per layer in parallel, and an image may have 127; a body is read only when its turn comes."""


class PushServer(ThreadingHTTPServer):
    """A server on a free port of 127.0.0.1 with one thread per connection."""

    daemon_threads = True
    request_queue_size = 2 * MAX_ADMITTED
    """Connections that wait to be accepted; the kernel of one more retries after a second."""

    def __init__(self, handler: type[BaseHTTPRequestHandler]) -> None:
        super().__init__(("127.0.0.1", 0), handler)
        self.manifest_memory = Quota(MAX_MANIFEST_BYTES)
        self._strangers: dict[socket.socket, None] = {}
        self._admitted: set[socket.socket] = set()
        self.uploads: dict[str, UploadWriter | None] = {}
        """Uploads that wait for the next request that names them; None before their first byte."""
        self._lock = threading.Lock()

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
        """Return whether a connection that knows the repository may go on; False beyond the bound.

        Only the engine knows the repository.
        """
        with self._lock:
            if connection not in self._admitted and len(self._admitted) >= MAX_ADMITTED:
                return False
            self._strangers.pop(connection, None)
            self._admitted.add(connection)
            return True

    def shutdown_request(self, request: Any) -> None:
        """Forget a closed connection."""
        with self._lock:
            self._strangers.pop(request, None)
            self._admitted.discard(request)
        super().shutdown_request(request)

    def server_close(self) -> None:
        """Close all connections, so that no thread outlives the push, and abandon open uploads."""
        super().server_close()
        with self._lock:
            connections = [*self._strangers, *self._admitted]
        _shut_down(connections)
        uploads, self.uploads = self.uploads, {}
        for upload in uploads.values():
            if upload:
                upload.abandon()

    def handle_error(self, *_: object) -> None:
        """Print nothing: a client that disconnects is no error, and a library is silent."""


def _shut_down(connections: Iterable[socket.socket]) -> None:
    for connection in connections:
        with contextlib.suppress(OSError):
            connection.shutdown(socket.SHUT_RDWR)
