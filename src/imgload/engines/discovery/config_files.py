"""Other programs' settings files, which may hold anything."""

from __future__ import annotations

import os
import re
import stat
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from imgload.core.errors import EngineUnreachable

_LONGEST = 4 << 20
_AT_ONCE = getattr(os, "O_NONBLOCK", 0)
"""A pipe in a file's place is opened without waiting for its other end."""
_COMMENT = r"(?m)^[ \t]*#.*$"


def home_folder(environ: Mapping[str, str]) -> Path:
    """Return the user's home, as ``HOME`` has it."""
    return Path(environ["HOME"]) if environ.get("HOME") else Path.home()


def read_json(path: Path) -> Any:
    """Return a JSON document; None where there is no such file.

    Raises:
        EngineUnreachable: when the file cannot be read or understood.

    """
    text = _read(path)
    if text is None:
        return None
    from imgload.oci.jsontext import load_json  # noqa: PLC0415 - start-up

    try:
        return load_json(text)
    except ValueError as error:
        raise _unreadable(path, f"it is not valid JSON: {error}") from error


def read_toml(path: Path, words: tuple[str, ...]) -> Any:
    """Return a TOML document; None where there is none, or none of some words outside comments.

    Raises:
        EngineUnreachable: when the file cannot be read or understood.

    """
    text = _read(path)
    if text is None or not any(word in re.sub(_COMMENT, "", text) for word in words):
        return None
    import tomllib  # noqa: PLC0415 - start-up: most such files are comments only

    try:
        return tomllib.loads(text)
    except (ValueError, RecursionError) as error:
        raise _unreadable(path, f"it is not valid TOML: {error}") from error


def dig(document: Any, *keys: str) -> Any:
    """Return what is found key by key, or None where there is nothing of the kind."""
    for key in keys:
        document = document.get(key) if isinstance(document, dict) else None
    return document


def text_at(document: Any, *keys: str) -> str:
    """Return the string that is found key by key, or an empty one."""
    found = dig(document, *keys)
    return found if isinstance(found, str) else ""


def _read(path: Path) -> str | None:
    try:
        with os.fdopen(os.open(path, os.O_RDONLY | _AT_ONCE), "rb") as file:
            if not stat.S_ISREG(os.fstat(file.fileno()).st_mode):
                raise _unreadable(path, "it is not a file")
            data = file.read(_LONGEST + 1)
    except (FileNotFoundError, NotADirectoryError):
        return None
    except (OSError, ValueError) as error:
        raise _unreadable(path, getattr(error, "strerror", None) or str(error)) from error
    if len(data) > _LONGEST:
        raise _unreadable(path, f"it is longer than {_LONGEST >> 20} MiB")
    return data.decode(errors="replace")


def _unreadable(path: Path, why: str) -> EngineUnreachable:
    return EngineUnreachable(f"{path} cannot be used: {why}", hint="correct it, or remove it")
