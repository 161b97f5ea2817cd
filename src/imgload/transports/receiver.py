"""The write side of the OCI distribution API, on loopback, for the length of one push.

Docker's containerd image store does not tell an image's config digest. It does push, though, and
asks first for each blob whether it is there: a receiver that has every blob is handed nothing
but the manifests, in a few hundredths of a second (OCI distribution spec, push).
"""

from __future__ import annotations

import contextlib
import re
import secrets
import socket
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import ClassVar

import attrs

from imgload.errors import ArchiveInvalid
from imgload.oci.digest import Digest

_MAX_MANIFEST = 8 << 20
_MAX_MANIFESTS = 200
_IDLE_SECONDS = 10
_TLS_HANDSHAKE = b"\x16"
_PLAIN_HTTP = (
    b"HTTP/1.1 400 Bad Request\r\nContent-Type: text/plain\r\nContent-Length: 12\r\n"
    b"Connection: close\r\n\r\nplain HTTP.\n"
)
"""A client that starts with TLS falls back to HTTP only after a well-formed answer."""


@attrs.define
class Receiver:
    """A registry that has every blob and keeps the manifests it is sent."""

    repository: str
    manifests: dict[Digest, bytes] = attrs.field(factory=dict)

    @classmethod
    @contextlib.contextmanager
    def listening(cls) -> Iterator[Receiver]:
        """Listen on a free port of 127.0.0.1, under a path that cannot be guessed."""
        path = f"imgload/{secrets.token_hex(16)}"
        handler = type("Handler", (_Handler,), {"path_prefix": f"/v2/{path}/"})
        with _Server(("127.0.0.1", 0), handler) as server:
            receiver = cls(f"127.0.0.1:{server.server_address[1]}/{path}")
            server.manifests = receiver.manifests
            threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True).start()
            try:
                yield receiver
            finally:
                server.shutdown()


class _Server(ThreadingHTTPServer):
    daemon_threads = True
    request_queue_size = 64
    manifests: dict[Digest, bytes]


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    timeout = _IDLE_SECONDS
    path_prefix: ClassVar[str] = ""
    server: _Server
    connection: socket.socket
    raw_requestline: bytes

    def parse_request(self) -> bool:
        if self.raw_requestline.startswith(_TLS_HANDSHAKE):
            self.wfile.write(_PLAIN_HTTP)
            self.close_connection = True
            return False
        return super().parse_request()

    def do_GET(self) -> None:
        self._answer(200 if self.path == "/v2/" else 404)

    def do_HEAD(self) -> None:
        match = re.fullmatch(r"blobs/(sha256:[0-9a-f]{64})", self._inside())
        if match:
            self._answer(200, ("Docker-Content-Digest", match.group(1)))
        else:
            self._answer(404)

    def do_PUT(self) -> None:
        match = re.fullmatch(r"manifests/([\w.:-]{1,140})", self._inside(), re.ASCII)
        length = self.headers.get("Content-Length", "")
        if not match or not length.isdigit() or not 0 < int(length) <= _MAX_MANIFEST:
            self._refuse(400)
            return
        raw = self.rfile.read(int(length))
        digest = Digest.of(raw)
        if len(self.server.manifests) >= _MAX_MANIFESTS or not _fits(match.group(1), digest):
            self._refuse(400)
            return
        self.server.manifests[digest] = raw
        self._answer(201, ("Docker-Content-Digest", str(digest)))

    def do_POST(self) -> None:
        self._refuse(403)

    def _inside(self) -> str:
        inside = self.path.startswith(self.path_prefix)
        return self.path[len(self.path_prefix) :] if inside else ""

    def _refuse(self, status: int) -> None:
        self.close_connection = True
        self._answer(status)

    def _answer(self, status: int, *headers: tuple[str, str]) -> None:
        self.send_response_only(status)
        for name, value in headers:
            self.send_header(name, value)
        self.send_header("Content-Length", "0")
        self.end_headers()

    def log_message(self, *_: object) -> None:
        """Say nothing: a library is silent."""


def _fits(name: str, digest: Digest) -> bool:
    """Whether a manifest pushed by digest has it; pushed by tag, any will do."""
    with contextlib.suppress(ArchiveInvalid):
        return Digest.parse(name) == digest
    return ":" not in name
