"""An archive's bytes, from a file, a pipe or a folder, decompressed on the way."""

from __future__ import annotations

import sys
import tempfile
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import IO, Any

from imgload.errors import ArchiveInvalid, SourceError, UsageError
from imgload.oci.blobs import compression_of

CHUNK = 1 << 20
"""Bytes read at once."""
_GZIP = 16 + zlib.MAX_WBITS


class FileChunks:
    """A file's chunks, from its beginning; `skip` seeks."""

    def __init__(self, file: IO[bytes], size: int = CHUNK) -> None:
        self._file = file
        self._size = size
        file.seek(0)

    def __iter__(self) -> Iterator[bytes]:
        while chunk := _read(self._file, self._size):
            yield chunk

    def skip(self, size: int) -> None:
        """Pass over bytes; past the end, nothing is left to read."""
        self._file.seek(size, 1)


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
    except OSError as error:
        why = f"cannot read {path}: {error.strerror}"
        raise UsageError(why, hint=f"see who may read it: ls -ld {path}") from error


def _standard_input() -> IO[bytes]:
    if sys.stdin is None or sys.stdin.buffer.isatty():
        what = "closed" if sys.stdin is None else "a terminal"
        raise UsageError(
            f"standard input is {what}", hint="docker save app | imgload load --from -"
        )
    return sys.stdin.buffer


def _spooled(pipe: IO[bytes]) -> IO[bytes]:
    spool = tempfile.TemporaryFile()  # noqa: SIM115 - closed by the source
    while chunk := _read(pipe, CHUNK):
        try:
            spool.write(chunk)
        except OSError as error:
            where = tempfile.gettempdir()
            message = f"cannot keep the piped archive in {where}: {error.strerror}"
            raise SourceError(message, hint="write it to a file, and load that") from error
    return spool


def _read(file: IO[bytes], size: int) -> bytes:
    try:
        return file.read(size)
    except OSError as error:
        raise ArchiveInvalid(f"reading the archive failed: {error.strerror}") from error


def chunks_of(file: IO[bytes], *, scanning: bool) -> Iterator[bytes] | FileChunks:
    """Return an archive's decompressed chunks, from its beginning.

    Args:
        file: can seek.
        scanning: whether most of it will be passed over, so that reading ahead is a waste.

    """
    file.seek(0)
    compression = compression_of(file.read(4))
    if not compression:
        return FileChunks(file, 64 << 10 if scanning else CHUNK)
    return _gunzip(file) if compression == "gzip" else _unzstd(file)


def _gunzip(file: IO[bytes]) -> Iterator[bytes]:
    unpacker = zlib.decompressobj(_GZIP)
    try:
        for chunk in FileChunks(file):
            data = chunk.lstrip(b"\0") if unpacker.eof else chunk
            while data:
                if unpacker.eof:
                    unpacker = zlib.decompressobj(_GZIP)
                yield unpacker.decompress(data, CHUNK)
                data = unpacker.unconsumed_tail or unpacker.unused_data.lstrip(b"\0")
    except zlib.error as error:
        raise ArchiveInvalid(f"the archive's gzip stream is damaged: {error}") from error
    if not unpacker.eof:
        raise ArchiveInvalid("the archive's gzip stream is cut off")


def _unzstd(file: IO[bytes]) -> Iterator[bytes]:
    zstd = _zstd()
    file.seek(0)
    try:
        with zstd.ZstdFile(file) as unpacked:
            while chunk := unpacked.read(CHUNK):
                yield chunk
    except (zstd.ZstdError, EOFError) as error:
        raise ArchiveInvalid(f"the archive's zstd stream is damaged: {error}") from error


def _zstd() -> Any:
    if sys.version_info >= (3, 14):
        from compression import zstd  # noqa: PLC0415 - only where needed
    else:
        from backports import zstd  # noqa: PLC0415
    return zstd
