"""Decompression of layers while they arrive."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from imgload.core.errors import ArchiveInvalid
from imgload.oci.content import Chunk

_GZIP = b"\x1f\x8b"
_GZIP_FORMAT = 31
_PIECE = 1 << 20


class Inflater:
    """Decompresses gzip, of one or several members, in bounded memory."""

    def __init__(self) -> None:
        from isal import isal_zlib  # noqa: PLC0415 - start-up

        self._zlib: Any = isal_zlib
        self._unpacker: Any = isal_zlib.decompressobj(_GZIP_FORMAT)

    @staticmethod
    def accepts(start: Chunk) -> bool:
        return bytes(start[:2]) == _GZIP

    def feed(self, chunk: Chunk) -> Iterator[bytes]:
        """Yield the decompressed bytes of the next chunk; ArchiveInvalid if it is damaged."""
        rest: bytes | memoryview = chunk
        try:
            while rest:
                if self._unpacker.eof:
                    self._unpacker = self._zlib.decompressobj(_GZIP_FORMAT)
                yield self._unpacker.decompress(rest, _PIECE)
                rest = self._unpacker.unused_data or self._unpacker.unconsumed_tail
        except self._zlib.error as error:
            raise ArchiveInvalid(f"a layer's gzip stream is damaged: {error}") from error

    def finish(self) -> None:
        """Raise ArchiveInvalid if the stream is incomplete."""
        if not self._unpacker.eof:
            raise ArchiveInvalid("a layer's gzip stream is cut off")
