"""An OCI layout folder as a tar stream (OCI image spec, image-layout.md)."""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import IO

from imgload.core.errors import ArchiveInvalid
from imgload.oci.digest import Digest
from imgload.oci.tar import END, header, padding
from imgload.sources.streams import CHUNK


def layout_chunks(folder: Path) -> Iterator[bytes]:
    """Yield the folder's documents and blobs as one tar; other files are left out.

    Raises:
        ArchiveInvalid: if the folder is no OCI layout, or a blob is not a regular file.

    """
    if not os.path.isfile(folder / "index.json"):  # noqa: PTH113 - Path's raises for some links
        raise ArchiveInvalid(
            "not an OCI layout: it has no index.json",
            hint="make one with: skopeo copy docker-daemon:app:dev oci:FOLDER:app:dev",
        )
    for path in ("oci-layout", "index.json", *_blobs(folder)):
        with _open_regular(folder / path) as file:
            size = left = os.fstat(file.fileno()).st_size
            yield header(path, size)
            while left:
                chunk = _read(file, folder / path, min(CHUNK, left))
                left -= len(chunk)
                yield chunk
            yield padding(size)
    yield END


def _blobs(folder: Path) -> Iterator[str]:
    for blob in sorted((folder / "blobs").glob("*/*")):
        if blob.parent.is_symlink() or blob.parent.parent.is_symlink():
            raise ArchiveInvalid(f"cannot read {str(blob.parent)!r}: it is a link")
        with suppress(ArchiveInvalid):
            Digest(blob.parent.name, blob.name)
            yield str(blob.relative_to(folder))


def _read(file: IO[bytes], path: Path, size: int) -> bytes:
    try:
        chunk = file.read(size)
    except OSError as error:
        raise ArchiveInvalid(f"cannot read {path}: {error.strerror}") from error
    if not chunk:
        raise ArchiveInvalid(f"{path} shrank while it was read")
    return chunk


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
