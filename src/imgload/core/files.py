"""Reading from files that others read, too."""

from __future__ import annotations

import os
from collections.abc import Iterator
from typing import IO

from imgload.core.errors import ArchiveInvalid

_CHUNK = 1 << 20


def read_at(file: IO[bytes], offset: int, size: int) -> Iterator[bytes]:
    """Yield `size` bytes of a file; ArchiveInvalid if they cannot be read."""
    end = offset + size
    while offset < end:
        try:
            chunk = os.pread(file.fileno(), min(_CHUNK, end - offset), offset)
        except OSError as error:
            raise ArchiveInvalid(f"reading the archive failed: {error.strerror}") from error
        if not chunk:
            raise ArchiveInvalid("the archive shrank while it was read")
        yield chunk
        offset += len(chunk)
