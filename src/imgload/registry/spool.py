"""A blob that is stored until its size and destination are known."""

from __future__ import annotations

import contextlib
import hashlib
import tempfile
import threading
from collections.abc import Iterator
from functools import partial
from typing import IO

import attrs

from imgload.core.errors import ArchiveInvalid, DigestMismatch
from imgload.oci.digest import Digest

IN_MEMORY = 256 << 10
"""Bytes of one blob that stay in memory; a longer blob goes to a file without a name."""
_CHUNK = 1 << 20


@attrs.define
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
        """Return reserved bytes."""
        with self._lock:
            self.left += size


@attrs.define
class Spool:
    """A stored blob.

    A blob that cannot be stored is dropped; digest and size are still computed, since nobody may
    need its content. `why` then is the reason.

    Args:
        limit: bytes beyond which it is dropped.
        room: bytes that all blobs of a push share; when they are used up, it is dropped.
        max_size: bytes beyond which `write` refuses the blob.

    """

    limit: int
    room: Quota = attrs.field(factory=lambda: Quota(1 << 40))
    max_size: int = 1 << 40
    size: int = 0
    why: str = ""
    _hasher: hashlib._Hash = attrs.field(factory=hashlib.sha256)
    _file: IO[bytes] | None = attrs.field(
        factory=lambda: tempfile.SpooledTemporaryFile(max_size=IN_MEMORY)  # noqa: SIM115
    )
    _reserved: int = 0

    def write(self, chunk: bytes) -> None:
        """Append a chunk.

        Raises:
            ArchiveInvalid: when the blob exceeds `max_size`.

        """
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
            self._drop(f"{tempfile.tempdir or 'any temporary folder'}: {error.strerror}")

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
        """Whether the content is available."""
        return self._file is not None

    def chunks(self) -> Iterator[bytes]:
        """Yield the content from its start; OSError when the disk fails."""
        if self._file is not None:
            self._file.seek(0)
            yield from iter(partial(self._file.read, _CHUNK), b"")

    def close(self) -> None:
        """Discard the content."""
        if self._file is not None:
            with contextlib.suppress(OSError):
                self._file.close()
            self._file = None
            self.room.give(self._reserved)
            self._reserved = 0
