"""Progress on stderr: a bar for each node on a terminal, plain lines elsewhere."""

from __future__ import annotations

import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

import attrs

from imgload.cli.process import say
from imgload.core.errors import visible
from imgload.core.units import size_text
from imgload.loader.events import BytesSent, Event, NodeDone, Note, SendingEnded, SendingStarted

if TYPE_CHECKING:
    from rich.progress import Progress, TaskID

_MIN_SIZE = 64 << 10
"""Bytes; smaller transfers are mostly config and manifest, whose size no source knows."""
OnEvent = Callable[[Event], None]


@contextmanager
def watching(*, silent: bool) -> Iterator[OnEvent]:
    """Yield a callback that shows the events of a load."""
    if silent:
        yield lambda _: None
    elif sys.stderr.isatty():
        bars = _Bars()
        try:
            yield bars.on_event
        finally:
            bars.close()
    else:
        yield _print_line


def _print_line(event: Event) -> None:
    if isinstance(event, Note):
        say(f"note: {event.text}", err=True)
    elif isinstance(event, SendingStarted):
        names = ", ".join(event.references)
        size = f" ({size_text(event.size)})" if event.size >= _MIN_SIZE else ""
        say(f"sending {names}{size} to {event.node}", err=True)


@attrs.define
class _Bars:
    """One bar for each node; rich is imported for the first one."""

    _lock: threading.Lock = attrs.field(factory=threading.Lock)
    _progress: Progress | None = None
    _tasks: dict[str, TaskID] = attrs.field(factory=dict)

    def on_event(self, event: Event) -> None:
        with self._lock:
            if self._progress is None and isinstance(event, SendingStarted):
                from rich import progress  # noqa: PLC0415 - start-up
                from rich.console import Console  # noqa: PLC0415

                label = progress.TextColumn("{task.description}", markup=False)
                sizes = progress.DownloadColumn(binary_units=True)
                columns = (label, progress.BarColumn(), sizes, progress.TransferSpeedColumn())
                console = Console(stderr=True)
                self._progress = progress.Progress(*columns, console=console, transient=True)
                self._progress.start()
            if self._progress:
                self._update(self._progress, event)
            elif isinstance(event, Note):
                _print_line(event)

    def _update(self, progress: Progress, event: Event) -> None:
        if isinstance(event, Note):
            progress.console.print(f"note: {visible(event.text)}", highlight=False, markup=False)
        elif isinstance(event, SendingStarted):
            if event.node in self._tasks:
                progress.remove_task(self._tasks[event.node])
            label = f"{visible(event.node)}  sending"
            self._tasks[event.node] = progress.add_task(label, total=event.size)
        elif isinstance(event, BytesSent):
            progress.advance(self._tasks[event.node], event.size)
        elif isinstance(event, SendingEnded):
            task = next(t for t in progress.tasks if t.id == self._tasks[event.node])
            label = f"{visible(event.node)}  verifying"
            progress.update(task.id, completed=task.total, description=label)
        elif isinstance(event, NodeDone) and event.result.node in self._tasks:
            node, state = event.result.node, "done" if event.result.ok else "failed"
            progress.update(self._tasks[node], description=f"{visible(node)}  {state}")

    def close(self) -> None:
        if self._progress:
            self._progress.stop()
