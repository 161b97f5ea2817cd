"""Writing a file in one step."""

from __future__ import annotations

import os
from pathlib import Path


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
