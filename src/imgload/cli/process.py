"""The program's standard streams, and how it ends."""

from __future__ import annotations

import errno
import io
import os
import sys
import traceback
from collections.abc import Callable
from contextlib import suppress
from typing import Any, NoReturn

import click

from imgload.core.errors import visible

FAILED = 1
_ESCAPE = f"\x1b{os.urandom(8).hex()}"
"""Stands for an escape of our own: text from elsewhere cannot have it."""
_UNWRITABLE = {errno.EPIPE, errno.ENOSPC, errno.EIO, errno.EBADF, errno.EDQUOT}


def style(text: str, **options: Any) -> str:
    """Return a text in a colour or a weight, for `say`; options as for ``click.style``."""
    return click.style(shown(text), **options).replace("\x1b", _ESCAPE)  # noqa: TID251 - the one place


def shown(text: str) -> str:
    """Return a text as `say` writes it: only the escapes of `style` are left in it."""
    return "\x1b".join(map(visible, text.split(_ESCAPE)))


def say(text: str, *, err: bool = False, nl: bool = True) -> None:
    """Write a line to stdout or stderr; the only way there, so that no text escapes the check."""
    click.echo(shown(text), err=err, nl=nl)  # noqa: TID251 - as above


def unwritten(error: OSError) -> int:
    """Say that the output could not be written; returns the exit status.

    Raises:
        OSError: `error`, when it is about something else.

    """
    if error.errno not in _UNWRITABLE or error.filename is not None or not _in_print(error):
        raise error
    if error.errno != errno.EPIPE:  # of `| head -1` nobody wants to hear
        say(f"error: the output could not be written: {error.strerror}", err=True)
    return FAILED


def _in_print(error: OSError) -> bool:
    """Whether it was raised by what writes the output, and not by a disk or a connection."""
    *_, (frame, _line) = traceback.walk_tb(error.__traceback__)
    return str(frame.f_globals["__name__"]).startswith(("click.", "rich.", "imgload.cli."))


def open_streams() -> None:
    """Open what the caller has closed (``2>&-``), or a socket would be taken for it.

    A mark that a terminal's encoding lacks becomes a question mark, and no error.
    """
    for name, mode in (("stdin", "r"), ("stdout", "w"), ("stderr", "w")):
        if getattr(sys, name) is None:
            setattr(sys, name, open(os.devnull, mode))  # noqa: PTH123, SIM115
    if isinstance(sys.stdout, io.TextIOWrapper) and sys.stdout.errors == "strict":
        sys.stdout.reconfigure(errors="replace")


def colors() -> bool | None:
    """Return False where no colours are wanted (no-color.org); None for what click decides."""
    plain = os.environ.get("NO_COLOR") or os.environ.get("TERM") == "dumb"
    return False if plain else None


def quickly(run: Callable[[], NoReturn]) -> NoReturn:
    """Run, and end the process as soon as its output is written.

    Taking the interpreter apart costs 20 ms, and nothing of ours waits for it: connections and
    temporary files are closed by whoever opened them. Only an ssh may be left, of a thread that
    nobody waited for.
    """
    open_streams()
    try:
        run()
    except SystemExit as ended:
        status = ended.code if isinstance(ended.code, int) else FAILED
    if tunnel := sys.modules.get("imgload.engines.ssh"):
        tunnel.close_all()
    for stream in (sys.stdout, sys.stderr):
        try:
            stream.flush()
        except OSError as error:
            with suppress(OSError):
                status = status or unwritten(error)
    os._exit(status)
