"""The real program behind a drop-in, and our own file of its name on PATH."""

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
_ROUNDS = "IMGLOAD_HANDED_ON"
_MOST_ROUNDS = 3
_SCRIPT = """\
#!/bin/sh
{mark}{name}; made by `imgload {name} --install`, and removed by `imgload {name} --uninstall`.
[ -x {python} ] && exec {python} -P -m imgload.cli.{name} "$@"
echo "ERROR: imgload, which made $0, is gone; remove that file" >&2
exit 127
"""


def find_real(name: str) -> Path | None:
    """Return the first program of a name on PATH that is not ours."""
    return next((p for p in on_path(name) if not is_ours(p)), None)


def on_path(name: str) -> Iterator[Path]:
    """Yield the programs of a name on PATH, first the one that is called."""
    for folder in os.get_exec_path():
        path = Path(folder or ".", name)
        if os.path.isfile(path) and os.access(path, os.X_OK):  # noqa: PTH113 - Path's raises
            yield path


def is_ours(path: Path) -> bool:
    """Whether a file was written by `install`."""
    with suppress(OSError), path.open("rb") as file:
        return _MARK.encode() in file.read(len(_SCRIPT))
    return False


def hand_over(path: Path, arguments: Sequence[str]) -> NoReturn:
    """Become another program.

    Raises:
        UsageError: when it is one that calls us back for ever.
        OSError: when it cannot be run.

    """
    rounds = os.environ.get(_ROUNDS, "")
    count = int(rounds) + 1 if rounds.isdecimal() else 1
    if count > _MOST_ROUNDS:
        raise UsageError(
            f"{path} is not the real program: it leads back to imgload",
            hint="remove it, or put the real one before it on PATH:"
            f" type -a {shlex.quote(path.name)}",
        )
    signal.signal(signal.SIGPIPE, signal.SIG_DFL)
    os.execve(path, [str(path), *arguments], {**os.environ, _ROUNDS: str(count)})  # noqa: S606


def install(name: str, takes: str, folder: Path) -> list[str]:
    """Write a program of that name which is imgload, and return what the user should know.

    Raises:
        UsageError: when there is another file in its place, or it cannot be written.

    """
    path = _place(name, folder, f"mkdir -p {shlex.quote(str(folder.expanduser()))}")
    if path.is_symlink() or (path.exists() and not is_ours(path)):
        raise UsageError(
            f"{path} is there, and not imgload's", hint="choose another folder, early on PATH"
        )
    text = _SCRIPT.format(mark=_MARK, name=name, python=shlex.quote(sys.executable))
    try:
        replace_file(path, text, mode=0o755)
    except OSError as error:
        hint = "choose a folder of your own, early on PATH"
        raise UsageError(f"cannot write {path}: {error.strerror}", hint=hint) from error
    return list(_advice(name, takes, path))


def uninstall(name: str, folder: Path) -> Path:
    """Remove what `install` wrote, and return where it was.

    Raises:
        UsageError: when there is no such file, or it is another's.

    """
    which = f"see which there are: type -a {shlex.quote(name)}"
    path = _place(name, folder, which)
    if path.is_symlink() or not is_ours(path):
        what = "is not imgload's" if path.exists() or path.is_symlink() else "is not there"
        raise UsageError(f"{path} {what}", hint=which)
    try:
        path.unlink()
    except OSError as error:
        hint = f"see whose it is: ls -la {shlex.quote(str(path.parent))}"
        raise UsageError(f"cannot remove {path}: {error.strerror}", hint=hint) from error
    return path


def _place(name: str, folder: Path, hint: str) -> Path:
    folder = folder.expanduser()
    if not folder.is_dir():
        raise UsageError(f"no such folder: {folder}", hint=hint)
    return folder.absolute() / name


def _advice(name: str, takes: str, path: Path) -> Iterator[str]:
    real, called = find_real(name), next(on_path(name), None)
    rest = f"everything else goes to {real}" if real else f"there is no {name} for anything else"
    yield f"{path}: imgload does `{takes}`, and {rest}"
    if called is None or called.resolve() != path.resolve():
        before = f" before {called.parent}" if called else ""
        yield f"note: `{name}` is not yet this one; put its folder on PATH{before}:"
        yield f"  export PATH={shlex.quote(str(path.parent))}:$PATH"
