"""Read the settings files of other programs, whose content is untrusted."""

from __future__ import annotations

import os
import re
import stat
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from imgload.core.errors import EngineUnreachable

_MAX_BYTES = 4 << 20
_FLAGS = os.O_RDONLY | getattr(os, "O_NONBLOCK", 0)
"""Opening a named pipe must not wait for a writer."""
_COMMENT = r"(?m)^[ \t]*#.*$"


def home_folder(environ: Mapping[str, str]) -> Path:
    """Return the user's home folder, which ``HOME`` may name."""
    return Path(environ["HOME"]) if environ.get("HOME") else Path.home()


def read_json(path: Path) -> Any:
    """Return a JSON document, or None if the file does not exist; raise EngineUnreachable."""
    text = _read(path)
    if text is None:
        return None
    from imgload.oci.document import load_json  # noqa: PLC0415 - start-up

    return _parse(path, load_json, text, "JSON")


def read_toml(path: Path, words: tuple[str, ...]) -> Any:
    """Return a TOML document, or None if no word occurs outside comments; raise EngineUnreachable.

    Most such files are comments only, and importing tomllib takes time.
    """
    text = _read(path)
    if text is None or not any(word in re.sub(_COMMENT, "", text) for word in words):
        return None
    import tomllib  # noqa: PLC0415 - start-up

    return _parse(path, tomllib.loads, text, "TOML")


def _parse(path: Path, parser: Callable[[str], Any], text: str, language: str) -> Any:
    try:
        return parser(text)
    except (ValueError, RecursionError) as error:
        raise _unusable(path, f"it is not valid {language}: {error}") from error


def dig(document: Any, *keys: str) -> Any:
    """Return the value at nested keys of a parsed document, or None."""
    for key in keys:
        document = document.get(key) if isinstance(document, dict) else None
    return document


def text_at(document: Any, *keys: str) -> str:
    """Return the string at nested keys of a parsed document, or an empty string."""
    value = dig(document, *keys)
    return value if isinstance(value, str) else ""


def _read(path: Path) -> str | None:
    try:
        with os.fdopen(os.open(path, _FLAGS), "rb") as file:
            if not stat.S_ISREG(os.fstat(file.fileno()).st_mode):
                raise _unusable(path, "it is not a file")
            data = file.read(_MAX_BYTES + 1)
    except (FileNotFoundError, NotADirectoryError):
        return None
    except (OSError, ValueError) as error:
        raise _unusable(path, getattr(error, "strerror", None) or str(error)) from error
    if len(data) > _MAX_BYTES:
        raise _unusable(path, f"it is longer than {_MAX_BYTES >> 20} MiB")
    return data.decode(errors="replace")


def _unusable(path: Path, why: str) -> EngineUnreachable:
    return EngineUnreachable(f"{path} cannot be used: {why}", hint="correct or remove the file")
