"""JSON on stdout: reports, and failures in the same shape."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import click

from imgload.cli.text import show_report
from imgload.errors import ImgloadError, LoadFailed
from imgload.report import JSON_VERSION, error_json


def show_json(document: dict[str, Any]) -> None:
    """Print one document."""
    click.echo(json.dumps(document, indent=2))


@contextmanager
def failures(output: str, *, quiet: bool) -> Iterator[None]:
    """Show what fails within, as it was asked for; an error as text is left to the caller."""
    try:
        yield
    except ImgloadError as error:
        if output == "json":
            show_json(_document(error))
            raise click.exceptions.Exit(error.exit_status) from error
        if isinstance(error, LoadFailed):
            show_report(error.report, quiet=quiet)
        raise


def _document(error: ImgloadError) -> dict[str, Any]:
    if isinstance(error, LoadFailed):
        return error.report.to_json()
    return {"version": JSON_VERSION, "images": [], "ok": False, "error": error_json(error)}
