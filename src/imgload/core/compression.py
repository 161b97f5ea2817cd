"""Decompression of archives and layers while they arrive, in bounded memory."""

from __future__ import annotations

import re
import sys
from collections.abc import Callable, Iterable, Iterator
from functools import partial
from typing import Any, Literal

from imgload.core.errors import ArchiveInvalid

Compression = Literal["", "gzip", "zstd", "bzip2", "xz"]
MAGIC_LENGTH = 4
"""Bytes that `compression_of` needs."""
UNPACKED_BY_NODES: frozenset[Compression] = frozenset({"", "gzip", "zstd"})
"""Compressions that containerd knows (pkg/archive/compression); Docker and Podman also load layers
in bzip2 and xz."""
UNPACKED_BY_DOCKER: frozenset[Compression] = frozenset({"", "gzip"})
"""Compressions that every Docker knows, in which Docker 20.10 lacks zstd."""
_MAGIC: tuple[tuple[re.Pattern[bytes], Compression], ...] = (
    (re.compile(rb"\x1f\x8b"), "gzip"),
    (re.compile(rb"\x28\xb5\x2f\xfd|[\x50-\x5f]\x2a\x4d\x18"), "zstd"),  # or a skippable frame
    (re.compile(rb"BZh[1-9]"), "bzip2"),
    (re.compile(rb"\xfd7zX"), "xz"),
)
_GZIP_FORMAT = 31
_PIECE = 1 << 20
"""Bytes of the largest input and output."""
_WINDOW_LOG = 27
"""Of zstd: 128 MiB, the maximum that ``zstd --long`` writes and ``zstd -d`` accepts."""
_XZ_MEMORY = (1 << _WINDOW_LOG) + (1 << 20)
"""Bytes: a dictionary of 128 MiB, twice that of ``xz -9``, and the decoder."""
_FIRST = 512
"""Bytes of a decompressor's first input: the unused rest of an input is copied."""
_EMPTY_PARTS = 10_000.0
"""Members, frames or streams that may be empty, since even an empty one takes time; pigz, bgzip,
pbzip2 and zstd write parts of some KiB at least."""
_PART = 512
"""Bytes of content that allow for one more part."""
_ZEROS = re.compile(rb"\0*")


def compression_of(start: bytes) -> Compression:
    """Return the compression of an archive or a layer, from its first bytes."""
    return next((name for magic, name in _MAGIC if magic.match(start)), "")


class Decompressor:
    """Decompresses one or several gzip members, zstd frames, or bzip2 or xz streams.

    Args:
        form: the compression.
        owner: for messages, such as ``the archive's``.

    """

    def __init__(self, form: Compression, owner: str) -> None:
        self._form, self._owner = form, owner
        self._new, self._failure = _library(form)
        self._unpacker: Any = None
        self._parts_left = _EMPTY_PARTS
        self._size = _FIRST

    def feed(self, chunk: bytes | memoryview) -> Iterator[bytes]:
        """Yield the content of the next chunk; ArchiveInvalid if it is damaged."""
        try:
            yield from self._feed(memoryview(chunk))
        except self._failure as error:
            raise self._damaged(error) from error

    def _feed(self, chunk: memoryview) -> Iterator[bytes]:
        offset = 0
        while offset < len(chunk):
            if self._unpacker is None or self._unpacker.eof:
                if self._unpacker and self._form != "zstd":  # padding may follow a member
                    zeros = _ZEROS.match(chunk, offset)
                    offset = zeros.end() if zeros else offset
                    if offset == len(chunk):
                        break
                self._parts_left -= 1
                if self._parts_left < 0:
                    message = "stream has too many parts with almost no content"
                    raise ArchiveInvalid(f"{self._owner} {self._form} {message}")
                self._unpacker, self._size = self._new(), _FIRST
            piece = chunk[offset : offset + self._size]
            for content in _unpack(self._unpacker, piece):
                self._parts_left += len(content) / _PART
                yield content
            offset += len(piece) - len(self._unpacker.unused_data)
            self._size = min(2 * self._size, _PIECE)

    def finish(self) -> None:
        """Raise ArchiveInvalid if the stream is incomplete."""
        if self._unpacker is None or not self._unpacker.eof:
            raise ArchiveInvalid(f"{self._owner} {self._form} stream is cut off")

    def _damaged(self, error: Exception) -> ArchiveInvalid:
        if "too much memory" in str(error) or "Memory usage limit" in str(error):
            command = "zstd -d --long=31 -c" if self._form == "zstd" else "xz -dc"
            return ArchiveInvalid(
                f"{self._owner} {self._form} window is larger than {1 << _WINDOW_LOG >> 20} MiB",
                hint=f"decompress it with: {command} FILE | imgload load --from -",
            )
        return ArchiveInvalid(f"{self._owner} {self._form} stream is damaged: {error}")


def decompressed(
    chunks: Iterable[bytes | memoryview], form: Compression, owner: str
) -> Iterator[bytes]:
    """Yield the content of chunks; the arguments are those of `Decompressor`."""
    decompressor = Decompressor(form, owner)
    for chunk in chunks:
        yield from decompressor.feed(chunk)
    decompressor.finish()


def _library(form: Compression) -> tuple[Callable[[], Any], type[Exception]]:
    if form == "gzip":
        try:
            from isal import isal_zlib  # noqa: PLC0415 - only where needed
        except ImportError:  # there is no wheel for this processor
            import zlib  # noqa: PLC0415

            return partial(zlib.decompressobj, _GZIP_FORMAT), zlib.error
        error: Any = isal_zlib.error
        return partial(isal_zlib.decompressobj, _GZIP_FORMAT), error
    if form == "bzip2":
        import bz2  # noqa: PLC0415

        return bz2.BZ2Decompressor, OSError
    if form == "xz":
        import lzma  # noqa: PLC0415

        return partial(lzma.LZMADecompressor, lzma.FORMAT_XZ, _XZ_MEMORY), lzma.LZMAError
    if sys.version_info >= (3, 14):
        from compression import zstd  # noqa: PLC0415
    else:
        try:
            from backports import zstd  # noqa: PLC0415
        except ImportError as absent:  # krew's plugin has no compiled packages
            raise ArchiveInvalid(
                "zstd cannot be decompressed: the Python package backports.zstd is missing",
                hint="zstd -d FILE, and load the result; or: pipx install imgload-k8s",
            ) from absent
    options: dict[Any, int] = {zstd.DecompressionParameter.window_log_max: _WINDOW_LOG}
    return partial(zstd.ZstdDecompressor, options=options), zstd.ZstdError


def _unpack(unpacker: Any, piece: memoryview) -> Iterator[bytes]:
    """Yield the content of compressed bytes in pieces of at most _PIECE bytes."""
    yield unpacker.decompress(piece, _PIECE)
    while getattr(unpacker, "unconsumed_tail", b""):  # of gzip
        yield unpacker.decompress(unpacker.unconsumed_tail, _PIECE)
    while not (unpacker.eof or getattr(unpacker, "needs_input", True)):  # of the others
        yield unpacker.decompress(b"", _PIECE)
