"""Names that a push needs in an engine for a moment: noted, so that a killed run leaves none.

A note is a file that its process holds locked. One that can be locked is a dead run's: the next run
takes the name away.
"""

from __future__ import annotations

import json
import os
import re
import secrets
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import IO

import attrs

from imgload.state import state_folder

_OURS = re.compile(
    r"127\.0\.0\.1:[0-9]{1,5}/imgload/[0-9a-f]{32}:[0-9a-f]{16}|/var/lib/imgload-[0-9a-f]{16}"
)
_MAX_NOTE = 4096


@attrs.define
class Note:
    """A name that is to be taken away again."""

    _file: IO[bytes]
    _path: Path

    def leave(self) -> None:
        """Let the next run take the name away."""
        self._file.close()

    def remove(self) -> None:
        """Forget it: the name is gone."""
        with suppress(OSError):
            self._path.unlink(missing_ok=True)
        self._file.close()


def is_ours(name: str) -> bool:
    """Whether an image's name is one that a push needs."""
    return _OURS.fullmatch(name) is not None


def note(engine: str, name: str) -> Note | None:
    """Note a name before it is made; None where no note can be kept.

    Args:
        engine: its address; or a container's ID.
        name: a repository of the receiver's, with a tag; or a folder in the container.

    """
    path = _folder() / f"{secrets.token_hex(8)}.json"
    with suppress(OSError, ImportError):
        path.parent.mkdir(parents=True, exist_ok=True)
        return _written(json.dumps([engine, name]).encode(), path)
    return None


def _written(text: bytes, path: Path) -> Note:
    """Write a note, locked before others can see it; nothing is left where there is no room."""
    hidden = path.with_suffix(".new")
    file = hidden.open("xb", buffering=0)
    try:
        _lock(file)
        file.write(text)
        hidden.rename(path)
    except BaseException:
        hidden.unlink(missing_ok=True)
        file.close()
        raise
    return Note(file, path)


def stale(engine: str) -> Iterator[tuple[str, Note]]:
    """Yield the names that dead runs left in an engine."""
    with suppress(OSError, ImportError):
        for entry in os.scandir(_folder()):
            if entry.name.endswith(".json") and entry.is_file(follow_symlinks=False):
                yield from _left(engine, Path(entry.path))


def _left(engine: str, path: Path) -> Iterator[tuple[str, Note]]:
    with suppress(OSError, ValueError, RecursionError), path.open("rb") as file:
        _lock(file)
        noted, name = json.loads(file.read(_MAX_NOTE))
        if noted == engine and isinstance(name, str) and _OURS.fullmatch(name):
            yield name, Note(file, path)


def _lock(file: IO[bytes]) -> None:
    """Lock a file; OSError when somebody has it."""
    import fcntl  # noqa: PLC0415 - not on Windows

    fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)


def _folder() -> Path:
    return state_folder() / "pushes"
