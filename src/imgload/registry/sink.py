"""The destination of a push: its interface, `PushSink`, and a spool for pushed blobs."""

from __future__ import annotations

import contextlib
import hashlib
import tempfile
import threading
from collections.abc import Iterator
from functools import partial
from typing import IO, Protocol

import attrs

from imgload.core.errors import ArchiveInvalid, DigestMismatch
from imgload.core.state import spool_folder
from imgload.oci.digest import Digest
from imgload.oci.document import MAX_DOCUMENT

MAX_UPLOADS = 2000
MAX_MANIFEST_BYTES = 32 << 20
"""Bytes of all manifests of one push."""


class UploadWriter(Protocol):
    """One blob that is being uploaded; `finish` raises DigestMismatch for another digest."""

    def write(self, chunk: bytes) -> None: ...

    def finish(self, digest: Digest) -> object: ...

    def abandon(self) -> None: ...


class PushSink(Protocol):
    """Receives a push, in several threads; an ImgloadError makes the registry refuse the request.

    OCI distribution spec, "Push".
    """

    def stat_blob(self, digest: Digest) -> int | None:
        """Return the size (0 if unknown) of a blob that need not be sent; None if it must be."""

    def upload(self, digest: Digest | None, size: int | None) -> UploadWriter:
        """Open an upload; `digest` and `size` (in bytes) are None if not known yet."""

    def manifest(self, digest: Digest, raw: bytes) -> None: ...


@attrs.define(eq=False, repr=False)
class ManifestSink:
    """A sink that claims to have every blob, and therefore receives only manifests."""

    taken: dict[Digest, bytes] = attrs.field(factory=dict)

    def stat_blob(self, _digest: Digest) -> int | None:
        return 0

    def upload(self, _digest: Digest | None, _size: int | None) -> UploadWriter:
        raise ArchiveInvalid("no blob was requested")

    def manifest(self, digest: Digest, raw: bytes) -> None:
        keep_manifest(self.taken, digest, raw, MAX_UPLOADS)


@attrs.define(eq=False, repr=False)
class DocumentSink(ManifestSink):
    """A sink that also receives one document, such as a config, and no other blob."""

    wanted: Digest = attrs.field(kw_only=True)
    document: bytes = b""

    def stat_blob(self, digest: Digest) -> int | None:
        return None if digest == self.wanted else 0

    def upload(self, _digest: Digest | None, _size: int | None) -> UploadWriter:
        return _DocumentUpload(self)


@attrs.define(eq=False, repr=False)
class _DocumentUpload:
    _sink: DocumentSink
    _data: bytearray = attrs.field(factory=bytearray)

    def write(self, chunk: bytes) -> None:
        self._data += chunk
        if len(self._data) > MAX_DOCUMENT:
            raise ArchiveInvalid(f"a pushed document is larger than {MAX_DOCUMENT} bytes")

    def finish(self, digest: Digest) -> None:
        document = bytes(self._data)
        if not digest == Digest.of(document) == self._sink.wanted:
            raise DigestMismatch(f"the pushed document is not {self._sink.wanted}")
        self._sink.document = document

    def abandon(self) -> None:
        self._data.clear()


def keep_manifest(taken: dict[Digest, bytes], digest: Digest, raw: bytes, most: int) -> None:
    """Add a manifest to those of a push, which are at most `most` and MAX_MANIFEST_BYTES."""
    size = sum(map(len, list(taken.values())))
    if len(taken) >= most or size + len(raw) > MAX_MANIFEST_BYTES:
        raise ArchiveInvalid("the engine pushed too many manifests")
    taken[digest] = raw


IN_MEMORY = 256 << 10
"""Bytes of one blob that stay in memory; a longer blob goes to a file without a name."""
_CHUNK = 1 << 20


@attrs.define(eq=False, repr=False)
class Quota:
    """A number of bytes that several threads share."""

    left: int
    _lock: threading.Lock = attrs.field(factory=threading.Lock)

    def take(self, size: int) -> bool:
        """Reserve bytes; return False, and reserve none, if fewer are left."""
        with self._lock:
            fits = size <= self.left
            self.left -= size if fits else 0
            return fits

    def give(self, size: int) -> None:
        with self._lock:
            self.left += size


@attrs.define(eq=False, repr=False)
class Spool:
    """A blob that is stored until its size and destination are known.

    It is dropped beyond `limit` bytes, when `room`, which all blobs of a push share, is used up, or
    when the disk fails; `why` is the reason. Digest and size are still computed, since nobody may
    need its content. Beyond `max_size` bytes, `write` raises ArchiveInvalid.
    """

    limit: int
    room: Quota = attrs.field(factory=lambda: Quota(1 << 40))
    max_size: int = 1 << 40
    size: int = 0
    why: str = ""
    _hasher: hashlib._Hash = attrs.field(factory=hashlib.sha256)
    _file: IO[bytes] | None = attrs.field(
        factory=lambda: tempfile.SpooledTemporaryFile(IN_MEMORY, dir=spool_folder())  # noqa: SIM115
    )
    _reserved: int = 0

    def write(self, chunk: bytes) -> None:
        if self.size + len(chunk) > self.max_size:
            raise ArchiveInvalid("a pushed blob is larger than the image")
        self._hasher.update(chunk)
        self.size += len(chunk)
        if self._file is None:
            return
        if self.size > self.limit or not self.room.take(len(chunk)):
            self._drop("it is larger than any missing layer")
            return
        self._reserved += len(chunk)
        with self._dropping():
            self._file.write(chunk)

    @contextlib.contextmanager
    def _dropping(self) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            # not gettempdir(), which raises where no folder is writable
            self._drop(f"{spool_folder()}: {error.strerror}")

    def _drop(self, why: str) -> None:
        self.why = why
        self.close()

    def check(self, digest: Digest) -> None:
        """Write out buffered bytes, and raise DigestMismatch if the content has another digest."""
        if self._file is not None:
            with self._dropping():
                self._file.flush()  # otherwise a full disk would only show when it is read
        actual = Digest("sha256", self._hasher.hexdigest())
        if actual != digest:
            raise DigestMismatch(f"a pushed blob is {actual}, not {digest}")

    @property
    def kept(self) -> bool:
        return self._file is not None

    def chunks(self) -> Iterator[bytes]:
        """Yield the content from its start; OSError when the disk fails."""
        if self._file is not None:
            self._file.seek(0)
            yield from iter(partial(self._file.read, _CHUNK), b"")

    def close(self) -> None:
        if self._file is not None:
            with contextlib.suppress(OSError):
                self._file.close()
            self._file = None
            self.room.give(self._reserved)
            self._reserved = 0
