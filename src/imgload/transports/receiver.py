"""The write side of the OCI distribution API, on loopback, for as long as an image is pushed.

It speaks HTTP and nothing more; what is wanted, and where it goes, its `Intake` decides (OCI
distribution spec, "Push"). A repository name that cannot be guessed is the key: everything
outside it is answered 404.
"""

from __future__ import annotations

import contextlib
import re
import secrets
import socket
import threading
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler
from typing import ClassVar
from urllib.parse import parse_qs, urlsplit

from imgload.errors import ArchiveInvalid, ImgloadError
from imgload.oci.digest import Digest
from imgload.transports.intake import MAX_UPLOADS, Intake, Upload
from imgload.transports.server import Head, LoopbackServer

CHUNK = 1 << 20
MAX_MANIFEST = 8 << 20
_IDLE_SECONDS = 60
_LINGER_SECONDS = 0.3
_MAX_LINE = 1024
_MANIFEST = re.compile(r"manifests/(sha256:[0-9a-f]{64}|\w[\w.-]{0,127})", re.ASCII)
_TLS_HANDSHAKE = b"\x16"
_PLAIN_HTTP = (
    b"HTTP/1.1 400 Bad Request\r\nContent-Type: text/plain\r\nContent-Length: 12\r\n"
    b"Connection: close\r\n\r\nplain HTTP.\n"
)
"""A client that starts with TLS falls back to HTTP only after a well-formed answer."""


class _Server(LoopbackServer):
    def __init__(self, handler: type[_Handler], ended: Callable[[], bool]) -> None:
        super().__init__(handler)
        self.uploads: dict[str, Upload | None] = {}
        self.ended = ended


@contextlib.contextmanager
def receiving(intake: Intake, ended: Callable[[], bool] = lambda: True) -> Iterator[str]:
    """Listen on a free port of 127.0.0.1; yields the repository to push to.

    Args:
        intake: what becomes of what is pushed.
        ended: called when it has taken the manifest under a tag, with which a push ends; returns
            whether the engine is told that it was taken.

    """
    path = f"imgload/{secrets.token_hex(16)}"
    handler = type("Handler", (_Handler,), {"root": f"/v2/{path}/", "intake": intake})
    with _Server(handler, ended) as server:
        threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True).start()
        try:
            yield f"127.0.0.1:{server.server_address[1]}/{path}"
        finally:
            server.shutdown()


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    timeout = _IDLE_SECONDS
    rbufsize = 64 << 10
    root: ClassVar[str]
    intake: ClassVar[Intake]
    server: _Server
    connection: socket.socket
    raw_requestline: bytes

    def parse_request(self) -> bool:
        if self.raw_requestline.startswith(_TLS_HANDSHAKE):
            self.wfile.write(_PLAIN_HTTP)
            self.close_connection = True
            return False
        stream = self.rfile
        self.rfile = Head(stream)
        try:
            return super().parse_request()
        finally:
            self.rfile = stream

    def do_GET(self) -> None:
        self._answer(200 if self.path == "/v2/" else 404)

    def do_HEAD(self) -> None:
        match = re.fullmatch(r"blobs/(sha256:[0-9a-f]{64})", self._inside)
        size = self.intake.size_of(Digest.parse(match.group(1))) if match else None
        if match is None or size is None:
            self._answer(404)
        else:
            self._answer(200, {"Docker-Content-Digest": match.group(1)}, length=size)

    def do_POST(self) -> None:
        if self._inside != "blobs/uploads/" or len(self.server.uploads) >= MAX_UPLOADS:
            self._refuse(404)
            return
        for _ in self._body():  # a client may begin with an empty one
            self._refuse(400)
            return
        name = secrets.token_hex(8)
        self.server.uploads[name] = None
        self._accepted(name, 0)

    def do_PATCH(self) -> None:
        name = self._upload_name()
        if name is None:
            self._refuse(404)
            return
        with self._refusing(name):
            upload = self.server.uploads[name] or self.intake.upload(None, None)
            self.server.uploads[name] = upload
            size = 0
            for chunk in self._body():
                upload.write(chunk)
                size += len(chunk)
            self._accepted(name, size)

    def do_PUT(self) -> None:
        name = self._upload_name()
        if name is not None:
            self._finish_upload(name)
        elif match := _MANIFEST.fullmatch(self._inside):
            self._take_manifest(match.group(1))
        else:
            self._refuse(404)

    def _finish_upload(self, name: str) -> None:
        with self._refusing(name):
            asked = parse_qs(urlsplit(self.path).query).get("digest", [""])[0]
            digest = Digest.parse(asked)
            upload = self.server.uploads[name]
            if upload is None:
                upload = self.intake.upload(digest, self._length())
                self.server.uploads[name] = upload
            for chunk in self._body():
                upload.write(chunk)
            upload.finish(digest)
            del self.server.uploads[name]
            self._created(f"{self.root}blobs/{digest}", digest)

    def _take_manifest(self, name: str) -> None:
        length = self._length()
        if length is None or not 0 < length <= MAX_MANIFEST:
            self._refuse(400)
            return
        raw = b"".join(self._body())
        digest = Digest.of(raw)
        with self._refusing():
            if name != str(digest) and ":" in name:
                raise ArchiveInvalid("a manifest is not what its digest says")
            self.intake.manifest(digest, raw)
            if ":" in name or self.server.ended():
                self._created(f"{self.root}manifests/{digest}", digest)
            else:
                self._refuse(400)

    @contextlib.contextmanager
    def _refusing(self, name: str | None = None) -> Iterator[None]:
        """Answer 400 when the intake refuses, and forget the upload when it breaks off."""
        try:
            yield
        except ImgloadError:
            self._forget(name)
            self._refuse(400)
        except BaseException:
            self._forget(name)
            raise

    def _forget(self, name: str | None) -> None:
        upload = self.server.uploads.pop(name, None) if name else None
        if upload is not None:
            upload.abandon()

    @property
    def _inside(self) -> str:
        """The path within our repository; empty for all outside it, and where it is crowded."""
        path = self.path.partition("?")[0]
        ours = path.startswith(self.root) and self.server.admit(self.connection)
        return path[len(self.root) :] if ours else ""

    def _upload_name(self) -> str | None:
        match = re.fullmatch(r"blobs/uploads/([0-9a-f]{16})", self._inside)
        return match.group(1) if match and match.group(1) in self.server.uploads else None

    def _length(self) -> int | None:
        text = self.headers.get("Content-Length", "")
        return int(text) if re.fullmatch(r"[0-9]{1,15}", text, re.ASCII) else None

    def _body(self) -> Iterator[bytes]:
        if self.headers.get("Transfer-Encoding", "").lower() == "chunked":
            while size := self._chunk_size():
                yield from self._exactly(size)
                self.rfile.readline(_MAX_LINE)
            self.rfile.readline(_MAX_LINE)
        else:
            yield from self._exactly(self._length() or 0)

    def _chunk_size(self) -> int:
        line = self.rfile.readline(_MAX_LINE).partition(b";")[0].strip()
        if not re.fullmatch(rb"[0-9a-fA-F]{1,12}", line):
            raise ConnectionError("a malformed chunk")
        return int(line, 16)

    def _exactly(self, size: int) -> Iterator[bytes]:
        while size:
            piece = self.rfile.read(min(size, CHUNK))
            if not piece:
                raise ConnectionError("the upload was cut off")
            size -= len(piece)
            yield piece

    def _accepted(self, name: str, size: int) -> None:
        """Say how much was taken; Docker fails a push over a wrong range."""
        location = f"{self.root}blobs/uploads/{name}"
        self._answer(202, {"Location": location, "Range": f"0-{max(size - 1, 0)}"})

    def _created(self, location: str, digest: Digest) -> None:
        self._answer(201, {"Location": location, "Docker-Content-Digest": str(digest)})

    def _refuse(self, status: int) -> None:
        """Answer an error, and close: what is left of the request is not read."""
        self.close_connection = True
        self._answer(status)
        self._linger()

    def _linger(self) -> None:
        """Read a little of what is still coming: closing at once would take the answer back."""
        with contextlib.suppress(OSError):
            self.connection.shutdown(socket.SHUT_WR)
            self.connection.settimeout(_LINGER_SECONDS)
            for _ in range(64):
                if not self.rfile.read1(64 << 10):
                    return

    def _answer(self, status: int, headers: dict[str, str] | None = None, length: int = 0) -> None:
        self.send_response_only(status)
        for name, value in {**(headers or {}), "Content-Length": str(length)}.items():
            self.send_header(name, value)
        if self.close_connection:
            self.send_header("Connection", "close")
        self.end_headers()

    def log_message(self, *_: object) -> None:
        """Say nothing: a library is silent."""
