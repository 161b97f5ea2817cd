"""The write side of the OCI distribution API, on loopback, while an image is pushed.

The handler speaks HTTP; its `PushSink` decides which blobs are needed and where they go (OCI
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
from http import HTTPStatus
from urllib.parse import parse_qsl, urlsplit

import attrs

from imgload.core.errors import (
    ArchiveInvalid,
    DigestMismatch,
    EngineError,
    EngineFailed,
    ImgloadError,
)
from imgload.engines.base import NOT_CONNECTED
from imgload.engines.http import timed_out
from imgload.oci.digest import Digest
from imgload.registry.http_server import BoundedHandler, BoundedServer
from imgload.registry.sink import MAX_MANIFEST_BYTES, MAX_UPLOADS, PushSink, Quota, UploadWriter

CHUNK = 1 << 20
MAX_MANIFEST = 8 << 20
_IDLE_SECONDS = 60
_LINGER_SECONDS = 0.3
_MAX_LINE = 1024
"""Bytes of a chunk's length with its extensions, and of a trailer, each with its end of line."""
_MAX_TRAILERS = 32
_BLOB = re.compile(r"blobs/(sha256:[0-9a-f]{64})")
_UPLOAD = re.compile(r"blobs/uploads/([0-9a-f]{16})")
_CONTENT_RANGE = re.compile(r"([0-9]{1,15})-[0-9]{1,15}", re.ASCII)
_MANIFEST = re.compile(r"manifests/(sha256:[0-9a-f]{64}|\w[\w.-]{0,127})", re.ASCII)
Push = Callable[[], None]
Pushing = Callable[[str], contextlib.AbstractContextManager[Push]]
"""Prepares an engine for pushes to a repository, and yields the function that pushes."""


class _RefusedError(Exception):
    """A request is refused with an HTTP status."""

    def __init__(self, status: HTTPStatus) -> None:
        super().__init__(status)
        self.status = status


@attrs.define(eq=False)
class _Upload:
    """An upload that waits for its next request; it has a writer from its first byte on."""

    writer: UploadWriter | None = None
    size: int = 0
    """Bytes received."""


class _Handler(BoundedHandler):
    timeout = _IDLE_SECONDS
    rbufsize = 64 << 10
    rfile: io.BufferedReader
    server: PushServer

    def do_GET(self) -> None:
        inside = self._inside  # calls `reached`: a GET, too, shows that the engine reaches us
        name = _upload_name(inside)
        if upload := self.server.uploads.get(name):
            self._accepted(HTTPStatus.NO_CONTENT, name, upload.size)
        elif not inside and self.path == "/v2/":
            self._answer(HTTPStatus.OK)
        else:
            self._answer(HTTPStatus.NOT_FOUND)

    def do_HEAD(self) -> None:
        match = _BLOB.fullmatch(self._inside)
        sink = self.server.sink
        with self._refusing():
            size = sink.stat_blob(Digest.parse(match.group(1))) if match and sink else None
            if match is None or size is None:
                self._answer(HTTPStatus.NOT_FOUND)
            else:
                digest = {"Docker-Content-Digest": match.group(1)}
                self._answer(HTTPStatus.OK, digest, length=size)

    def do_POST(self) -> None:
        with self._refusing() as on_error:
            if self._inside != "blobs/uploads/":
                raise _RefusedError(HTTPStatus.NOT_FOUND)
            if "digest" in self._query:
                self._finish(_Upload(), self._digest, on_error)
                return
            for _ in self._body():  # a client may send an empty one
                raise ArchiveInvalid("an upload begins with a body")
            name = secrets.token_hex(8)
            self._leave_upload(name, _Upload())
            self._accepted(HTTPStatus.ACCEPTED, name, 0)

    def do_PATCH(self) -> None:
        with self._refusing() as on_error:
            name, upload = self._take_upload()
            self._receive(upload, on_error)
            self._leave_upload(name, upload)
            on_error.pop_all()
            self._accepted(HTTPStatus.ACCEPTED, name, upload.size)

    def do_PUT(self) -> None:
        if match := _MANIFEST.fullmatch(self._inside):
            self._put_manifest(match.group(1))
            return
        with self._refusing() as on_error:
            digest = self._digest
            self._finish(self._take_upload()[1], digest, on_error)

    def do_DELETE(self) -> None:
        with self._refusing():
            inside = self._inside
            if inside and not _upload_name(inside):
                self.send_error(HTTPStatus.NOT_IMPLEMENTED)
                return
            _, upload = self._take_upload()
            if upload.writer:
                upload.writer.abandon()
            self._answer(HTTPStatus.NO_CONTENT)

    def _put_manifest(self, name: str) -> None:
        with self._refusing():
            raw = self._manifest_body()
            digest = Digest.of(raw)
            if name != str(digest) and ":" in name:
                raise DigestMismatch("a manifest has another digest than its name")
            self.server.current_sink.manifest(digest, raw)
            if ":" not in name and self.server.refuse_last_manifest:
                self.server.ended = True
                raise ArchiveInvalid("the engine shall not remember this push")
            self._created(f"manifests/{digest}", digest)

    def _manifest_body(self) -> bytes:
        length = self._body_length()
        reserved = MAX_MANIFEST if length is None else length
        if reserved > MAX_MANIFEST:
            raise _RefusedError(HTTPStatus.REQUEST_ENTITY_TOO_LARGE)
        if not self.server.manifest_memory.take(reserved):
            raise ArchiveInvalid("there are too many manifests")
        raw = bytearray()
        try:
            for chunk in self._body():
                if len(raw) + len(chunk) > MAX_MANIFEST:
                    raise _RefusedError(HTTPStatus.REQUEST_ENTITY_TOO_LARGE)
                raw += chunk
        finally:
            self.server.manifest_memory.give(reserved)
        if not raw:
            raise ArchiveInvalid("a manifest is empty")
        return bytes(raw)

    def _finish(self, upload: _Upload, digest: Digest, on_error: contextlib.ExitStack) -> None:
        if upload.writer is None:
            upload.writer = self.server.current_sink.upload(digest, self._body_length())
        self._receive(upload, on_error).finish(digest)
        on_error.pop_all()
        self._created(f"blobs/{digest}", digest)

    def _receive(self, upload: _Upload, on_error: contextlib.ExitStack) -> UploadWriter:
        """Write the body into an upload, which any error abandons."""
        writer = upload.writer or self.server.current_sink.upload(None, None)
        on_error.callback(writer.abandon)
        for chunk in self._body():
            writer.write(chunk)
            upload.size += len(chunk)
        upload.writer = writer
        return writer

    @property
    def _query(self) -> dict[str, str]:
        return dict(parse_qsl(urlsplit(self.path).query, keep_blank_values=True))

    @property
    def _digest(self) -> Digest:
        digest = Digest.try_parse(self._query.get("digest"))
        if digest is None:
            raise DigestMismatch("an upload ends without a valid digest")
        return digest

    def _take_upload(self) -> tuple[str, _Upload]:
        """Take an upload from the waiting ones; it keeps waiting if this is not its next chunk."""
        name = _upload_name(self._inside)
        upload = self.server.uploads.pop(name, None)
        if upload is None:
            raise _RefusedError(HTTPStatus.NOT_FOUND)
        if text := self.headers.get("Content-Range"):
            match = _CONTENT_RANGE.fullmatch(text)
            if match is None or int(match.group(1)) != upload.size:
                self._leave_upload(name, upload)
                raise _RefusedError(HTTPStatus.REQUESTED_RANGE_NOT_SATISFIABLE)
        return name, upload

    def _leave_upload(self, name: str, upload: _Upload) -> None:
        self.server.uploads[name] = upload
        if len(self.server.uploads) > MAX_UPLOADS:
            self.server.uploads.pop(name, None)
            raise ArchiveInvalid("too many uploads")

    def _accepted(self, status: int, name: str, size: int) -> None:
        headers = {"Range": f"0-{max(size - 1, 0)}"}  # Docker fails a push if it is wrong
        self._answer(status, {"Location": f"{self.server.root}blobs/uploads/{name}", **headers})

    @contextlib.contextmanager
    def _refusing(self) -> Iterator[contextlib.ExitStack]:
        """Answer errors of request and sink, those of the sink with 400.

        Yields a stack whose callbacks run at any error, and only then.
        """
        with contextlib.ExitStack() as on_error:
            try:
                yield on_error
            except _RefusedError as error:
                on_error.close()
                self._refuse(error.status)
            except ImgloadError:
                on_error.close()
                self._refuse(HTTPStatus.BAD_REQUEST)
            else:
                on_error.pop_all()

    @property
    def _inside(self) -> str:
        """The path within the repository; empty outside it and beyond MAX_ADMITTED connections."""
        path = self.path.partition("?")[0]
        if not path.startswith(self.server.root):
            return ""
        self.server.reached()
        return path[len(self.server.root) :] if self.server.admit(self.connection) else ""

    def _body_length(self) -> int | None:
        """Return the bytes of the body, or None for chunks (RFC 9112, section 6.3)."""
        lengths = self.headers.get_all("Content-Length", [])
        encodings = self.headers.get_all("Transfer-Encoding", [])
        if [encoding.strip().lower() for encoding in encodings] == ["chunked"] and not lengths:
            return None
        if encodings or len(lengths) > 1:
            raise ArchiveInvalid("the length of a body is ambiguous")
        text = lengths[0].strip() if lengths else "0"
        if not re.fullmatch(r"[0-9]{1,15}", text, re.ASCII):
            raise ArchiveInvalid("the length of a body is not a number")
        return int(text)

    def _body(self) -> Iterator[bytes]:
        length = self._body_length()
        if length is not None:
            yield from self._read(length)
            return
        while size := self._chunk_size():
            yield from self._read(size)
            if self._line():
                raise ConnectionError("a chunk is longer than its size")
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
        line = self.rfile.readline(_MAX_LINE)
        if not line.endswith(b"\n"):
            raise ConnectionError("a line is too long, or was cut off")
        return line.rstrip(b"\r\n")

    def _read(self, size: int) -> Iterator[bytes]:
        """Yield bytes as they arrive, so that a client that pauses midway occupies no memory."""
        while size:
            piece = self.rfile.read1(min(size, CHUNK))
            if not piece:
                raise ConnectionError("the upload was cut off")
            size -= len(piece)
            yield piece

    def _created(self, path: str, digest: Digest) -> None:
        headers = {"Docker-Content-Digest": str(digest)}
        self._answer(201, {"Location": self.server.root + path, **headers})

    def _refuse(self, status: HTTPStatus) -> None:
        """Answer an error, and close the connection; the rest of the request is not read.

        A little of it is: closing on unread bytes would discard the answer (RFC 9112, section 9.6).
        There is no error code: Docker's graphdriver store would repeat the upload for 50 seconds.
        """
        self.close_connection = True
        self._answer(status)
        with contextlib.suppress(OSError):
            self.connection.shutdown(socket.SHUT_WR)
            self.connection.settimeout(_LINGER_SECONDS)
            for _ in range(64):
                if not self.rfile.read1(64 << 10):
                    return


def _upload_name(path: str) -> str:
    match = _UPLOAD.fullmatch(path)
    return match.group(1) if match else ""


class PushServer(BoundedServer):
    """A server on loopback that also bounds the memory of manifests, and open uploads."""

    def __init__(
        self,
        sink: PushSink | None,
        reached: Callable[[], None] = lambda: None,
        *,
        refuse_last_manifest: bool = False,
    ) -> None:
        super().__init__("127.0.0.1", _Handler)
        path = f"imgload/{secrets.token_hex(16)}"
        self.repository = f"127.0.0.1:{self.server_address[1]}/{path}"
        self.root = f"/v2/{path}/"
        self.sink = sink
        self.reached = reached
        self.refuse_last_manifest = refuse_last_manifest
        self.ended = False
        """Whether a manifest was refused that ends a push."""
        self.manifest_memory = Quota(MAX_MANIFEST_BYTES)
        self.uploads: dict[str, _Upload] = {}
        """Uploads that wait for the next request that names them."""

    @contextlib.contextmanager
    def serving(self) -> Iterator[str]:
        """Serve, and yield the repository to push to."""
        with self:
            self.start()
            try:
                yield self.repository
            finally:
                self.shutdown()

    @property
    def current_sink(self) -> PushSink:
        if self.sink is None:
            raise ArchiveInvalid("no push is in progress")
        return self.sink

    def server_close(self) -> None:
        """Close all connections, so that no thread outlives the push, and abandon open uploads."""
        super().server_close()
        uploads, self.uploads = self.uploads, {}
        for upload in uploads.values():
            if upload.writer:
                upload.writer.abandon()


def receiving(
    sink: PushSink, reached: Callable[[], None] = lambda: None
) -> contextlib.AbstractContextManager[str]:
    """Listen on a free port of 127.0.0.1, and yield the repository to push to.

    `reached` is called at each request for it; only this process and users of the engine know it.
    """
    return PushServer(sink, reached).serving()


class EngineCannotReachUs(EngineFailed):
    """The engine's loopback is not this process's: its pushes do not arrive here."""


@attrs.define(eq=False, repr=False)
class PushSession:
    """A repository for the pushes of one image, and the tag that the engine pushes.

    Docker's containerd image store labels every blob of the image with the repository that it was
    pushed to, for good (``containerd.io/distribution.source``), once the push has succeeded.
    Therefore `refuse_last_manifest` stores the tagged manifest, which ends a push, and refuses it.
    """

    _server: PushServer
    _reached: threading.Event
    _push: Push
    _open: contextlib.ExitStack

    @classmethod
    def start(
        cls,
        pushing: Pushing,
        *,
        refuse_last_manifest: bool,
        look_up: Callable[[str], None] | None = None,
    ) -> PushSession:
        """Listen, and prepare the engine; EngineCannotReachUs is raised if `look_up` fails.

        `look_up` is None where requests of the engine are known to arrive.
        """
        reached = threading.Event()
        with contextlib.ExitStack() as stack:
            server = PushServer(None, reached.set, refuse_last_manifest=refuse_last_manifest)
            repository = stack.enter_context(server.serving())
            if look_up:
                # only the engine and its users can know the repository, whose name is random
                refused = False
                try:
                    look_up(repository)
                except EngineError as error:
                    refused = isinstance(error, EngineFailed) and bool(error.request)
                if not reached.is_set() and not refused:
                    raise EngineCannotReachUs(
                        "the engine's requests to 127.0.0.1 do not reach this process"
                    )
            push = stack.enter_context(pushing(repository))
            return cls(server, reached, push, stack.pop_all())

    def push(self, sink: PushSink) -> None:
        """Have the engine push the image; raise EngineCannotReachUs if no request arrives."""
        self._reached.clear()
        self._server.sink, self._server.ended = sink, False
        try:
            self._push()
        except EngineError as error:
            reached = self._reached.is_set()
            if not reached and (NOT_CONNECTED in error.message or timed_out(error)):
                raise EngineCannotReachUs(error.message, hint=error.hint) from error
            if not self._server.ended:
                raise
        else:
            if not self._reached.is_set():
                raise EngineCannotReachUs(
                    "the engine pushed the image to another process on its 127.0.0.1"
                )
        finally:
            self._server.sink = None

    def close(self) -> None:
        self._open.close()
