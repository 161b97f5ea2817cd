"""The write side of the OCI distribution API, on loopback, while an image is pushed.

The receiver speaks HTTP; its `Intake` decides which blobs are needed and where they go (OCI
distribution spec, "Push"). The repository's name is random: every request outside it is answered
with 404. An upload belongs to the request that reads its body; a second request for it is refused.
"""

from __future__ import annotations

import contextlib
import io
import re
import secrets
import socket
import threading
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler
from typing import ClassVar
from urllib.parse import parse_qs, urlsplit

from imgload.core.errors import ArchiveInvalid, ImgloadError
from imgload.oci.digest import Digest
from imgload.registry.server import Head, LoopbackServer
from imgload.registry.sink import MAX_MANIFEST_BYTES, MAX_UPLOADS, Intake, Upload
from imgload.registry.spool import Room

CHUNK = 1 << 20
MAX_MANIFEST = 8 << 20
_IDLE_SECONDS = 60
_LINGER_SECONDS = 0.3
_MAX_LINE = 1024
"""Bytes of a chunk's length with its extensions, and of a trailer, each with its end of line."""
_MAX_TRAILERS = 32
_MANIFEST = re.compile(r"manifests/(sha256:[0-9a-f]{64}|\w[\w.-]{0,127})", re.ASCII)
_TLS_HANDSHAKE = b"\x16"
_PLAIN_HTTP = (
    b"HTTP/1.1 400 Bad Request\r\nContent-Type: text/plain\r\nContent-Length: 12\r\n"
    b"Connection: close\r\n\r\nplain HTTP.\n"
)
"""A client that starts with TLS falls back to HTTP only after a well-formed answer."""


class _NoUploadError(Exception):
    """A request for an upload that is not there, or that is another request's."""


class _Server(LoopbackServer):
    def __init__(
        self, handler: type[_Handler], ended: Callable[[], bool], reached: Callable[[], None]
    ) -> None:
        super().__init__(handler)
        self.ended = ended
        self.reached = reached
        self._uploads: dict[str, Upload | None] = {}
        self._uploads_lock = threading.Lock()
        self.memory = Room(MAX_MANIFEST_BYTES)

    def add(self, name: str, upload: Upload | None) -> bool:
        """Leave an upload for the next request that names it; False where there are too many."""
        with self._uploads_lock:
            if len(self._uploads) >= MAX_UPLOADS:
                return False
            self._uploads[name] = upload
            return True

    def take(self, name: str) -> Upload | None:
        """Hand an upload to one request; KeyError for every other."""
        with self._uploads_lock:
            return self._uploads.pop(name)

    def server_close(self) -> None:
        """Close the uploads that no request has finished as well."""
        super().server_close()
        with self._uploads_lock:
            uploads = [upload for upload in self._uploads.values() if upload]
            self._uploads.clear()
        for upload in uploads:
            upload.abandon()


@contextlib.contextmanager
def receiving(
    intake: Intake,
    ended: Callable[[], bool] = lambda: True,
    reached: Callable[[], None] = lambda: None,
) -> Iterator[str]:
    """Listen on a free port of 127.0.0.1; yields the repository to push to.

    Args:
        intake: takes what is pushed.
        ended: called when the intake has taken the manifest under a tag, which ends a push;
            returns whether the engine is answered that it was taken.
        reached: called at each request for the repository, of whose name only this process and
            users of the engine know.

    """
    path = f"imgload/{secrets.token_hex(16)}"
    handler = type("Handler", (_Handler,), {"root": f"/v2/{path}/", "intake": intake})
    with _Server(handler, ended, reached) as server:
        threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True).start()
        try:
            yield f"127.0.0.1:{server.server_address[1]}/{path}"
        finally:
            server.shutdown()


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    timeout = _IDLE_SECONDS
    rbufsize = 64 << 10
    rfile: io.BufferedReader
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
        self.rfile = Head(stream)  # type: ignore[assignment]
        try:
            return super().parse_request()
        finally:
            self.rfile = stream

    def do_GET(self) -> None:
        inside = self._inside  # an engine that is only asked to look here has reached us
        self._answer(200 if not inside and self.path == "/v2/" else 404)

    def do_HEAD(self) -> None:
        match = re.fullmatch(r"blobs/(sha256:[0-9a-f]{64})", self._inside)
        with self._refusing():
            size = self.intake.size_of(Digest.parse(match.group(1))) if match else None
            if match is None or size is None:
                self._answer(404)
            else:
                self._answer(200, {"Docker-Content-Digest": match.group(1)}, length=size)

    def do_POST(self) -> None:
        if self._inside != "blobs/uploads/":
            self._refuse(404)
            return
        with self._refusing():
            for _ in self._body():  # a client may begin with an empty one
                raise ArchiveInvalid("an upload begins with a body")
            name = secrets.token_hex(8)
            if not self.server.add(name, None):
                raise ArchiveInvalid("too many uploads")
            self._accepted(name, 0)

    def do_PATCH(self) -> None:
        with self._refusing() as abandoned:
            name, upload = self._take_upload()
            upload = upload or self.intake.upload(None, None)
            abandoned.callback(upload.abandon)
            size = 0
            for chunk in self._body():
                upload.write(chunk)
                size += len(chunk)
            if not self.server.add(name, upload):
                raise ArchiveInvalid("too many uploads")
            abandoned.pop_all()
            self._accepted(name, size)

    def do_PUT(self) -> None:
        if match := _MANIFEST.fullmatch(self._inside):
            self._take_manifest(match.group(1))
        else:
            self._finish_upload()

    def _finish_upload(self) -> None:
        with self._refusing() as abandoned:
            _, upload = self._take_upload()
            if upload:
                abandoned.callback(upload.abandon)
            requested = parse_qs(urlsplit(self.path).query).get("digest", [""])[0]
            digest = Digest.parse(requested)
            length = self._body_length()
            if upload is None:
                upload = self.intake.upload(digest, length)
                abandoned.callback(upload.abandon)
            for chunk in self._body():
                upload.write(chunk)
            upload.finish(digest)
            abandoned.pop_all()
            self._created(f"{self.root}blobs/{digest}", digest)

    def _take_manifest(self, name: str) -> None:
        with self._refusing():
            raw = self._manifest_body()
            digest = Digest.of(raw)
            if name != str(digest) and ":" in name:
                raise ArchiveInvalid("a manifest is not what its digest says")
            self.intake.manifest(digest, raw)
            if ":" not in name and not self.server.ended():
                raise ArchiveInvalid("the engine is not to remember this push")
            self._created(f"{self.root}manifests/{digest}", digest)

    def _manifest_body(self) -> bytes:
        """Read a manifest into memory, of which all requests together have a bounded share."""
        length = self._body_length() or 0
        if not 0 < length <= MAX_MANIFEST or not self.server.memory.take(length):
            raise ArchiveInvalid("a manifest has no length, or too long a one")
        try:
            return b"".join(self._exactly(length))
        finally:
            self.server.memory.give(length)

    @contextlib.contextmanager
    def _refusing(self) -> Iterator[contextlib.ExitStack]:
        """Answer 400 to what the request or the intake makes an error, 404 for a lost upload.

        Yields what is called at any error, and then only.
        """
        with contextlib.ExitStack() as failed:
            try:
                yield failed
            except (ImgloadError, _NoUploadError) as error:
                failed.close()
                self._refuse(404 if isinstance(error, _NoUploadError) else 400)
            else:
                failed.pop_all()

    @property
    def _inside(self) -> str:
        """The path within our repository; empty outside it, and for a connection too many."""
        path = self.path.partition("?")[0]
        if not path.startswith(self.root):
            return ""
        self.server.reached()
        return path[len(self.root) :] if self.server.admit(self.connection) else ""

    def _take_upload(self) -> tuple[str, Upload | None]:
        """Make an upload this request's own."""
        match = re.fullmatch(r"blobs/uploads/([0-9a-f]{16})", self._inside)
        try:
            name = match.group(1) if match else ""
            return name, self.server.take(name)
        except KeyError:
            raise _NoUploadError from None

    def _body_length(self) -> int | None:
        """Return the bytes of the body, None where it comes in chunks.

        Raises:
            ArchiveInvalid: when the headers state no length, or contradict each other (RFC 9112,
                section 6.3).

        """
        lengths = self.headers.get_all("Content-Length", [])
        encodings = self.headers.get_all("Transfer-Encoding", [])
        if [each.strip().lower() for each in encodings] == ["chunked"] and not lengths:
            return None
        if encodings or len(lengths) > 1:
            raise ArchiveInvalid("the length of a body is ambiguous")
        text = lengths[0].strip() if lengths else "0"
        if not re.fullmatch(r"[0-9]{1,15}", text, re.ASCII):
            raise ArchiveInvalid("the length of a body is no number")
        return int(text)

    def _body(self) -> Iterator[bytes]:
        length = self._body_length()
        if length is not None:
            yield from self._exactly(length)
            return
        while size := self._chunk_size():
            yield from self._exactly(size)
            if self._line():
                raise ConnectionError("a chunk is longer than it says")
        for _ in range(_MAX_TRAILERS):
            if not self._line():
                return
        raise ConnectionError("too many trailers")

    def _chunk_size(self) -> int:
        line = self._line().partition(b";")[0].strip()
        if not re.fullmatch(rb"[0-9a-fA-F]{1,12}", line):
            raise ConnectionError("a malformed chunk")
        return int(line, 16)

    def _line(self) -> bytes:
        """Return a line without its end."""
        line = self.rfile.readline(_MAX_LINE)
        if not line.endswith(b"\n"):
            raise ConnectionError("a line is too long, or was cut off")
        return line.rstrip(b"\r\n")

    def _exactly(self, size: int) -> Iterator[bytes]:
        """Yield so many bytes as they come; a client that waits in the middle holds no memory."""
        while size:
            piece = self.rfile.read1(min(size, CHUNK))
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
