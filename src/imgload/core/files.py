"""Files written in one step, and folders that only their owner may enter."""

from __future__ import annotations

import os
from pathlib import Path


def private_folder(path: Path) -> None:
    """Make a folder of the user's alone; one that others may enter is closed to them.

    Raises:
        OSError: when that cannot be done, as where the folder is somebody else's.

    """
    path.mkdir(mode=0o700, parents=True, exist_ok=True)
    if path.stat().st_mode & 0o077:
        path.chmod(0o700)


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

    descriptor, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    partial = Path(name)
    try:
        with os.fdopen(descriptor, "w") as file:
            file.write(text)
        partial.chmod(mode)
        partial.replace(path)
    except BaseException:
        partial.unlink(missing_ok=True)
        raise
