"""A blob whose size or destination is not known yet: kept until it is."""

from __future__ import annotations

import hashlib
import tempfile
from collections.abc import Iterator
from typing import IO

import attrs

from imgload.errors import DigestMismatch
from imgload.oci.digest import Digest

IN_MEMORY = 256 << 10
"""Bytes of one blob that are kept in memory; what is more goes to a file without a name."""
_CHUNK = 1 << 20


@attrs.define
class Spool:
    """A blob that is kept, up to `limit` bytes; beyond that only its digest and size are."""

    limit: int
    size: int = 0
    _hasher: hashlib._Hash = attrs.field(factory=hashlib.sha256)
    _file: IO[bytes] | None = attrs.field(
        factory=lambda: tempfile.SpooledTemporaryFile(max_size=IN_MEMORY)  # noqa: SIM115
    )

    def write(self, chunk: bytes) -> None:
        """Keep a piece."""
        self._hasher.update(chunk)
        self.size += len(chunk)
        if self.size > self.limit:
            self.close()
        if self._file is not None:
            self._file.write(chunk)

    def check(self, digest: Digest) -> None:
        """Raise DigestMismatch when the content is not what it should be."""
        found = Digest("sha256", self._hasher.hexdigest())
        if found != digest:
            raise DigestMismatch(f"a pushed blob is {found}, not {digest}")

    @property
    def kept(self) -> bool:
        """Whether the content is still there."""
        return self._file is not None

    def chunks(self) -> Iterator[bytes]:
        """Yield the content from its beginning; may be called more than once."""
        if self._file is not None:
            self._file.seek(0)
            while chunk := self._file.read(_CHUNK):
                yield chunk

    def close(self) -> None:
        """Let go of the content."""
        if self._file is not None:
            self._file.close()
            self._file = None
