"""Results as text or documents on stdout; notes and progress on stderr."""

from __future__ import annotations

import json
import os
import re
import sys
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing, contextmanager
from functools import cached_property, partial
from itertools import pairwise, takewhile
from typing import TYPE_CHECKING, Any

import click

from imgload.cli.process import FAILED, sanitize, say, style
from imgload.core.environment import in_ci
from imgload.core.errors import JSON_VERSION, ImgloadError, error_json, one_line, visible
from imgload.core.units import size_text
from imgload.loader.events import BytesSent, Event, NodeDone, Note, SendingEnded, SendingStarted
from imgload.loader.report import (
    ImageResult,
    LoadFailed,
    NodeResult,
    Report,
    Restart,
    RestartFailed,
)

if TYPE_CHECKING:
    from xml.etree.ElementTree import Element

    from rich.progress import Progress, Task, TaskID

_FLAG = re.compile(r"--output|-[a-zA-Z]*o")
_FLAG_WITH_VALUE = re.compile(r"(?:--output=|-[a-zA-Z]*?o=?)(\w+)")
_DIGEST = re.compile(r"\b([0-9a-f]{12})[0-9a-f]{28,}\b")
DONE = {"present": "already there", "tagged": "tagged", "delta": "loaded", "full": "loaded"}
_PLANNED = dict(DONE, tagged="would be tagged", delta="would be sent in part", full="would be sent")
_KEYS: dict[str, Sequence[str]] = {
    "images": ("nodes", "images"),
    "prune": ("nodes",),
    "clusters": ("clusters", "engines", "errors"),
    "doctor": ("findings",),
    **dict.fromkeys(("registry", "connect", "disconnect"), ("nodes",)),
    "serve": (),
}
"""The lists in the document of a command; ``images`` in that of all others."""
TIME_WIDTH = len("00:00:00 ")
"""Before each line of watch and serve."""
_MIN_NAME = 20
_MIN_SIZE = 64 << 10
"""Bytes; smaller transfers are mostly config and manifest, whose size no source knows."""


def requested_format(arguments: Sequence[str]) -> str:
    """Return the output format in arguments that click rejected: text, json or junit."""
    options = list(takewhile("--".__ne__, arguments))
    values = [value for flag, value in pairwise(options) if _FLAG.fullmatch(flag)]
    values += [match[1] for word in options if (match := _FLAG_WITH_VALUE.fullmatch(word))]
    return next((value for value in reversed(values) if value in {"json", "junit"}), "text")


def show_json(document: dict[str, Any], *, indent: int | None = 2) -> None:
    say(json.dumps(document, indent=indent))


def show_result(
    result: Any, output: str, show_text: Callable[[Any], None], status: int = FAILED
) -> None:
    """Print a result in an output format, and exit with `status` unless it is ok."""
    if output == "json":
        show_json(result.to_json())
    elif output == "junit":
        say(_junit(result))
    else:
        show_text(result)
    if not result.ok:
        raise click.exceptions.Exit(status)


@contextmanager
def failures(
    output: str, *, quiet: bool, indent: int | None = 2, command: str = ""
) -> Iterator[None]:
    """Print errors raised within in an output format, and exit with their status.

    The document has the keys of the command's own, by default of the one that runs. As text, only
    the report of a LoadFailed or RestartFailed is printed here, and other errors are raised.
    """
    try:
        yield
    except (LoadFailed, RestartFailed) as error:
        show_result(error.report, output, partial(show_report, quiet=quiet), error.exit_status)
    except ImgloadError as error:
        if output == "text":
            raise
        if output == "json":
            context = click.get_current_context(silent=True)
            name = command or (context and context.info_name) or ""
            keys: dict[str, Any] = {key: [] for key in _KEYS.get(name, ("images",))}
            document = {"version": JSON_VERSION, **keys, "ok": False}
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
            case = SubElement(suite, "testcase", classname=image.reference, name=node.node)
            if node.error:
                _set_error(SubElement(case, "failure"), node.error)
    indent(root)
    return tostring(root, encoding="unicode", xml_declaration=True)


def _set_error(element: Element, error: ImgloadError) -> None:
    element.attrib |= {"type": error.kind, "message": error.message}
    element.text = f"try: {error.hint}" if error.hint else ""


def show_report(report: Report, *, quiet: bool, err: bool = False) -> None:
    """Print each image with its nodes; if quiet, only failures, on stderr."""
    for image in report.images:
        failed = [node for node in image.nodes if node.error or not (node.ok or report.dry_run)]
        if quiet and not failed:
            continue
        say(_title(image.reference, image), err=err or quiet)
        for node in failed if quiet else image.nodes:
            say(f"  {_line(node, dry_run=report.dry_run)}", err=err or quiet)
    for error in report.errors:
        text = f"{style('✗', fg='red')} {error.message}{hint_text(error.hint)}"
        say(text, err=err or quiet)
    for line in restart_lines(report.restart, quiet=quiet, dry_run=report.dry_run):
        say(line, err=err or quiet)
    for image in () if quiet else report.images:
        if image.reference.endswith(":latest"):
            note = f"note: the kubelet pulls {image.reference} each time; set imagePullPolicy:"
            say(f"{note} IfNotPresent in the pod spec, or use another tag", err=True)


def restart_lines(
    restart: Restart | None, *, quiet: bool = False, dry_run: bool = False
) -> Iterator[str]:
    """Yield a line for each restarted workload, and the error; if quiet, only the error."""
    if restart is None:
        return
    mark = "- would restart" if dry_run else f"{style('✓', fg='green')} restarted"
    for workload in () if quiet else restart.workloads:
        yield f"{mark} {workload}"
    if restart.error:
        yield f"{style('✗', fg='red')} {restart.error.message}{hint_text(restart.error.hint)}"
    elif not (quiet or restart.workloads):
        done = ("would restart", "changes") if dry_run else ("restarted", "changed")
        yield f"- {done[0]} nothing: no workload uses an image that {done[1]}"


def shorten(name: str, reserved: int) -> str:
    """Return a name that fits on a line of the terminal beside `reserved` characters.

    It is complete without a terminal; on one, digests in it are cut as well.
    """
    if not sys.stdout.isatty():
        return one_line(name)
    from shutil import get_terminal_size  # noqa: PLC0415 - start-up

    return cut(short_name(name), get_terminal_size().columns - reserved)


def cut(name: str, width: int) -> str:
    """Shorten a name in the middle, but never to less than 20 characters."""
    width = max(width, _MIN_NAME)
    half = (width - 1) // 2
    return name if len(name) <= width else f"{name[: width - 1 - half]}…{name[-half:]}"


def _line(node: NodeResult, *, dry_run: bool) -> str:
    if dry_run and not node.error:
        size, least = node.bytes_missing, size_text(_MIN_SIZE)
        amount = size_text(size) if size and size >= _MIN_SIZE else f"less than {least}"
        return f"- {node.node}: {_PLANNED[node.action or 'full']}{f' ({amount})' if size else ''}"
    if not node.ok:
        return failure_text(node.node, node.error_text, node.error.hint if node.error else "")
    sent = f", {size_text(node.bytes_sent)} in {node.seconds:.1f} s" if node.bytes_sent else ""
    replaced = f", replaced {node.replaced.short}" if node.replaced else ""
    result = f"{DONE[node.action or 'full']}{sent}{replaced}; {_verified(node)}"
    return f"{style('✓', fg='green')} {shorten(node.node, len(result) + 6)}: {result}"


def at_node(node: str, message: str) -> str:
    """Return a message about a node that starts with the node's name, once."""
    return message if message.startswith((f"{node} ", f"{node}: ")) else f"{node}: {message}"


def failure_text(node: str, message: str, hint: str) -> str:
    return f"{style('✗', fg='red')} {at_node(node, message)}{hint_text(hint)}"


def hint_text(hint: str) -> str:
    """Return the ``try:`` line to append to a message; empty without a hint."""
    return f"\n      {style('try:', fg='cyan')} {hint}" if hint else ""


def _verified(node: NodeResult) -> str:
    more = ", content re-hashed" if node.proof and node.proof.content else ""
    more += ", files compared" if node.proof and node.proof.files else ""
    more += ", content partial" if node.content == "partial" else ""
    more += ", pinned" if node.proof and node.proof.pinned else ""
    by = "" if node.proof and node.proof.cri else " without CRI"
    return f"verified{by}{more}"


def short_name(name: str) -> str:
    """Return an image name for one line of a terminal, with digests cut to twelve digits."""
    return _DIGEST.sub(r"\1…", one_line(name))


def show_built(report: Report) -> None:
    """Print one line about an image that every node has under all of its names."""
    image = report.images[0]
    results = [node for image in report.images for node in image.nodes]
    size = max(node.bytes_sent for node in results)
    sent = f", {size_text(size)}" if size else ""
    verified = " or ".join(sorted({_verified(node) for node in results}))
    name, count = short_name(image.reference), str(len(image.nodes))
    say(summary_text(name, image, count, f"{sent}; {verified}"), err=True)


def summary_text(name: str, image: ImageResult, count: str, result: str, indent: int = 0) -> str:
    """Return a line about an image on all nodes, which is printed behind `indent` characters."""
    nodes = f"{count} node{'' if len(image.nodes) == 1 else 's'}"
    return _title(name, image, f" -> {nodes}{result}", indent)


def _title(name: str, image: ImageResult, rest: str = "", indent: int = 0) -> str:
    rest = f" {image.image_id.short}{rest}" if image.image_id else rest
    return style(shorten(name, len(rest) + indent), bold=True) + rest


@contextmanager
def watching(*, silent: bool) -> Iterator[Callable[[Event], None]]:
    """Yield a callback that shows events: a bar for each node on a terminal, lines elsewhere."""
    is_terminal = sys.stderr.isatty() and os.environ.get("TERM") != "dumb" and not in_ci()
    if is_terminal and not silent:
        with closing(_Bars()) as bars:
            yield bars.on_event
    else:
        yield (lambda _: None) if silent else _print_line


def note_text(note: Note) -> str:
    """Return the line of a note; the word ``warning`` is in colour."""
    return (
        f"{style('warning:', fg='yellow', bold=True) if note.is_warning else 'note:'} {note.text}"
    )


def _print_line(event: Event) -> None:
    if isinstance(event, Note):
        say(note_text(event), err=True)
    elif isinstance(event, SendingStarted):
        names = short_name(", ".join(event.references))
        size = f" ({size_text(event.size)})" if event.size >= _MIN_SIZE else ""
        say(f"sending {names}{size} to {event.node}", err=True)


class _Bars:
    """The images that are sent, and a bar for each node; rich is imported for the first one."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._tasks: dict[str, TaskID] = {}
        self._title = ""

    @cached_property
    def _progress(self) -> Progress:
        from rich import progress  # noqa: PLC0415 - start-up
        from rich.console import Console, RenderableType  # noqa: PLC0415
        from rich.text import Text  # noqa: PLC0415

        def title() -> Text:
            return Text(visible(self._title), style="bold", no_wrap=True, overflow="ellipsis")

        class Titled(progress.Progress):
            def get_renderables(self) -> Iterator[RenderableType]:
                yield title()
                yield from super().get_renderables()

        columns = (
            progress.TextColumn("{task.fields[node]}", markup=False),
            progress.TextColumn("{task.description:<12}", markup=False),
            progress.BarColumn(complete_style="green", finished_style="green", pulse_style="dim"),
            progress.TextColumn("{task.fields[amount]}", markup=False),
        )
        return Titled(*columns, console=Console(stderr=True), transient=True)

    def on_event(self, event: Event) -> None:
        with self._lock:
            match event:
                case Note() if not self._tasks:
                    _print_line(event)
                case Note():
                    from rich.text import Text  # noqa: PLC0415 - imported by _progress

                    self._progress.console.print(Text.from_ansi(sanitize(note_text(event))))
                case SendingStarted(node=node):
                    self._title = ", ".join(map(short_name, event.references))
                    if node in self._tasks:
                        self._progress.remove_task(self._tasks[node])
                    self._tasks[node] = self._progress.add_task(
                        "saving",
                        total=None,  # so that the bar moves until the engine sends
                        node=cut(visible(node), self._progress.console.width // 3),
                        size=event.size,
                        amount=size_text(event.size) if event.size >= _MIN_SIZE else "",
                    )
                    self._progress.start()
                case BytesSent(node=node):
                    task = self._task(node)
                    completed = task.completed + event.size
                    # The size is an estimate: without headers, or of compressed layers.
                    total = max(task.fields["size"], completed)
                    amount = f"{size_text(completed)} of {size_text(total)}"
                    speed = f", {size_text(task.speed)}/s" if task.speed else ""
                    phase = "transferring" if completed < total else "unpacking"
                    self._update(
                        node, phase, completed=completed, total=total, amount=amount + speed
                    )
                case SendingEnded(node=node):
                    task = self._task(node)
                    self._update(node, "verifying", completed=task.total)
                case NodeDone(result=result) if result.node in self._tasks:
                    self._update(result.node, "done" if result.ok else "failed")

    def _task(self, node: str) -> Task:
        return next(task for task in self._progress.tasks if task.id == self._tasks[node])

    def _update(self, node: str, phase: str, **values: Any) -> None:
        self._progress.update(self._tasks[node], description=phase, **values)

    def close(self) -> None:
        if "_progress" in vars(self):
            self._progress.stop()
