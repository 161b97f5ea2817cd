"""The standard streams and the exit of the process."""

from __future__ import annotations

import codecs
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
_SIGPIPE = 141
"""The exit status of a program that a closed pipe ends, in shells: 128 + SIGPIPE."""
_ESCAPE = f"\x1b{os.urandom(8).hex()}"
"""Replaces an escape of `style`; random, so that no other text can contain it."""
_ASCII = {"✓": "+", "✗": "x", "●": "*", "·": ".", "≠": "!", "…": "~", "─": "-"}
"""Our characters that a terminal may lack; others become question marks."""
_OUTPUT_ERRORS = {errno.EPIPE, errno.ENOSPC, errno.EIO, errno.EBADF, errno.EDQUOT}


def style(text: str, **options: Any) -> str:
    """Return a styled text for `say`; options as for ``click.style``."""
    return click.style(sanitize(text), **options).replace("\x1b", _ESCAPE)  # noqa: TID251 - the wrapper


def sanitize(text: str) -> str:
    """Return a text without control characters, except for line ends and escapes of `style`."""
    return "\x1b".join(map(visible, text.split(_ESCAPE)))


def say(text: str, *, err: bool = False, nl: bool = True) -> None:
    """Print a sanitized text to stdout or stderr; no other function prints."""
    try:
        click.echo(sanitize(text), err=err, nl=nl)  # noqa: TID251 - the wrapper
    except BrokenPipeError:  # click would exit with 1, the status of a failed node
        raise click.exceptions.Exit(_SIGPIPE) from None


def report_write_error(error: OSError) -> int:
    """Print that the output could not be written, or raise an error with another cause."""
    *_, (frame, _line) = traceback.walk_tb(error.__traceback__)
    module = str(frame.f_globals["__name__"])  # not a disk or a connection
    is_output = module.startswith(("click.", "rich.", "imgload.cli."))
    if error.errno not in _OUTPUT_ERRORS or error.filename is not None or not is_output:
        raise error
    if error.errno != errno.EPIPE:  # `| head -1` is no error
        say(f"error: the output could not be written: {error.strerror}", err=True)
    return FAILED


def _open_streams() -> None:
    """Open standard streams that the caller closed (``2>&-``): a socket would take their place."""
    for name, mode in (("stdin", "r"), ("stdout", "w"), ("stderr", "w")):
        if getattr(sys, name) is None:
            setattr(sys, name, open(os.devnull, mode))  # noqa: PTH123, SIM115
    codecs.register_error("imgload", _in_ascii)
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="imgload")


def _in_ascii(error: UnicodeError) -> tuple[str, int]:
    """Replace characters that an encoding lacks; an error handler of `codecs`."""
    if not isinstance(error, UnicodeEncodeError):
        raise error
    characters = error.object[error.start : error.end]
    return "".join(_ASCII.get(character, "?") for character in characters), error.end


def colors() -> bool | None:
    """Return whether the environment disables or forces colours; None if it does neither.

    See no-color.org and force-color.org.
    """
    if os.environ.get("NO_COLOR") or os.environ.get("TERM") == "dumb":
        return False
    return True if os.environ.get("FORCE_COLOR") else None


def exit_fast(run: Callable[[], NoReturn]) -> NoReturn:
    """Call `run`, and exit as soon as its output is written.

    Skips the interpreter's finalization, which takes 20 ms and does nothing for imgload: every
    connection and temporary file is closed by its owner. Only an ssh process may be left, if the
    thread that started it did not end.
    """
    _open_streams()
    try:
        run()
    except SystemExit as request:
        status = request.code if isinstance(request.code, int) else FAILED
    if tunnel := sys.modules.get("imgload.engines.ssh"):
        tunnel.close_all()
    for stream in (sys.stdout, sys.stderr):
        try:
            stream.flush()
        except OSError as error:
            with suppress(OSError):
                status = status or report_write_error(error)
    os._exit(status)
