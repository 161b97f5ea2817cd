"""Temporary folders; those that a killed run leaves are removed by the next one.

A folder stays locked for as long as its process lives: the kernel releases the lock however the
process ends. systemd-tmpfiles leaves locked folders alone, too.
"""

from __future__ import annotations

import os
import stat
from contextlib import suppress
from pathlib import Path

import attrs

from imgload.core.state import RUN_FOLDER, temporary_folder

_FOLDER = os.O_RDONLY | getattr(os, "O_DIRECTORY", 0) | getattr(os, "O_NOFOLLOW", 0)


@attrs.define
class TemporaryFolder:
    """A folder for files and sockets that only this user may enter."""

    path: Path
    _descriptor: int | None = None

    @classmethod
    def make(cls) -> TemporaryFolder:
        """Make a folder, and lock it where its file system has locks.

        Raises:
            OSError: when it cannot be made.

        """
        import tempfile  # noqa: PLC0415 - start-up

        while True:
            path = Path(tempfile.mkdtemp(prefix=RUN_FOLDER))
            try:
                return cls(path, _locked(path))
            except (FileNotFoundError, BlockingIOError):
                continue  # another run found it before it was locked, and removes it
            except (OSError, ImportError):
                return cls(path)

    def remove(self) -> None:
        """Remove the folder, and what is in it."""
        descriptor, self._descriptor = self._descriptor, None
        if descriptor is not None:
            _empty(descriptor)
            os.close(descriptor)
        else:
            for name in os.listdir(self.path) if self.path.exists() else ():  # noqa: PTH208
                (self.path / name).unlink(missing_ok=True)
        with suppress(OSError):
            self.path.rmdir()


def remove_stale() -> None:
    """Remove the folders of this user's killed runs; what is locked, or another user's, stays."""
    with suppress(OSError, ImportError):
        for entry in os.scandir(temporary_folder()):
            if entry.name.startswith(RUN_FOLDER):
                with suppress(OSError):
                    _remove_stale(Path(entry.path))


def _remove_stale(path: Path) -> None:
    descriptor = _locked(path)
    try:
        folder = os.fstat(descriptor)
        if folder.st_uid == os.geteuid() and stat.S_IMODE(folder.st_mode) == stat.S_IRWXU:
            _empty(descriptor)
            path.rmdir()
    finally:
        os.close(descriptor)


def _locked(path: Path) -> int:
    """Open and lock a folder; OSError when another process has locked or removed it."""
    import fcntl  # noqa: PLC0415 - not on Windows

    descriptor = os.open(path, _FOLDER)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        is_same = os.path.samestat(os.fstat(descriptor), path.lstat())
    except BaseException:
        os.close(descriptor)
        raise
    if not is_same:
        os.close(descriptor)
        raise FileNotFoundError(path)
    return descriptor


def _empty(folder: int) -> None:
    """Remove the files in an open folder, by name within it: its path may lead elsewhere by now."""
    for name in os.listdir(folder):
        with suppress(OSError):
            os.unlink(name, dir_fd=folder)
