"""Install a drop-in on PATH, and find the real program behind it."""

from __future__ import annotations

import os
import shlex
import signal
import sys
from collections.abc import Iterator, Sequence
from contextlib import suppress
from pathlib import Path
from typing import NoReturn

from imgload.core.errors import UsageError
from imgload.core.state import replace_file

_MARK = "# imgload in the place of "
"""Identifies our scripts; must not change."""
_CALLS_VARIABLE = "IMGLOAD_HANDED_ON"
_MAX_CALLS = 3
_SCRIPT = """\
#!/bin/sh
{mark}{name}; made by `imgload {name} --install`, and removed by `imgload {name} --uninstall`.
[ -x {python} ] && exec {python} -P -c "from imgload.cli.dropin import serve; serve('{name}')" "$@"
echo "WARNING: the imgload that installed $0 no longer exists; remove that file" >&2
set -f
IFS=:
for folder in $PATH; do
  real=${{folder:-.}}/{name}
  [ -f "$real" ] && [ -x "$real" ] || continue
  head -c 500 "$real" | grep -q "{mark}" || exec "$real" "$@"
done
echo "ERROR: no other {name} is on PATH" >&2
exit 127
"""


def find_real(name: str) -> Path | None:
    """Return the first program with a name on PATH that is not a drop-in."""
    return next((p for p in on_path(name) if not is_drop_in(p)), None)


def on_path(name: str) -> Iterator[Path]:
    """Yield the programs with a name on PATH, in order of precedence."""
    for folder in os.get_exec_path():
        path = Path(folder or ".", name)
        if os.path.isfile(path) and os.access(path, os.X_OK):  # noqa: PTH113 - Path's raises
            yield path


def is_drop_in(path: Path) -> bool:
    with suppress(OSError), path.open("rb") as file:
        return _MARK.encode() in file.read(len(_SCRIPT))
    return False


def exec_real(path: Path, arguments: Sequence[str]) -> NoReturn:
    """Replace this process; UsageError if that fails, or if the program keeps calling imgload."""
    calls = os.environ.get(_CALLS_VARIABLE, "")
    count = int(calls) + 1 if calls.isdecimal() else 1
    if count > _MAX_CALLS:
        command = f"type -a {shlex.quote(path.name)}"
        hint = f"remove it, or put the real program before it on PATH: {command}"
        raise UsageError(f"{path} is not the real program: it calls imgload again", hint=hint)
    signal.signal(signal.SIGPIPE, signal.SIG_DFL)
    environ = {**os.environ, _CALLS_VARIABLE: str(count)}
    try:
        os.execve(path, [str(path), *arguments], environ)  # noqa: S606
    except OSError as error:
        hint = f"ls -lL {shlex.quote(str(path))}"
        raise UsageError(f"cannot run {path}: {error.strerror}", hint=hint) from error


def install(name: str, takes: str, folder: Path) -> list[str]:
    """Write a drop-in to a folder, and return messages for the user."""
    path = _path(name, folder, hint=f"mkdir -p {shlex.quote(str(folder.expanduser()))}")
    if path.is_symlink() or (path.exists() and not is_drop_in(path)):
        hint = "choose another folder, early on PATH"
        raise UsageError(f"{path} exists, and is not imgload's", hint=hint)
    text = _SCRIPT.format(mark=_MARK, name=name, python=shlex.quote(sys.executable))
    try:
        replace_file(path, text, mode=0o755)
    except OSError as error:
        hint = "choose a folder of your own, early on PATH"
        raise UsageError(f"cannot write {path}: {error.strerror}", hint=hint) from error
    real, first = find_real(name), next(on_path(name), None)
    rest = f"everything else goes to {real}" if real else f"no other {name} is on PATH"
    messages = [f"{path}: imgload does `{takes}`, and {rest}"]
    if first is None or first.resolve() != path.resolve():
        before = f" before {first.parent}" if first else ""
        messages += [
            f"note: `{name}` does not yet run imgload; put this folder on PATH{before}:",
            f"  export PATH={shlex.quote(str(path.parent))}:$PATH",
        ]
    return messages


def uninstall(name: str, folder: Path) -> Path:
    """Remove a drop-in from a folder, and return its path."""
    hint = f"list the programs with that name: type -a {shlex.quote(name)}"
    path = _path(name, folder, hint)
    if path.is_symlink() or not is_drop_in(path):
        problem = "is not imgload's" if os.path.lexists(path) else "does not exist"
        raise UsageError(f"{path} {problem}", hint=hint)
    try:
        path.unlink()
    except OSError as error:
        hint = f"check the folder's owner: ls -la {shlex.quote(str(path.parent))}"
        raise UsageError(f"cannot remove {path}: {error.strerror}", hint=hint) from error
    return path


def _path(name: str, folder: Path, hint: str) -> Path:
    folder = folder.expanduser()
    if not folder.is_dir():
        raise UsageError(f"no such folder: {folder}", hint=hint)
    return folder.absolute() / name
