"""Defaults of options from ``imgload.toml`` files; `options.py` has the variables."""

from __future__ import annotations

import os
import shlex
import sys
from collections.abc import Mapping
from typing import Any, get_args

from imgload.core.errors import UsageError

_NAME = "imgload"
FILE = f"{_NAME}.toml"
SETTINGS: Mapping[str, tuple[str, tuple[type, ...]]] = {
    "cluster": ("cluster", (str, list)),
    "from": ("source", (str,)),
    "transport": ("transport", (str,)),
    "verify": ("verify", (str,)),
    "platform": ("platform", (str,)),
    "strict-platform": ("strict_platform", (bool,)),
    "keep": ("keep", (int,)),
    "cache-size": ("cache_size", (str,)),
}
"""The parameter that each setting is the default of, and the types of its value."""
_TYPES = {str: "a string", list: "a list of strings", bool: "true or false", int: "a number"}
_ENGINES = ("docker", "podman")
_MAX_BYTES = 64 << 10
_HELP = "see the page Configuration of the documentation"


def read_settings() -> dict[str, Any]:
    """Return the defaults of parameters by name: the user's, and over them the project's.

    Raises:
        UsageError: if a file is not valid; names the file and the setting.

    """
    user, project = os.path.join(user_folder(), FILE), project_file()  # noqa: PTH118 - start-up
    settings = _read(user, is_own=True) if os.path.isfile(user) else {}  # noqa: PTH113
    return settings | (_read(project, is_own=False) if project else {})


def user_folder() -> str:
    """Return the same as ``platformdirs.user_config_dir``, whose import takes longer than this."""
    if sys.platform == "darwin":
        return os.path.expanduser(f"~/Library/Application Support/{_NAME}")  # noqa: PTH111
    base = os.environ.get("XDG_CONFIG_HOME", "").strip() or os.path.expanduser("~/.config")  # noqa: PTH111
    return os.path.join(base, _NAME)  # noqa: PTH118


def project_file() -> str | None:
    """Return the file in this folder or the nearest one above it, up to a repository's root.

    Outside a repository, only this folder is searched: others may write to those above.
    """
    try:
        first = folder = os.getcwd()  # noqa: PTH109
    except FileNotFoundError:  # removed meanwhile
        return None
    candidates = []
    while True:
        candidates.append(os.path.join(folder, FILE))  # noqa: PTH118
        if os.path.exists(os.path.join(folder, ".git")):  # noqa: PTH110, PTH118
            break
        parent = os.path.dirname(folder)  # noqa: PTH120
        if parent == folder:
            candidates = [os.path.join(first, FILE)]  # noqa: PTH118
            break
        folder = parent
    return next(filter(os.path.isfile, candidates), None)


def _read(path: str, *, is_own: bool) -> dict[str, Any]:
    import tomllib  # noqa: PLC0415 - start-up, and only if there is a file

    try:
        with open(path, "rb") as file:  # noqa: PTH123
            data = file.read(_MAX_BYTES + 1)
        if len(data) > _MAX_BYTES:
            raise UsageError(f"{path} is larger than 64 KiB", hint=_HELP)
        settings = tomllib.loads(data.decode())
    except OSError as error:
        raise UsageError(f"cannot read {path}: {error.strerror}") from error
    except (ValueError, RecursionError) as error:
        raise UsageError(f"{path} is not valid TOML: {error}", hint=_HELP) from error
    return dict(_parameter(path, *item, is_own=is_own) for item in settings.items())


def _parameter(path: str, name: str, value: object, *, is_own: bool) -> tuple[str, Any]:
    """Return a parameter and its default."""
    if name not in SETTINGS:
        from difflib import get_close_matches  # noqa: PLC0415

        close = get_close_matches(name, SETTINGS, 1)
        hint = f"write {shlex.quote(close[0])}" if close else _HELP
        raise UsageError(f"{path}: no such setting: {name!r:.100}", hint=hint)
    parameter, types = SETTINGS[name]
    is_list = isinstance(value, list) and all(isinstance(item, str) for item in value)
    if type(value) not in types or (isinstance(value, list) and not is_list):
        wanted = " or ".join(_TYPES[kind] for kind in types)
        raise UsageError(f"{path}: {name} must be {wanted}, not {value!r:.100}", hint=_HELP)
    if choices := _choices(name):
        if value not in choices:
            message = f"{path}: {name} must be one of {', '.join(choices)}, not {value!r:.100}"
            raise UsageError(message, hint=_HELP)
    elif name == "from" and not is_own and value not in _ENGINES:
        own = shlex.quote(os.path.join(user_folder(), FILE))  # noqa: PTH118
        hint = f"set it in {own}, or in IMGLOAD_FROM"
        message = f"{path}: from must be docker or podman in a project, not {value!r:.100}"
        raise UsageError(message, hint=hint)
    return parameter, [value] if name == "cluster" and isinstance(value, str) else value


def _choices(name: str) -> tuple[str, ...]:
    """Return the values of a setting that has a fixed set of them."""
    if name == "transport":
        from imgload.sources.base import TransportOption  # noqa: PLC0415

        return get_args(TransportOption)
    if name == "verify":
        from imgload.loader.plan import Verify  # noqa: PLC0415

        return get_args(Verify)
    return ()
