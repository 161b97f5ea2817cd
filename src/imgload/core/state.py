"""Where things are kept between runs; all of it may be deleted at any time."""

from __future__ import annotations

import os
import shlex
from pathlib import Path

from platformdirs import user_cache_path

from imgload.core.errors import ImgloadError

RUN_FOLDER = "imgload-run-"
"""How the names of temporary folders begin."""


def state_folder() -> Path:
    """Return the folder; it need not exist."""
    return user_cache_path("imgload")


def temporary_folder() -> Path:
    """Return what `tempfile.gettempdir` does, whose import takes longer."""
    chosen = (os.environ.get(name) for name in ("TMPDIR", "TEMP", "TMP"))
    return Path(next(filter(None, chosen), "/tmp"))  # noqa: S108


def clear_cache(*, dry_run: bool = False) -> int:
    """Delete the files in imgload's cache folder on this machine; return their bytes.

    What is remembered there saves time with the engines, and nothing else; links are not followed,
    and the notes that running loads keep in a folder below it stay.

    Args:
        dry_run: only count.

    Raises:
        ImgloadError: when the folder may not be read, or a file in it not be deleted.

    """
    try:
        return _clear(dry_run=dry_run)
    except (FileNotFoundError, NotADirectoryError):
        return 0
    except OSError as error:
        raise ImgloadError(
            f"{error.filename} could not be cleared away: {error.strerror}",
            hint=f"see whose it is: ls -la {shlex.quote(str(state_folder()))}",
        ) from error


def _clear(*, dry_run: bool) -> int:
    files = [e for e in os.scandir(state_folder()) if not e.is_dir(follow_symlinks=False)]
    size = sum(entry.stat(follow_symlinks=False).st_size for entry in files)
    for entry in () if dry_run else files:
        Path(entry.path).unlink(missing_ok=True)
    return size
