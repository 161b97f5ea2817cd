"""Detect leftovers of a run on the nodes, in the engines and on the host."""

from __future__ import annotations

import os
import re
import time
from collections.abc import Callable
from pathlib import Path

import attrs

from tests.engine.conftest import records
from tests.lab import Node
from tests.lab.engine import Engine

_PARTS = ("records", "ingests", "leases", "running", "folders", "tags", "files")
_OURS = re.compile("imgload|^tmp[.]")
"""Names of imgload's folders on nodes, and of those that mktemp makes."""
_COMMAND = re.compile("images (import|pull)|while IFS= read -r line")
"""Transfers, and shells that wait for a command."""
_STATE = """\
set -e
ps -o args; echo --
ls /var/lib /tmp /run; echo --
{ctr} content active; echo --
{ctr} leases ls -q
"""
"""One exec, because each takes 0.1 seconds of processor time."""


@attrs.frozen
class State:
    """Everything temporary that a run creates, and the image records, which are its result."""

    records: frozenset[str]
    ingests: frozenset[str]
    leases: frozenset[str]
    running: frozenset[str]
    folders: frozenset[str]
    tags: frozenset[str]
    files: frozenset[str]


@attrs.frozen
class Setup:
    """A node, the engines, and the temporary folder of a run."""

    node: Node
    engines: tuple[Engine, ...]
    temp: Path

    def state(self) -> State:
        """Return the current state."""
        ctr = f"{' '.join(self.node.program)} -n k8s.io"
        answer = self.node.exec("sh", "-c", _STATE.format(ctr=ctr))
        processes, folders, ingests, leases = answer.split("--\n")
        return State(
            frozenset(records(self.node)),
            frozenset(row.split()[0] for row in ingests.splitlines()[1:]),
            frozenset(leases.split()),
            frozenset(p for p in processes.splitlines() if _COMMAND.search(p)),
            frozenset(filter(_OURS.search, folders.split())),
            frozenset(tag for engine in self.engines for tag in leftover_tags(engine)),
            frozenset(path.name for path in self.temp.iterdir()),
        )

    def environ(self, **more: str) -> dict[str, str]:
        """Return an environment with the watched temporary folder."""
        return {**os.environ, "TMPDIR": str(self.temp), **more}


def leftover_tags(engine: Engine) -> list[str]:
    """Return the temporary tags of pushes that are left in an engine."""
    names = engine.cli("images", "--format", "{{.Repository}}:{{.Tag}}").split()
    return [name for name in names if "/imgload/" in name]


def until(condition: Callable[[], bool], seconds: float = 10) -> None:
    """Wait until the condition is true."""
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "timed out"
        time.sleep(0.02)


def settled(setup: Setup, before: State, seconds: float = 5, *, but: str = "") -> State:
    """Wait until the state is as before, except for the part `but`; return the last state."""
    deadline = time.monotonic() + seconds
    while True:
        now = setup.state()
        same = all(getattr(now, part) == getattr(before, part) for part in _PARTS if part != but)
        if same or time.monotonic() > deadline:
            return now
        time.sleep(0.1)
