"""Reading from files that others read, too, and from files that the user names."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from typing import IO

from imgload.core.errors import ArchiveInvalid, UsageError

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


def read_input(path: str, most: int, hint: str) -> bytes:
    """Return a file's content, or that of standard input for ``-``.

    UsageError with the hint is raised if it cannot be read, or has more than `most` bytes.
    """
    try:
        if path == "-":
            data = sys.stdin.buffer.read(most + 1)
        else:
            with open(path, "rb") as file:  # noqa: PTH123 - Path's raises for long names
                data = file.read(most + 1)
    except (OSError, ValueError) as error:
        reason = error.strerror if isinstance(error, OSError) else str(error)
        raise UsageError(f"cannot read {path!r:.300}: {reason}", hint=hint) from error
    if len(data) > most:
        raise UsageError(f"{path!r:.300} is larger than {most >> 20} MiB", hint=hint)
    return data
