"""Reads and decompresses an archive from a file or a pipe."""

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
"""Bytes of one read."""
_GZIP = 16 + zlib.MAX_WBITS
_WINDOW_LOG = 27
"""Of zstd: 128 MiB, the maximum that ``zstd --long`` writes and ``zstd -d`` accepts."""
_FIRST = 512
"""Bytes of a decompressor's first input: the unused rest of an input is copied."""
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
        """Skip bytes; past the end, the iterator ends."""
        _seek(self._file, size, 1)


def open_archive(path: str) -> IO[bytes]:
    """Open an archive for reading more than once.

    A pipe is copied to an unnamed file, which the system removes however imgload ends.

    Raises:
        UsageError: if it cannot be opened.
        SourceError: if a pipe cannot be copied.

    """
    if path == "-":
        if sys.stdin is None or sys.stdin.buffer.isatty():
            state = "closed" if sys.stdin is None else "a terminal"
            hint = "docker save app | imgload load --from -"
            raise UsageError(f"standard input is {state}", hint=hint)
        file: IO[bytes] = sys.stdin.buffer
    else:
        try:
            file = Path(path).open("rb")  # noqa: SIM115 - closed by the source
        except (OSError, ValueError) as error:  # ValueError for a NUL character
            message = f"cannot read {path}: {getattr(error, 'strerror', error)}"
            hint = f"check its permissions: ls -ld {shlex.quote(path)}"
            raise UsageError(message, hint=hint) from error
    return file if file.seekable() else _copy_to_file(file)


def _copy_to_file(pipe: IO[bytes]) -> IO[bytes]:
    try:
        spool = tempfile.TemporaryFile()  # noqa: SIM115 - closed by the source
        while chunk := _read(pipe, CHUNK):
            spool.write(chunk)
        spool.flush()  # or writing the last bytes would fail later, outside this handler
    except OSError as error:
        where = tempfile.tempdir or "any temporary folder"
        message = f"cannot keep the piped archive in {where}: {error.strerror}"
        raise SourceError(message, hint="write it to a file, and load that file") from error
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
        file: a seekable file.
        scanning: whether most of it will be skipped, so that reading ahead is a waste.

    """
    _seek(file, 0)
    compression = compression_of(_read(file, 4))
    if not compression:
        return FileChunks(file, 64 << 10 if scanning else CHUNK)
    return _gunzip(file) if compression == "gzip" else _unzstd(file)


class _Parts:
    """Limits the parts of a compressed stream: even an empty part takes time.

    pigz, bgzip and zstd write parts of some KiB at least.
    """

    def __init__(self, part: str) -> None:
        self._part = part
        self._left = 10_000.0

    def start(self) -> None:
        self._left -= 1
        if self._left < 0:
            raise ArchiveInvalid(f"the archive has too many {self._part}s with almost no content")

    def count(self, data: bytes) -> bytes:
        self._left += len(data) / 512
        return data


def _gunzip(file: IO[bytes]) -> Iterator[bytes]:
    parts = _Parts("gzip member")
    unpacker: Any = None
    size = _FIRST
    for chunk in FileChunks(file):
        offset = 0
        while offset < len(chunk):
            if unpacker is None or unpacker.eof:
                if unpacker and (zeros := _ZEROS.match(chunk, offset)):
                    offset = zeros.end()  # padding may follow a gzip member
                if offset == len(chunk):
                    break
                parts.start()
                unpacker, size = zlib.decompressobj(_GZIP), _FIRST
            piece = memoryview(chunk)[offset : offset + size]
            try:
                yield parts.count(unpacker.decompress(piece, CHUNK))
            except zlib.error as error:
                raise ArchiveInvalid(f"the archive's gzip stream is damaged: {error}") from error
            offset += len(piece) - len(unpacker.unconsumed_tail) - len(unpacker.unused_data)
            size = min(2 * size, CHUNK)
    if not unpacker.eof:
        raise ArchiveInvalid("the archive's gzip stream is cut off")


def _unzstd(file: IO[bytes]) -> Iterator[bytes]:
    if sys.version_info >= (3, 14):
        from compression import zstd  # noqa: PLC0415 - only where needed
    else:
        from backports import zstd  # noqa: PLC0415
    parts = _Parts("zstd frame")
    options: dict[Any, int] = {zstd.DecompressionParameter.window_log_max: _WINDOW_LOG}
    unpacker: Any = None
    size = _FIRST
    try:
        for chunk in FileChunks(file):
            offset = 0
            while offset < len(chunk):
                if unpacker is None or unpacker.eof:
                    parts.start()
                    unpacker, size = zstd.ZstdDecompressor(options=options), _FIRST
                piece = memoryview(chunk)[offset : offset + size]
                yield parts.count(unpacker.decompress(piece, CHUNK))
                while not unpacker.eof and not unpacker.needs_input:
                    yield parts.count(unpacker.decompress(b"", CHUNK))
                offset += len(piece) - len(unpacker.unused_data)
                size = min(2 * size, CHUNK)
    except zstd.ZstdError as error:
        if "too much memory" in str(error):
            raise ArchiveInvalid(
                f"the archive's zstd window is larger than {1 << _WINDOW_LOG >> 20} MiB",
                hint="decompress it with: zstd -d --long=31 -c FILE | imgload load --from -",
            ) from error
        raise ArchiveInvalid(f"the archive's zstd stream is damaged: {error}") from error
    if not unpacker.eof:
        raise ArchiveInvalid("the archive's zstd stream is cut off")
