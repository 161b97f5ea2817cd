"""Progress: a live bar for each node on a terminal, plain lines elsewhere."""

from __future__ import annotations

import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

import attrs

from imgload.cli.process import say
from imgload.core.errors import visible
from imgload.core.sizes import size_text
from imgload.loader.events import BytesSent, Event, NodeDone, Note, SendingEnded, SendingStarted

if TYPE_CHECKING:
    from rich.progress import Progress, TaskID

_WORTH_TELLING = 64 << 10
"""Bytes; of less, the config and the manifest are most, and no source knows their size."""
OnEvent = Callable[[Event], None]


@contextmanager
def watching(*, silent: bool) -> Iterator[OnEvent]:
    """Yield what to call with each event of a load."""
    if silent:
        yield lambda _: None
    elif sys.stderr.isatty():
        bars = _Bars()
        try:
            yield bars.on_event
        finally:
            bars.close()
    else:
        yield _line


def _line(event: Event) -> None:
    if isinstance(event, Note):
        say(f"note: {event.text}", err=True)
    elif isinstance(event, SendingStarted):
        names = ", ".join(event.references)
        size = f" ({size_text(event.size)})" if event.size >= _WORTH_TELLING else ""
        say(f"sending {names}{size} to {event.node}", err=True)


@attrs.define
class _Bars:
    """One bar a node; rich is imported when there is something to show."""

    _lock: threading.Lock = attrs.field(factory=threading.Lock)
    _progress: Progress | None = None
    _tasks: dict[str, TaskID] = attrs.field(factory=dict)

    def on_event(self, event: Event) -> None:
        with self._lock:
            if isinstance(event, Note):
                self._print(event)
            elif isinstance(event, SendingStarted):
                self._start(event)
            elif self._progress is None:
                return
            elif isinstance(event, BytesSent):
                self._progress.advance(self._tasks[event.node], event.size)
            elif isinstance(event, SendingEnded):
                self._unpacking(event.node)
            elif isinstance(event, NodeDone) and event.result.node in self._tasks:
                self._done(event.result.node, ok=event.result.ok)

    def _print(self, note: Note) -> None:
        if self._progress is None:
            _line(note)
        else:
            self._progress.console.print(
                f"note: {visible(note.text)}", highlight=False, markup=False
            )

    def _start(self, event: SendingStarted) -> None:
        if self._progress is None:
            self._progress = _new_progress()
            self._progress.start()
        if event.node in self._tasks:
            self._progress.remove_task(self._tasks[event.node])
        label = f"{visible(event.node)}  sending"
        self._tasks[event.node] = self._progress.add_task(label, total=event.size)

    def _unpacking(self, node: str) -> None:
        if self._progress:
            task = next(t for t in self._progress.tasks if t.id == self._tasks[node])
            self._progress.update(
                task.id, completed=task.total, description=f"{visible(node)}  verifying"
            )

    def _done(self, node: str, *, ok: bool) -> None:
        if self._progress:
            word = "done" if ok else "failed"
            self._progress.update(self._tasks[node], description=f"{visible(node)}  {word}")

    def close(self) -> None:
        if self._progress:
            self._progress.stop()


def _new_progress() -> Progress:
    from rich.console import Console  # noqa: PLC0415 - start-up
    from rich.progress import (  # noqa: PLC0415
        BarColumn,
        DownloadColumn,
        Progress,
        TextColumn,
        TransferSpeedColumn,
    )

    columns = (
        TextColumn("{task.description}", markup=False),
        BarColumn(),
        DownloadColumn(binary_units=True),
    )
    return Progress(*columns, TransferSpeedColumn(), console=Console(stderr=True), transient=True)
