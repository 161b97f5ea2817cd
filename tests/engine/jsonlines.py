"""A running command with `-o json`, and the documents that it prints."""

from __future__ import annotations

import json
import queue
import signal
import subprocess
import threading
from collections.abc import Callable
from typing import Any, Self

import attrs

_PATIENCE = 30.0


@attrs.frozen
class JsonLines:
    """A running command, and its documents, one for each line."""

    process: subprocess.Popen[str]
    lines: queue.SimpleQueue[dict[str, Any]] = attrs.field(factory=queue.SimpleQueue)

    @classmethod
    def reading(cls, process: subprocess.Popen[str]) -> Self:
        """Read the output of a process in the background."""
        started = cls(process)
        threading.Thread(target=started._read, daemon=True).start()
        return started

    def _read(self) -> None:
        assert self.process.stdout
        for line in self.process.stdout:
            self.lines.put(json.loads(line))

    def next_where(self, condition: Callable[[dict[str, Any]], bool]) -> dict[str, Any]:
        """Return the next document that meets a condition."""
        while not condition(document := self.lines.get(timeout=_PATIENCE)):
            pass
        return document

    def stop(self, number: signal.Signals = signal.SIGTERM) -> int:
        self.process.send_signal(number)
        return self.process.wait(_PATIENCE)
