"""Temporary folders; a run removes the folders that killed runs left behind.

A process keeps its folder locked, and the kernel releases the lock however the process ends.
systemd-tmpfiles skips locked folders as well.
"""

from __future__ import annotations

import os
import stat
from contextlib import ExitStack, suppress
from pathlib import Path

import attrs

from imgload.core.state import RUN_FOLDER, temporary_folder

_FOLDER_FLAGS = os.O_RDONLY | getattr(os, "O_DIRECTORY", 0) | getattr(os, "O_NOFOLLOW", 0)


@attrs.define
class TemporaryFolder:
    """A folder for files and sockets that only this user may enter."""

    path: Path
    _descriptor: int | None = None

    @classmethod
    def make(cls) -> TemporaryFolder:
        """Make a folder, and lock it if the file system supports locks; raise OSError."""
        import tempfile  # noqa: PLC0415 - start-up

        while True:
            path = Path(tempfile.mkdtemp(prefix=RUN_FOLDER))
            try:
                return cls(path, _lock(path))
            except (FileNotFoundError, BlockingIOError):
                continue  # another run removes it as stale, since it was not locked yet
            except (OSError, ImportError):
                return cls(path)

    def remove(self) -> None:
        """Remove the folder and its files."""
        descriptor, self._descriptor = self._descriptor, None
        if descriptor is not None:
            _remove_files(descriptor)
            os.close(descriptor)
        else:
            for name in os.listdir(self.path) if self.path.exists() else ():  # noqa: PTH208
                (self.path / name).unlink(missing_ok=True)
        with suppress(OSError):
            self.path.rmdir()


def remove_stale() -> None:
    """Remove the folders of this user's killed runs; skip locked folders and other users'."""
    with suppress(OSError, ImportError):
        for entry in os.scandir(temporary_folder()):
            if entry.name.startswith(RUN_FOLDER):
                with suppress(OSError):
                    _remove_stale(Path(entry.path))


def _remove_stale(path: Path) -> None:
    descriptor = _lock(path)
    try:
        folder = os.fstat(descriptor)
        if folder.st_uid == os.geteuid() and stat.S_IMODE(folder.st_mode) == stat.S_IRWXU:
            _remove_files(descriptor)
            path.rmdir()
    finally:
        os.close(descriptor)


def _lock(path: Path) -> int:
    """Open and lock a folder; OSError if another process has locked or removed it."""
    import fcntl  # noqa: PLC0415 - not on Windows

    descriptor = os.open(path, _FOLDER_FLAGS)
    with ExitStack() as stack:
        stack.callback(os.close, descriptor)
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        if not os.path.samestat(os.fstat(descriptor), path.lstat()):
            raise FileNotFoundError(path)
        stack.pop_all()
    return descriptor


def _remove_files(folder: int) -> None:
    """Remove the files in an open folder by descriptor: its path may lead elsewhere by now."""
    for name in os.listdir(folder):
        with suppress(OSError):
            os.unlink(name, dir_fd=folder)
