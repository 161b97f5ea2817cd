"""The cache folder, whose content may be deleted at any time, and files written atomically."""

from __future__ import annotations

import os
import shlex
import time
from contextlib import suppress
from pathlib import Path

from platformdirs import user_cache_path

from imgload.core.errors import ImgloadError

RUN_FOLDER = "imgload-run-"
"""The prefix of temporary folders."""
_ABANDONED_SECONDS = 60.0
"""A partial file of this age belongs to a killed process."""


def state_folder() -> Path:
    """Return the path of the cache folder, which may not exist."""
    return user_cache_path("imgload")


def temporary_folder() -> Path:
    """Return the same as `tempfile.gettempdir`, whose import is slow."""
    chosen = (os.environ.get(name) for name in ("TMPDIR", "TEMP", "TMP"))
    return Path(next(filter(None, chosen), "/tmp"))  # noqa: S108


def clear_cache(*, dry_run: bool = False) -> int:
    """Delete the files in imgload's cache folder on this machine, and return their size in bytes.

    The cache only makes later runs faster. Symbolic links are not followed. The subfolder with the
    notes of running loads is kept.

    Args:
        dry_run: return the size without deleting the files.

    Raises:
        ImgloadError: if the folder cannot be read, or a file cannot be deleted.

    """
    try:
        files = [e for e in os.scandir(state_folder()) if not e.is_dir(follow_symlinks=False)]
        size = sum(entry.stat(follow_symlinks=False).st_size for entry in files)
        for entry in () if dry_run else files:
            Path(entry.path).unlink(missing_ok=True)
    except (FileNotFoundError, NotADirectoryError):
        return 0
    except OSError as error:
        raise ImgloadError(
            f"cannot clear the cache: {error.filename}: {error.strerror}",
            hint=f"check the owner: ls -la {shlex.quote(str(state_folder()))}",
        ) from error
    return size


def private_folder(path: Path) -> None:
    """Make a folder that only this user may enter; restrict the mode of an existing one.

    Raises:
        OSError: if the folder cannot be made or restricted, or belongs to another user.

    """
    path.mkdir(mode=0o700, parents=True, exist_ok=True)
    status = path.stat()
    if status.st_uid != os.geteuid():
        raise PermissionError(f"{path} belongs to another user")
    if status.st_mode & 0o077:
        path.chmod(0o700)


def replace_file(path: Path, text: str, mode: int = 0o600) -> None:
    """Write a file atomically: readers see the old or the new content, never a part.

    Raises:
        OSError: if the file cannot be written; the old file is kept then.

    """
    import tempfile  # noqa: PLC0415 - start-up

    prefix = f".{path.name}.imgload-"
    for entry in path.parent.iterdir():
        if entry.name.startswith(prefix):
            with suppress(OSError):
                if time.time() - entry.lstat().st_mtime > _ABANDONED_SECONDS:
                    entry.unlink()
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
