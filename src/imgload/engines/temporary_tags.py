"""Notes of temporary names in engines and folders on nodes: a later run removes the leftovers.

A process keeps the notes of its own names locked. A note that can be locked belongs to a killed
run. Notes contain the secret name of a receiver's repository, so only their owner may read them.
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

from imgload.core.state import lock, private_folder, state_folder, temporary_folder

TAG = re.compile(r"127\.0\.0\.1:[0-9]{1,5}/imgload/[0-9a-f]{32}:[0-9a-f]{16}")  # a tag for a push
LIST = re.compile(r"localhost/imgload-[0-9a-f]{16}")  # a manifest list for a push
FOLDER = re.compile(r"/var/lib/imgload-[0-9a-f]{16}")  # a folder on a node
_ANY = re.compile("|".join(kind.pattern for kind in (TAG, LIST, FOLDER)))
_MAX_BYTES = 4096
_MAX_ELSEWHERE = 20  # the limit of notes of other addresses for one run
_EXPIRY_SECONDS = 30 * 24 * 3600.0  # the age at which a note of an unreachable engine is removed
_ABANDONED_SECONDS = 60.0  # the age at which a partial note belongs to a killed run


@attrs.frozen
class Note:
    """The note of a temporary name, locked, with the fields of `note_temporary_name`."""

    engine: str
    name: str
    image: str
    here: bool  # whether the engine's address and the machine are the same as in the note
    _file: IO[bytes]
    _path: Path

    def release(self) -> None:
        """Unlock the note: the next run removes the name."""
        self._file.close()

    def remove(self) -> None:
        """Remove the note of a name that no longer exists."""
        with suppress(OSError):
            self._path.unlink(missing_ok=True)
        if self._path.parent == _spare_folder():
            with suppress(OSError):
                self._path.parent.rmdir()
        self._file.close()


def is_temporary_tag(name: str) -> bool:
    return TAG.fullmatch(name) is not None


def note_temporary_name(engine: str, name: str, image: str = "") -> Note | None:
    """Note a name before it is created; return None if no folder is writable.

    `engine` is an address with a tag or manifest list as `name`, or a container's ID with a folder.
    For a tag, `image` is the engine's own ID of the image.
    """
    text = json.dumps([engine, name, image, os.uname().nodename]).encode()
    for folder in _folders():
        with suppress(OSError, ImportError):
            _make(folder)
            path = folder / f"{secrets.token_hex(8)}.json"
            return Note(engine, name, image, True, _write(text, path), path)  # noqa: FBT003
    return None


def _make(folder: Path) -> None:
    if folder != _spare_folder():
        private_folder(folder.parent)
        private_folder(folder)
        return
    with suppress(FileExistsError):  # any user may have made it
        folder.mkdir(mode=0o700)
    status = folder.lstat()
    is_private = stat.S_ISDIR(status.st_mode) and not status.st_mode & 0o077
    if not is_private or status.st_uid != os.geteuid():
        raise PermissionError(f"other users have access to {folder}")


def _write(text: bytes, path: Path) -> IO[bytes]:
    """Write a file, and lock it before other runs see it."""
    partial = path.with_suffix(".new")
    file = _open(partial, os.O_CREAT | os.O_EXCL)
    try:
        lock(file)
        file.write(text)
        partial.rename(path)
    except BaseException:
        partial.unlink(missing_ok=True)
        file.close()
        raise
    return file


def stale_folders(containers: Collection[str]) -> Iterator[Note]:
    """Yield the folders that killed runs left in containers, which are given by ID."""
    return stale_names(containers, FOLDER, elsewhere=0)


def stale_names(
    engines: Collection[str], names: re.Pattern[str] = _ANY, elsewhere: int = _MAX_ELSEWHERE
) -> Iterator[Note]:
    """Yield the names of a pattern that killed runs may have left in engines or containers.

    Names at other addresses, at most `elsewhere`, come last: they may be of the same engine.
    """
    paths = [path for folder in _folders() for path in _list(folder)]
    for path in sorted(paths, key=lambda path: _noted_engine(path) not in engines):
        for note in _lock_stale(engines, names, path):
            elsewhere -= not note.here
            if elsewhere < 0:
                return
            yield note


def _noted_engine(path: Path) -> str:
    with suppress(OSError), _open(path) as file:
        return (_parse(file.read(_MAX_BYTES)) or ("",))[0]
    return ""


def _list(folder: Path) -> Iterator[Path]:
    with suppress(OSError):
        if folder == _spare_folder() and folder.lstat().st_uid != os.geteuid():
            return
        for entry in os.scandir(folder):
            if entry.name.endswith((".json", ".new")) and entry.is_file(follow_symlinks=False):
                yield Path(entry.path)


def _lock_stale(engines: Collection[str], names: re.Pattern[str], path: Path) -> Iterator[Note]:
    """Yield an unlocked note, or nothing; remove a note that is invalid or expired."""
    with suppress(OSError, ImportError), _open(path) as file:
        age = time.time() - path.stat().st_mtime
        if path.suffix == ".new" and age < _ABANDONED_SECONDS:
            return
        lock(file)
        fields = _parse(file.read(_MAX_BYTES)) if path.suffix == ".json" else None
        if fields is None or age > _EXPIRY_SECONDS:
            path.unlink(missing_ok=True)
            return
        engine, name, image, host = fields
        if names.fullmatch(name):
            here = engine in engines and host in {"", os.uname().nodename}
            yield Note(engine, name, image, here, file, path)


def _open(path: Path, more: int = 0) -> IO[bytes]:
    # NFS locks only files that are open for writing.
    flags = os.O_RDWR | os.O_NOFOLLOW | os.O_CLOEXEC | more
    return os.fdopen(os.open(path, flags, 0o600), "r+b", buffering=0)


def _parse(text: bytes) -> tuple[str, str, str, str] | None:
    """Return engine, name, image and host; a note of an older version has the first two."""
    try:
        engine, name, image, host = fields = [*json.loads(text), "", ""][:4]
    except (ValueError, TypeError, RecursionError):
        return None
    is_valid = all(isinstance(field, str) for field in fields) and _ANY.fullmatch(name)
    return (engine, name, image, host) if is_valid else None


def _folders() -> tuple[Path, Path]:
    return state_folder() / "pushes", _spare_folder()


def _spare_folder() -> Path:
    """Return the folder for notes if the cache folder is not writable."""
    return temporary_folder() / f"imgload-{os.geteuid()}"
