"""The read side of the OCI distribution API: nodes pull the content of one load from it.

It listens on one address that the nodes reach, and answers only below paths that cannot be guessed,
one for each node (OCI distribution spec, "Pull").
"""

from __future__ import annotations

import contextlib
import re
import socket
import struct
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager
from typing import Protocol
from urllib.parse import parse_qs, urlsplit

from imgload.oci.digest import Digest
from imgload.registry.blob_store import StoredBlob
from imgload.registry.http_server import BoundedHandler, BoundedServer

_IDLE_SECONDS = 120
_COUNT_SECONDS = 0.5
Count = Callable[[str, Digest, int], None]
"""Called with a node, a digest, and the number of bytes sent, from several threads."""
_PATH = re.compile(r"/v2/([0-9a-f]{32})/(?:(.+)/(manifests|blobs)/([^/]+))?")


class Store(Protocol):
    """The content to serve; both methods may wait for it, and are called by several threads."""

    def document(self, node: str, name: str) -> tuple[Digest, str, bytes] | None:
        """Return a manifest by full name or digest: its digest, media type and bytes."""

    def reading(self, digest: Digest) -> AbstractContextManager[StoredBlob | None]:
        """Yield a blob; None if there is no such blob."""


class ReadServer(BoundedServer):
    """A server on one address that serves a store to nodes, which their secrets identify."""

    def __init__(self, address: str, store: Store, nodes: Mapping[str, str], count: Count) -> None:
        self.store, self.nodes, self.count = store, nodes, count
        self._active = 0
        self._changed = threading.Condition()
        super().__init__(address, _Handler)

    @contextlib.contextmanager
    def active_request(self) -> Iterator[None]:
        self._change(1)
        try:
            yield
        finally:
            self._change(-1)

    def _change(self, step: int) -> None:
        with self._changed:
            self._active += step
            self._changed.notify_all()

    def wait_until_idle(self, seconds: float) -> None:
        """Wait until all requests are counted; a client has the last byte before that."""
        with self._changed:
            self._changed.wait_for(lambda: not self._active, seconds)


@contextlib.contextmanager
def serving(address: str, store: Store, nodes: Mapping[str, str], count: Count) -> Iterator[int]:
    """Serve a store on an address to nodes, whose names are given by their secrets.

    Yields the port; OSError if the address is not one of this machine.
    """
    with ReadServer(address, store, nodes, count) as server:
        server.start()
        try:
            yield server.server_address[1]
            server.wait_until_idle(_COUNT_SECONDS)
        finally:
            server.shutdown()


class _Handler(BoundedHandler):
    timeout = _IDLE_SECONDS
    server: ReadServer

    def do_HEAD(self) -> None:
        self._serve(body=False)

    def do_GET(self) -> None:
        with self.server.active_request():
            self._serve(body=True)

    def _serve(self, *, body: bool) -> None:
        path = urlsplit(self.path)
        match = _PATH.fullmatch(path.path)
        node = self.server.nodes.get(match[1]) if match else None
        if match is None or node is None or not self.server.admit(self.connection):
            self._answer(404)
        elif match[3] is None:
            self._answer(200)
        elif match[3] == "blobs":
            self._blob(node, Digest.try_parse(match[4]), body=body)
        else:
            registry = parse_qs(path.query).get("ns", [""])[0]
            separator = "@" if ":" in match[4] else ":"
            self._manifest(node, f"{registry}/{match[2]}{separator}{match[4]}", body=body)

    def _manifest(self, node: str, name: str, *, body: bool) -> None:
        document = self.server.store.document(node, name)
        if document is None:
            self._answer(404)
            return
        digest, media_type, raw = document
        headers = {"Content-Type": media_type, "Docker-Content-Digest": str(digest)}
        self._answer(200, headers, len(raw))
        if body:
            self.wfile.write(raw)
            self.server.count(node, digest, len(raw))

    def _blob(self, node: str, digest: Digest | None, *, body: bool) -> None:
        if digest is None:
            self._answer(404)
            return
        with self.server.store.reading(digest) as blob:
            self._send_blob(node, digest, blob, body=body)

    def _send_blob(self, node: str, digest: Digest, blob: StoredBlob | None, *, body: bool) -> None:
        if blob is None:
            self._answer(404)
            return
        headers = {"Content-Type": "application/octet-stream", "Docker-Content-Digest": str(digest)}
        self._answer(200, headers, blob.wait_for_size())
        if body:
            self.connection.settimeout(None)
            limit = struct.pack("@ll", _IDLE_SECONDS, 0)
            self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_SNDTIMEO, limit)
            for count in blob.send_to(self.connection.fileno()):
                self.server.count(node, digest, count)
            self.connection.settimeout(_IDLE_SECONDS)
