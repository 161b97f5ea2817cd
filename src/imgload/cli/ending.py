"""The program's standard streams, and how it ends."""

from __future__ import annotations

import errno
import os
import sys
from collections.abc import Callable
from contextlib import suppress
from typing import NoReturn

import click

FAILED = 1
_UNWRITABLE = {errno.EPIPE, errno.ENOSPC, errno.EIO, errno.EBADF, errno.EDQUOT}


def unwritten(error: OSError) -> int:
    """Say that the output could not be written; returns the exit status.

    Raises:
        OSError: `error`, when it is about something else.

    """
    if error.errno not in _UNWRITABLE or error.filename is not None:
        raise error
    if error.errno != errno.EPIPE:  # of `| head -1` nobody wants to hear
        click.echo(f"error: the output could not be written: {error.strerror}", err=True)
    return FAILED


def open_streams() -> None:
    """Open what the caller has closed (``2>&-``), or a socket would be taken for it."""
    for name, mode in (("stdin", "r"), ("stdout", "w"), ("stderr", "w")):
        if getattr(sys, name) is None:
            setattr(sys, name, open(os.devnull, mode))  # noqa: PTH123, SIM115


def quickly(run: Callable[[], NoReturn]) -> NoReturn:
    """Run, and end the process as soon as its output is written.

    Taking the interpreter apart costs 20 ms, and nothing of ours waits for it: connections,
    temporary files and tunnels are closed by whoever opened them.
    """
    open_streams()
    try:
        run()
    except SystemExit as ended:
        status = ended.code if isinstance(ended.code, int) else FAILED
    for stream in (sys.stdout, sys.stderr):
        try:
            stream.flush()
        except OSError as error:
            with suppress(OSError):
                status = status or unwritten(error)
    os._exit(status)
