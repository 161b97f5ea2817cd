"""An archive's bytes, from a file, a pipe or a folder, decompressed on the way."""

from __future__ import annotations

import re
import shlex
import sys
import tempfile
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import IO, Any

from imgload.core.errors import ArchiveInvalid, SourceError, UsageError
from imgload.oci.blobs import compression_of

CHUNK = 1 << 20
"""Bytes read at once."""
_GZIP = 16 + zlib.MAX_WBITS
_WINDOW_LOG = 27
"""Of zstd: 128 MiB, which is what ``zstd --long`` writes, and ``zstd -d`` takes."""
_FIRST = 512
"""Bytes that a decompressor gets first: what is left of them when it ends is copied."""
_ZEROS = re.compile(rb"\0*")


class FileChunks:
    """A file's chunks, from its beginning; `skip` seeks."""

    def __init__(self, file: IO[bytes], size: int = CHUNK) -> None:
        self._file = file
        self._size = size
        _seek(file, 0)

    def __iter__(self) -> Iterator[bytes]:
        while chunk := _read(self._file, self._size):
            yield chunk

    def skip(self, size: int) -> None:
        """Pass over bytes; past the end, nothing is left to read."""
        _seek(self._file, size, 1)


def open_archive(path: str) -> IO[bytes]:
    """Open an archive for reading more than once.

    A pipe is copied to a file without a name, which goes when imgload does, however it ends.

    Raises:
        UsageError: when it cannot be opened.

    """
    file = _standard_input() if path == "-" else _opened(path)
    return file if file.seekable() else _spooled(file)


def _opened(path: str) -> IO[bytes]:
    try:
        return Path(path).open("rb")
    except (OSError, ValueError) as error:  # ValueError for a NUL character
        why = f"cannot read {path}: {getattr(error, 'strerror', error)}"
        hint = f"see who may read it: ls -ld {shlex.quote(path)}"
        raise UsageError(why, hint=hint) from error


def _standard_input() -> IO[bytes]:
    if sys.stdin is None or sys.stdin.buffer.isatty():
        what = "closed" if sys.stdin is None else "a terminal"
        raise UsageError(
            f"standard input is {what}", hint="docker save app | imgload load --from -"
        )
    return sys.stdin.buffer


def _spooled(pipe: IO[bytes]) -> IO[bytes]:
    try:
        spool = tempfile.TemporaryFile()  # noqa: SIM115 - closed by the source
        while chunk := _read(pipe, CHUNK):
            spool.write(chunk)
        spool.flush()  # or the last bytes would be written, and fail, somewhere else
    except OSError as error:
        where = tempfile.tempdir or "any temporary folder"
        message = f"cannot keep the piped archive in {where}: {error.strerror}"
        raise SourceError(message, hint="write it to a file, and load that") from error
    return spool


def _read(file: IO[bytes], size: int) -> bytes:
    try:
        return file.read(size)
    except OSError as error:
        raise ArchiveInvalid(f"reading the archive failed: {error.strerror}") from error


def _seek(file: IO[bytes], offset: int, whence: int = 0) -> None:
    try:
        file.seek(offset, whence)
    except OSError as error:
        raise ArchiveInvalid(f"reading the archive failed: {error.strerror}") from error


def chunks_of(file: IO[bytes], *, scanning: bool) -> Iterator[bytes] | FileChunks:
    """Return an archive's decompressed chunks, from its beginning.

    Args:
        file: can seek.
        scanning: whether most of it will be passed over, so that reading ahead is a waste.

    """
    _seek(file, 0)
    compression = compression_of(_read(file, 4))
    if not compression:
        return FileChunks(file, 64 << 10 if scanning else CHUNK)
    return _gunzip(file) if compression == "gzip" else _unzstd(file)


class _Parts:
    """Counts the parts of a compressed stream: each costs time, even where it is empty.

    pigz, bgzip and zstd write parts of some KiB at least.
    """

    def __init__(self, part: str) -> None:
        self._part = part
        self._left = 10_000.0

    def start(self) -> None:
        self._left -= 1
        if self._left < 0:
            raise ArchiveInvalid(f"the archive has too many {self._part}s with almost no content")

    def give(self, data: bytes) -> bytes:
        self._left += len(data) / 512
        return data


def _gunzip(file: IO[bytes]) -> Iterator[bytes]:
    parts = _Parts("gzip member")
    unpacker: Any = None
    size = _FIRST
    for chunk in FileChunks(file):
        place = 0
        while place < len(chunk):
            if unpacker is None or unpacker.eof:
                place = _end_of_zeros(chunk, place) if unpacker else place
                if place == len(chunk):
                    break
                parts.start()
                unpacker, size = zlib.decompressobj(_GZIP), _FIRST
            piece = memoryview(chunk)[place : place + size]
            try:
                yield parts.give(unpacker.decompress(piece, CHUNK))
            except zlib.error as error:
                raise ArchiveInvalid(f"the archive's gzip stream is damaged: {error}") from error
            place += len(piece) - len(unpacker.unconsumed_tail) - len(unpacker.unused_data)
            size = min(2 * size, CHUNK)
    if not unpacker.eof:
        raise ArchiveInvalid("the archive's gzip stream is cut off")


def _end_of_zeros(chunk: bytes, place: int) -> int:
    """Return where a padding of zeros ends, which may follow a gzip member."""
    match = _ZEROS.match(chunk, place)
    return match.end() if match else place


def _unzstd(file: IO[bytes]) -> Iterator[bytes]:
    zstd = _zstd()
    parts = _Parts("zstd frame")
    options = {zstd.DecompressionParameter.window_log_max: _WINDOW_LOG}
    unpacker: Any = None
    size = _FIRST
    try:
        for chunk in FileChunks(file):
            place = 0
            while place < len(chunk):
                if unpacker is None or unpacker.eof:
                    parts.start()
                    unpacker, size = zstd.ZstdDecompressor(options=options), _FIRST
                piece = memoryview(chunk)[place : place + size]
                yield parts.give(unpacker.decompress(piece, CHUNK))
                while not unpacker.eof and not unpacker.needs_input:
                    yield parts.give(unpacker.decompress(b"", CHUNK))
                place += len(piece) - len(unpacker.unused_data)
                size = min(2 * size, CHUNK)
    except zstd.ZstdError as error:
        raise _damaged_zstd(error) from error
    if not unpacker.eof:
        raise ArchiveInvalid("the archive's zstd stream is cut off")


def _damaged_zstd(error: Exception) -> ArchiveInvalid:
    if "too much memory" in str(error):
        return ArchiveInvalid(
            f"the archive's zstd window is larger than {1 << _WINDOW_LOG >> 20} MiB",
            hint="decompress it with: zstd -d --long=31 -c FILE | imgload load --from -",
        )
    return ArchiveInvalid(f"the archive's zstd stream is damaged: {error}")


def _zstd() -> Any:
    if sys.version_info >= (3, 14):
        from compression import zstd  # noqa: PLC0415 - only where needed
    else:
        from backports import zstd  # noqa: PLC0415
    return zstd
