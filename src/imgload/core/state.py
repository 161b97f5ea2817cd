"""The cache folder, which may be deleted at any time; atomic files; temporary folders.

A process keeps its temporary folder locked, and the kernel releases the lock however the process
ends. The next run removes the unlocked folders. systemd-tmpfiles skips locked folders as well.
"""

from __future__ import annotations

import os
import shlex
import stat
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import IO

import attrs
from platformdirs import user_cache_path

from imgload.core.errors import ImgloadError

RUN_FOLDER = "imgload-run-"
"""The prefix of temporary folders."""
BLOBS = "blobs"
"""The subfolder of the cache folder for the blobs of served images."""
_FOLDER_FLAGS = os.O_RDONLY | getattr(os, "O_DIRECTORY", 0) | getattr(os, "O_NOFOLLOW", 0)
_LARGE_FILES = "/var/tmp"  # noqa: S108 - for files without a name
_SOCKETS = "/tmp"  # noqa: S108 - in a private folder
_MAX_SOCKET_FOLDER = 56
_LOCK_ATTEMPTS = 200
_LOCK_PAUSE = 0.01  # seconds between attempts to lock a folder
_ABANDONED_SECONDS = 60.0
"""A partial file of this age belongs to a killed process."""


def state_folder() -> Path:
    """Return the cache folder, which may not exist."""
    return user_cache_path("imgload")


def temporary_folder() -> Path:
    """Return the same as `tempfile.gettempdir`, whose import is slow."""
    chosen = (os.environ.get(name) for name in ("TMPDIR", "TEMP", "TMP"))
    return Path(next(filter(None, chosen), "/tmp"))  # noqa: S108


def socket_folder() -> str:
    """Return the folder for sockets: the temporary folder, or /tmp if its path is too long.

    Linux allows 107 bytes for a socket's path and macOS 103; ssh appends 17 while it creates one.
    """
    folder = str(temporary_folder())
    return folder if len(os.fsencode(folder)) <= _MAX_SOCKET_FOLDER else _SOCKETS


def spool_folder() -> str:
    """Return the folder for large unnamed files: TMPDIR, or /var/tmp, as /tmp may be in memory."""
    is_usable = "TMPDIR" not in os.environ and os.access(_LARGE_FILES, os.W_OK)
    return _LARGE_FILES if is_usable else str(temporary_folder())


def clear_cache(*, dry_run: bool = False) -> int:
    """Delete the files in imgload's cache folder on this machine, and return their size in bytes.

    The cache only makes later runs faster. Symbolic links are not followed. The subfolders with the
    notes of running loads and with the record for `restore` are kept, that with the blobs of
    `imgload serve` is emptied.

    Args:
        dry_run: return the size without deleting the files.

    Raises:
        ImgloadError: if the folder cannot be read, or a file cannot be deleted.

    """
    try:
        entries = list(os.scandir(state_folder()))
        blobs = next((e for e in entries if e.name == BLOBS and not e.is_symlink()), None)
        entries += os.scandir(blobs) if blobs and blobs.is_dir() else ()
        files = [entry for entry in entries if not entry.is_dir(follow_symlinks=False)]
        size = sum(entry.stat(follow_symlinks=False).st_size for entry in files)
        for entry in () if dry_run else files:
            Path(entry.path).unlink(missing_ok=True)
    except (FileNotFoundError, NotADirectoryError):
        return 0
    except OSError as error:
        message = f"cannot clear the cache: {error.filename}: {error.strerror}"
        hint = f"check the owner: ls -la {shlex.quote(str(state_folder()))}"
        raise ImgloadError(message, hint=hint) from error
    return size


def private_folder(path: Path) -> None:
    """Make a folder, or restrict an existing one, so that only this user may enter it; OSError."""
    path.mkdir(mode=0o700, parents=True, exist_ok=True)
    status = path.stat()
    if status.st_uid != os.geteuid():
        raise PermissionError(f"{path} belongs to another user")
    if status.st_mode & 0o077:
        path.chmod(0o700)


def read_own_file(path: Path, most: int) -> bytes:
    """Read a file of this user's; raise OSError if it is another's, or has over `most` bytes."""
    status = path.stat()
    if status.st_uid != os.geteuid() or status.st_size > most:
        raise PermissionError(f"{path} belongs to another user, or is larger than {most} bytes")
    return path.read_bytes()


def replace_file(path: Path, text: str, mode: int = 0o600) -> None:
    """Write a file atomically: readers see the old or the new content; OSError keeps the old."""
    import tempfile  # noqa: PLC0415 - start-up

    prefix = f".{path.name}.imgload-"
    for abandoned in path.parent.glob(f"{prefix}*"):
        with suppress(OSError):
            if time.time() - abandoned.lstat().st_mtime > _ABANDONED_SECONDS:
                abandoned.unlink()
    descriptor, name = tempfile.mkstemp(dir=path.parent, prefix=prefix)
    partial = Path(name)
    try:
        with os.fdopen(descriptor, "w") as file:
            file.write(text)
        partial.chmod(mode)
        partial.replace(path)
    except BaseException:
        partial.unlink(missing_ok=True)
        raise


@attrs.define(eq=False, repr=False)
class TemporaryFolder:
    """A folder for files and sockets that only this user may enter."""

    path: Path
    _descriptor: int | None = None

    @classmethod
    def make(cls, parent: str | None = None) -> TemporaryFolder:
        """Make a folder, and lock it if the file system supports locks; raise OSError."""
        import tempfile  # noqa: PLC0415 - start-up

        while True:
            path = Path(tempfile.mkdtemp(prefix=RUN_FOLDER, dir=parent))
            try:
                return cls(path, _open_locked(path))
            except (FileNotFoundError, BlockingIOError):
                continue  # another run removes it as stale, since it was not locked yet
            except (OSError, ImportError):
                return cls(path)

    def remove(self) -> None:
        """Remove the folder and all that is in it."""
        descriptor, self._descriptor = self._descriptor, None
        if descriptor is not None:
            _remove_files(descriptor)
            os.close(descriptor)
        else:
            import shutil  # noqa: PLC0415 - start-up

            shutil.rmtree(self.path, ignore_errors=True)
        with suppress(OSError):
            self.path.rmdir()


def remove_stale_folders() -> None:
    """Remove this user's unlocked temporary folders."""
    parents = {temporary_folder(), Path(spool_folder()), Path(socket_folder())}
    for path in (path for parent in parents for path in parent.glob(f"{RUN_FOLDER}*")):
        with suppress(OSError, ImportError), ExitStack() as stack:
            descriptor = _open_locked(path)
            stack.callback(os.close, descriptor)
            folder = os.fstat(descriptor)
            if folder.st_uid == os.geteuid() and stat.S_IMODE(folder.st_mode) == stat.S_IRWXU:
                _remove_files(descriptor)
                path.rmdir()


def lock(file: int | IO[bytes]) -> None:
    """Lock an open file or folder; BlockingIOError if another process has locked it."""
    import fcntl  # noqa: PLC0415 - not on Windows

    fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)


@contextmanager
def locked_folder(folder: Path) -> Iterator[None]:
    """Lock a folder, which is made if it does not exist, against other processes.

    The lock is left out where it is not possible, as on some network file systems, or while a
    stopped process holds it for two seconds: none of the files is worth a failed load.
    """
    with ExitStack() as stack:
        with suppress(OSError, ImportError):
            private_folder(folder)
            descriptor = os.open(folder, os.O_RDONLY)
            stack.callback(os.close, descriptor)
            for _ in range(_LOCK_ATTEMPTS):
                with suppress(BlockingIOError):
                    lock(descriptor)
                    break
                time.sleep(_LOCK_PAUSE)
        yield


def _open_locked(path: Path) -> int:
    """Open and lock a folder; OSError if another process has locked or removed it."""
    descriptor = os.open(path, _FOLDER_FLAGS)
    with ExitStack() as stack:
        stack.callback(os.close, descriptor)
        lock(descriptor)
        if not os.path.samestat(os.fstat(descriptor), path.lstat()):
            raise FileNotFoundError(path)
        stack.pop_all()
    return descriptor


def _remove_files(folder: int) -> None:
    """Empty an open folder by descriptor: its path may lead elsewhere by now."""
    for name in os.listdir(folder):
        with suppress(OSError):
            os.unlink(name, dir_fd=folder)
            continue
        with suppress(OSError):
            inner = os.open(name, _FOLDER_FLAGS, dir_fd=folder)
            try:
                _remove_files(inner)
            finally:
                os.close(inner)
            os.rmdir(name, dir_fd=folder)
