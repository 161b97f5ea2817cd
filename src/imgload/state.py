"""Where things are kept between runs; all of it may be deleted at any time."""

from __future__ import annotations

import os
from pathlib import Path

from platformdirs import user_cache_path


def state_folder() -> Path:
    """Return the folder; it need not exist."""
    return user_cache_path("imgload")


def clear_cache(*, dry_run: bool = False) -> int:
    """Delete the files in imgload's cache folder on this machine; return their bytes.

    What is remembered there saves time with the engines, and nothing else; links are not followed,
    and the notes that running loads keep in a folder below it stay.

    Args:
        dry_run: only count.

    Raises:
        OSError: when a file may not be deleted.

    """
    try:
        files = [e for e in os.scandir(state_folder()) if not e.is_dir(follow_symlinks=False)]
    except (FileNotFoundError, NotADirectoryError):
        return 0
    size = sum(entry.stat(follow_symlinks=False).st_size for entry in files)
    for entry in () if dry_run else files:
        Path(entry.path).unlink(missing_ok=True)
    return size
