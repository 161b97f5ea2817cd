"""What machines read on stdout: reports, and failures in the same shape."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from itertools import pairwise, takewhile
from typing import Any

import click

from imgload.cli.process import say
from imgload.cli.text import show_report
from imgload.core.errors import JSON_VERSION, ImgloadError, error_json
from imgload.loader.report import LoadFailed, Report

_FLAG = re.compile(r"--output|-[a-zA-Z]*o")
_JOINED = re.compile(r"(?:--output=|-[a-zA-Z]*?o=?)(\w+)")
_MACHINES = {"json", "junit"}


def asked_for(arguments: Sequence[str]) -> str:
    """Return the output format in arguments that click could not make sense of."""
    options = list(takewhile("--".__ne__, arguments))
    values = [value for flag, value in pairwise(options) if _FLAG.fullmatch(flag)]
    values += [match.group(1) for word in options if (match := _JOINED.fullmatch(word))]
    return next((value for value in reversed(values) if value in _MACHINES), "text")


def show_json(document: dict[str, Any], *, indent: int | None = 2) -> None:
    """Print one document; on one line without indentation."""
    say(json.dumps(document, indent=indent))


def show(report: Report, output: str, *, quiet: bool) -> None:
    """Print a report as it was asked for."""
    if output == "json":
        show_json(report.to_json())
    elif output == "junit":
        from imgload.cli.junit import junit  # noqa: PLC0415 - start-up

        say(junit(report))
    else:
        show_report(report, quiet=quiet)


@contextmanager
def failures(output: str, *, quiet: bool, indent: int | None = 2) -> Iterator[None]:
    """Show what fails within, as it was asked for; an error as text is left to the caller."""
    try:
        yield
    except LoadFailed as error:
        show(error.report, output, quiet=quiet)
        raise click.exceptions.Exit(error.exit_status) from error
    except ImgloadError as error:
        if output == "text":
            raise
        _show_error(error, output, indent)
        raise click.exceptions.Exit(error.exit_status) from error


def _show_error(error: ImgloadError, output: str, indent: int | None) -> None:
    if output == "json":
        told = {"version": JSON_VERSION, "images": [], "ok": False, "error": error_json(error)}
        show_json(told, indent=indent)
        return
    from imgload.cli.junit import junit_error  # noqa: PLC0415 - start-up

    say(junit_error(error))
