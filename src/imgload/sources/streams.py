"""The bytes of an archive: a file or a pipe, decompressed."""

from __future__ import annotations

import shlex
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import IO

from imgload.core.compression import MAGIC_LENGTH, compression_of, decompressed
from imgload.core.errors import ArchiveInvalid, SourceError, UsageError
from imgload.core.state import spool_folder

CHUNK = 1 << 20
"""Bytes of one read."""


class FileChunks:
    """A file's chunks, from its beginning; `skip` seeks."""

    def __init__(self, file: IO[bytes], size: int = CHUNK) -> None:
        self.file = file
        self._size = size
        _seek(file, 0)

    def __iter__(self) -> Iterator[bytes]:
        while chunk := _read(self.file, self._size):
            yield chunk

    def skip(self, size: int) -> None:
        _seek(self.file, size, 1)


def open_archive(path: str) -> IO[bytes]:
    """Open an archive for reading more than once; UsageError is raised if that fails.

    A pipe is copied to an unnamed file, which the system removes however imgload ends.
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
        spool = tempfile.TemporaryFile(dir=spool_folder())  # noqa: SIM115 - closed by the source
        while chunk := _read(pipe, CHUNK):
            spool.write(chunk)
        spool.flush()  # or writing the last bytes would fail later, outside this handler
    except OSError as error:
        message = f"cannot keep the piped archive in {spool_folder()}: {error.strerror}"
        raise SourceError(message, hint="write it to a file, and load that file") from error
    return spool


def _read(file: IO[bytes], size: int, problem: str = "reading the archive failed") -> bytes:
    try:
        return file.read(size)
    except OSError as error:
        raise ArchiveInvalid(f"{problem}: {error.strerror}") from error


def _seek(file: IO[bytes], offset: int, whence: int = 0) -> None:
    try:
        file.seek(offset, whence)
    except OSError as error:
        raise ArchiveInvalid(f"reading the archive failed: {error.strerror}") from error


def chunks_of(file: IO[bytes], *, scanning: bool) -> Iterator[bytes] | FileChunks:
    """Return the decompressed chunks of a seekable file, from its beginning.

    If `scanning`, most of it will be skipped, so that reading ahead is a waste.
    """
    _seek(file, 0)
    compression = compression_of(_read(file, MAGIC_LENGTH))
    if compression:
        return decompressed(FileChunks(file), compression, "the archive's")
    return FileChunks(file, 64 << 10 if scanning else CHUNK)
