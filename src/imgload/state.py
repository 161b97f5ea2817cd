"""Where things are kept between runs; all of it may be deleted at any time."""

from __future__ import annotations

from pathlib import Path

from platformdirs import user_cache_path


def state_folder() -> Path:
    """Return the folder; it need not exist."""
    return user_cache_path("imgload")
