"""Names in an engine and folders on a node that a load needs for a moment, noted in files.

A note is a file that its process holds locked. A note that can be locked is a dead run's: the next
run takes the name away. Notes hold the secret name of a receiver's repository, so that only their
owner may read them.
"""

from __future__ import annotations

import json
import os
import re
import secrets
import stat
import time
from collections.abc import Collection, Iterator
from contextlib import suppress
from pathlib import Path
from typing import IO

import attrs

from imgload.state import state_folder, temporary_folder

TAG = re.compile(r"127\.0\.0\.1:[0-9]{1,5}/imgload/[0-9a-f]{32}:[0-9a-f]{16}")
"""A tag that a push needs."""
LIST = re.compile(r"localhost/imgload-[0-9a-f]{16}")
"""A manifest list that is pushed."""
FOLDER = re.compile(r"/var/lib/imgload-[0-9a-f]{16}")
"""A folder on a node."""
_ANY = re.compile("|".join(kind.pattern for kind in (TAG, LIST, FOLDER)))
_MAX_NOTE = 4096
_MOST_ELSEWHERE = 20
"""So many notes of other addresses one run looks at."""
_FORGET_SECONDS = 30 * 24 * 3600.0
"""After so long a note of an engine that was not met again is removed."""
_UNFINISHED_SECONDS = 60.0
"""After so long a note that was not completed is not going to be."""


@attrs.define
class Note:
    """A name that is to be taken away again."""

    _file: IO[bytes]
    _path: Path

    def leave(self) -> None:
        """Let the next run take the name away."""
        self._file.close()

    def remove(self) -> None:
        """Forget the name, which is gone."""
        with suppress(OSError):
            self._path.unlink(missing_ok=True)
        if self._path.parent == _spare_folder():
            with suppress(OSError):
                self._path.parent.rmdir()
        self._file.close()


@attrs.frozen
class Leftover:
    """A name that a dead run may have left in an engine.

    Args:
        engine: its address; or a container's ID.
        name: a tag, a manifest list, or a folder in the container.
        image: the engine's ID of the image that had it; empty when that was not noted.
        here: whether it was left in the engine at the same address, on the same machine.
        note: locked meanwhile.

    """

    engine: str
    name: str
    image: str
    here: bool
    note: Note


def is_ours(name: str) -> bool:
    """Whether an image's name is one that a push needs."""
    return TAG.fullmatch(name) is not None


def note(engine: str, name: str, image: str = "") -> Note | None:
    """Note a name before it is made; None where no note can be kept.

    Args:
        engine: its address; or a container's ID.
        name: a tag, a manifest list, or a folder in the container.
        image: the engine's ID of the image that gets the tag; empty for the others.

    """
    text = json.dumps([engine, name, image, os.uname().nodename]).encode()
    for folder in _folders():
        with suppress(OSError, ImportError):
            _prepare(folder)
            return _written(text, folder / f"{secrets.token_hex(8)}.json")
    return None


def _prepare(folder: Path) -> None:
    """Make a folder for notes; in the temporary folder anybody may have made it before."""
    if folder != _spare_folder():
        from imgload.files import private_folder  # noqa: PLC0415 - start-up

        private_folder(folder.parent)
        private_folder(folder)
        return
    with suppress(FileExistsError):
        folder.mkdir(mode=0o700)
    now = folder.lstat()
    if not stat.S_ISDIR(now.st_mode) or now.st_mode & 0o077 or now.st_uid != os.geteuid():
        raise PermissionError(f"{folder} is not the user's alone")


def _written(text: bytes, path: Path) -> Note:
    """Write a note, locked before others can see it; nothing is left where there is no room."""
    hidden = path.with_suffix(".new")
    flags = os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC
    file = os.fdopen(os.open(hidden, flags, 0o600), "r+b", buffering=0)
    try:
        _lock(file)
        file.write(text)
        hidden.rename(path)
    except BaseException:
        hidden.unlink(missing_ok=True)
        file.close()
        raise
    return Note(file, path)


def stale_folders(containers: Collection[str]) -> Iterator[Leftover]:
    """Yield the folders that dead runs left in some containers, by ID."""
    return stale(containers, FOLDER, elsewhere=0)


def stale(
    engines: Collection[str], names: re.Pattern[str] = _ANY, elsewhere: int = _MOST_ELSEWHERE
) -> Iterator[Leftover]:
    """Yield what dead runs may have left in some engines or containers.

    The same engine may have another address: names noted for other addresses are yielded last.

    Args:
        engines: their addresses; or the containers' IDs.
        names: which names.
        elsewhere: how many to yield, at most, of other engines.

    """
    paths = [path for folder in _folders() for path in _notes(folder)]
    noted = [(path, _noted_engine(path)) for path in paths]
    for path, _ in sorted(noted, key=lambda each: each[1] not in engines):
        for left in _left(engines, names, path):
            elsewhere -= not left.here
            if elsewhere < 0:
                return
            yield left


def _noted_engine(path: Path) -> str | None:
    """Return which engine a note names, as long as nobody has replaced the note."""
    with suppress(OSError), _opened(path) as file:
        note = _parsed(file.read(_MAX_NOTE))
        return note[0] if note else None
    return None


def _notes(folder: Path) -> Iterator[Path]:
    with suppress(OSError):
        if folder == _spare_folder() and folder.lstat().st_uid != os.geteuid():
            return
        for entry in os.scandir(folder):
            if entry.name.endswith((".json", ".new")) and entry.is_file(follow_symlinks=False):
                yield Path(entry.path)


def _left(engines: Collection[str], names: re.Pattern[str], path: Path) -> Iterator[Leftover]:
    with suppress(OSError, ImportError), _opened(path) as file:
        age = time.time() - path.stat().st_mtime
        if path.suffix == ".new" and age < _UNFINISHED_SECONDS:
            return
        _lock(file)
        found = _parsed(file.read(_MAX_NOTE)) if path.suffix == ".json" else None
        if found is None or age > _FORGET_SECONDS:
            path.unlink(missing_ok=True)
            return
        engine, name, image, host = found
        if names.fullmatch(name):
            here = engine in engines and host in {"", os.uname().nodename}
            yield Leftover(engine, name, image, here, Note(file, path))


def _opened(path: Path) -> IO[bytes]:
    """Open a note for writing as well: NFS locks nothing else."""
    return os.fdopen(os.open(path, os.O_RDWR | os.O_NOFOLLOW | os.O_CLOEXEC), "r+b")


def _parsed(text: bytes) -> tuple[str, str, str, str] | None:
    """Return engine, name, image and host; an older note has the first two."""
    try:
        engine, name, image, host = [*json.loads(text), "", ""][:4]
    except (ValueError, TypeError, RecursionError):
        return None
    if not all(isinstance(each, str) for each in (engine, name, image, host)):
        return None
    if not _ANY.fullmatch(name):
        return None
    return engine, name, image, host


def _lock(file: IO[bytes]) -> None:
    """Lock a file; OSError when somebody has it."""
    import fcntl  # noqa: PLC0415 - not on Windows

    fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)


def _folders() -> tuple[Path, Path]:
    return state_folder() / "pushes", _spare_folder()


def _spare_folder() -> Path:
    """Return where notes are kept when the cache folder takes none."""
    return temporary_folder() / f"imgload-{os.geteuid()}"
