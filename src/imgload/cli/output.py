"""Output for machines on stdout: reports, and errors in the same shape."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from itertools import pairwise, takewhile
from typing import TYPE_CHECKING, Any

import click

from imgload.cli.process import FAILED, say
from imgload.cli.text import show_report
from imgload.core.errors import JSON_VERSION, ImgloadError, error_json
from imgload.loader.report import LoadFailed, Report

if TYPE_CHECKING:
    from xml.etree.ElementTree import Element

_FLAG = re.compile(r"--output|-[a-zA-Z]*o")
_FLAG_WITH_VALUE = re.compile(r"(?:--output=|-[a-zA-Z]*?o=?)(\w+)")


def requested_format(arguments: Sequence[str]) -> str:
    """Return the output format in arguments that click rejected: text, json or junit."""
    options = list(takewhile("--".__ne__, arguments))
    values = [value for flag, value in pairwise(options) if _FLAG.fullmatch(flag)]
    values += [match[1] for word in options if (match := _FLAG_WITH_VALUE.fullmatch(word))]
    return next((value for value in reversed(values) if value in {"json", "junit"}), "text")


def show_json(document: dict[str, Any], *, indent: int | None = 2) -> None:
    """Print a document; on one line if `indent` is None."""
    say(json.dumps(document, indent=indent))


def show(report: Report, output: str, *, quiet: bool) -> None:
    """Print the report of a load or verification in an output format."""
    if output == "json":
        show_json(report.to_json())
    elif output == "junit":
        say(_junit(report))
    else:
        show_report(report, quiet=quiet)


def show_result(
    result: Any, output: str, show_text: Callable[[Any], None], status: int = FAILED
) -> None:
    """Print a result as JSON or text, and exit with `status` unless it is ok."""
    if output == "json":
        show_json(result.to_json())
    else:
        show_text(result)
    if not result.ok:
        raise click.exceptions.Exit(status)


@contextmanager
def failures(output: str, *, quiet: bool, indent: int | None = 2) -> Iterator[None]:
    """Print errors raised within in an output format, and exit with their status.

    Raises:
        ImgloadError: if the format is text; only the report of a LoadFailed is printed here.

    """
    try:
        yield
    except LoadFailed as error:
        show(error.report, output, quiet=quiet)
        raise click.exceptions.Exit(error.exit_status) from error
    except ImgloadError as error:
        if output == "text":
            raise
        if output == "json":
            document = {"version": JSON_VERSION, "images": [], "ok": False}
            show_json({**document, "error": error_json(error)}, indent=indent)
        else:
            say(_junit(error))
        raise click.exceptions.Exit(error.exit_status) from error


def _junit(result: Report | ImgloadError) -> str:
    """Return JUnit XML for CI servers: a suite for each image, a case for each node."""
    from xml.etree.ElementTree import Element, SubElement, indent, tostring  # noqa: PLC0415

    root = Element("testsuites", name="imgload")
    if isinstance(result, ImgloadError):
        suite = SubElement(root, "testsuite", name="imgload", tests="1", errors="1", failures="0")
        case = SubElement(suite, "testcase", classname="imgload", name="verify")
        _set_error(SubElement(case, "error"), result)
    for image in result.images if isinstance(result, Report) else ():
        failed = str(sum(not node.ok for node in image.nodes))
        counts = {"tests": str(len(image.nodes)), "errors": "0", "failures": failed}
        suite = SubElement(root, "testsuite", counts, name=image.reference)
        for node in image.nodes:
            names = {"classname": image.reference, "name": node.node}
            case = SubElement(suite, "testcase", names, time=f"{node.seconds:.3f}")
            if node.error:
                _set_error(SubElement(case, "failure"), node.error)
    indent(root)
    return tostring(root, encoding="unicode", xml_declaration=True)


def _set_error(element: Element, error: ImgloadError) -> None:
    element.attrib |= {"type": error.kind, "message": error.message}
    element.text = f"try: {error.hint}" if error.hint else ""
