"""The bytes of an archive: a file, a pipe or an OCI layout folder, decompressed."""

from __future__ import annotations

import os
import shlex
import stat
import sys
import tempfile
from collections.abc import Iterable, Iterator
from contextlib import nullcontext, suppress
from pathlib import Path
from typing import IO

from imgload.core.compression import MAGIC_LENGTH, Compression, Decompressor, compression_of
from imgload.core.errors import ArchiveInvalid, SourceError, UsageError
from imgload.core.files import read_at
from imgload.core.state import spool_folder
from imgload.oci.digest import Digest
from imgload.oci.tar import END, Member, header, padding

CHUNK = 1 << 20
"""Bytes of one read."""
_MOST_OPEN = 128
"""Files that a layout folder keeps open."""


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
        return _decompress(file, compression)
    return FileChunks(file, 64 << 10 if scanning else CHUNK)


def _decompress(file: IO[bytes], form: Compression) -> Iterator[bytes]:
    decompressor = Decompressor(form, "the archive's")
    for chunk in FileChunks(file):
        yield from decompressor.feed(chunk)
    decompressor.finish()


class LayoutFolder:
    """The documents and blobs of an OCI layout folder, also as one tar (image-layout.md).

    Its files stay open until `close`, up to a limit.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._open: list[IO[bytes]] = []

    def close(self) -> None:
        for file in self._open:
            file.close()

    def __iter__(self) -> Iterator[bytes]:
        for member, content in self.members():
            yield header(member.path, member.size)
            yield from map(bytes, content)
            yield padding(member.size)
        yield END

    def members(self) -> Iterator[tuple[Member, Iterable[memoryview]]]:
        folder = self._folder
        if not os.path.isfile(folder / "index.json"):  # noqa: PTH113 - Path's raises for some links
            raise ArchiveInvalid(
                "not an OCI layout: it has no index.json",
                hint="make one with: skopeo copy docker-daemon:app:dev oci:FOLDER:app:dev",
            )
        for path in ("oci-layout", "index.json", *_blobs(folder)):
            file = _open_regular(folder / path)
            size = os.fstat(file.fileno()).st_size
            stays = len(self._open) < _MOST_OPEN
            if stays:
                self._open.append(file)
            with nullcontext() if stays else file:
                member = Member(path, "file", size, place=(file, 0) if stays else None)
                yield member, map(memoryview, read_at(file, 0, size))


def _blobs(folder: Path) -> Iterator[str]:
    for blob in sorted((folder / "blobs").glob("*/*")):
        if blob.parent.is_symlink() or blob.parent.parent.is_symlink():
            raise ArchiveInvalid(f"cannot read {str(blob.parent)!r}: it is a link")
        with suppress(ArchiveInvalid):
            Digest(blob.parent.name, blob.name)
            yield str(blob.relative_to(folder))


def _open_regular(path: Path) -> IO[bytes]:
    """Open a file but no link: a link could refer to a file outside the layout."""
    flags = getattr(os, "O_NOFOLLOW", 0) | getattr(os, "O_NONBLOCK", 0)
    try:
        file = os.fdopen(os.open(path, os.O_RDONLY | flags), "rb")
    except OSError as error:
        raise ArchiveInvalid(f"cannot read {path}: {error.strerror}") from error
    if not stat.S_ISREG(os.fstat(file.fileno()).st_mode):
        file.close()
        raise ArchiveInvalid(f"cannot read {path}: it is not a regular file")
    return file
