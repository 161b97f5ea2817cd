"""A blob whose size or destination is not known yet: kept until it is."""

from __future__ import annotations

import contextlib
import hashlib
import tempfile
import threading
from collections.abc import Iterator
from typing import IO

import attrs

from imgload.errors import ArchiveInvalid, DigestMismatch
from imgload.oci.digest import Digest

IN_MEMORY = 256 << 10
"""Bytes of one blob that are kept in memory; what is more goes to a file without a name."""
_CHUNK = 1 << 20


@attrs.define
class Room:
    """The bytes that all kept blobs together may still take."""

    left: int
    _lock: threading.Lock = attrs.field(factory=threading.Lock)

    def take(self, size: int) -> bool:
        """Take some of it, or nothing where there is less."""
        with self._lock:
            enough = size <= self.left
            self.left -= size if enough else 0
            return enough

    def give(self, size: int) -> None:
        """Give some of it back."""
        with self._lock:
            self.left += size


@attrs.define
class Spool:
    """A blob that is kept, up to `limit` bytes; beyond that only its digest and size are.

    Likewise where the disk is full, and where the `room` for all blobs is used up; `why` it could
    not be kept says which. A blob longer than `most` is refused.
    """

    limit: int
    room: Room = attrs.field(factory=lambda: Room(1 << 40))
    most: int = 1 << 40
    size: int = 0
    why: str = ""
    _taken: int = 0
    _hasher: hashlib._Hash = attrs.field(factory=hashlib.sha256)
    _file: IO[bytes] | None = attrs.field(
        factory=lambda: tempfile.SpooledTemporaryFile(max_size=IN_MEMORY)  # noqa: SIM115
    )

    def write(self, chunk: bytes) -> None:
        """Keep a piece.

        Raises:
            ArchiveInvalid: when the blob is longer than any blob of the image can be.

        """
        if self.size + len(chunk) > self.most:
            raise ArchiveInvalid("a pushed blob is larger than the image")
        self._hasher.update(chunk)
        self.size += len(chunk)
        if self._file is not None:
            self._keep(self._file, chunk)

    def _keep(self, file: IO[bytes], chunk: bytes) -> None:
        if self.size > self.limit or not self.room.take(len(chunk)):
            self._let_go("it is larger than any layer that is missing")
            return
        self._taken += len(chunk)
        try:
            file.write(chunk)
        except OSError as error:
            self._lost(error)

    def _lost(self, error: OSError) -> None:
        # not gettempdir(), which raises where no folder can be written to
        self._let_go(f"{tempfile.tempdir or 'any temporary folder'}: {error.strerror}")

    def _let_go(self, why: str) -> None:
        self.why = why
        self.close()

    def check(self, digest: Digest) -> None:
        """Write the last bytes, and raise DigestMismatch when the content has another digest."""
        if self._file is not None:
            try:
                self._file.flush()  # or the last bytes would be written, and fail, when it is read
            except OSError as error:
                self._lost(error)
        found = Digest("sha256", self._hasher.hexdigest())
        if found != digest:
            raise DigestMismatch(f"a pushed blob is {found}, not {digest}")

    @property
    def kept(self) -> bool:
        """Whether the content is still there."""
        return self._file is not None

    def chunks(self) -> Iterator[bytes]:
        """Yield the content from its beginning; may be called more than once.

        Raises:
            OSError: when the disk fails.

        """
        if self._file is not None:
            self._file.seek(0)
            while chunk := self._file.read(_CHUNK):
                yield chunk

    def close(self) -> None:
        """Let go of the content."""
        if self._file is not None:
            with contextlib.suppress(OSError):
                self._file.close()
            self._file = None
            self.room.give(self._taken)
            self._taken = 0
