"""Files written in one step, and folders that only their owner may enter."""

from __future__ import annotations

import os
import time
from contextlib import suppress
from pathlib import Path

_UNFINISHED_SECONDS = 60.0
"""After so long a file that was not completed is not going to be."""


def private_folder(path: Path) -> None:
    """Make a folder of the user's alone; one that others may enter is closed to them.

    Raises:
        OSError: when that cannot be done, as where the folder is somebody else's.

    """
    path.mkdir(mode=0o700, parents=True, exist_ok=True)
    now = path.stat()
    if now.st_uid != os.geteuid():
        raise PermissionError(f"{path} is another user's")
    if now.st_mode & 0o077:
        path.chmod(0o700)


def _remove_parts(folder: Path, prefix: str) -> None:
    """Remove the unfinished parts of a file that killed runs left."""
    for part in folder.iterdir():
        if part.name.startswith(prefix):
            with suppress(OSError):
                if time.time() - part.lstat().st_mtime > _UNFINISHED_SECONDS:
                    part.unlink()


def replace_file(path: Path, text: str, mode: int = 0o600) -> None:
    """Write a file so that whoever reads it meanwhile has the old one or the new one, whole.

    Args:
        path: of the file, in a folder that is there.
        text: what is to be in it.
        mode: who may do what with it.

    Raises:
        OSError: when it cannot be written; what was there before is left then.

    """
    import tempfile  # noqa: PLC0415 - start-up

    prefix = f".{path.name}.imgload-"
    _remove_parts(path.parent, prefix)
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
