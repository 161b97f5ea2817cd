"""What a run may not leave behind: on the nodes, in the engines and on the host."""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from pathlib import Path

import attrs

from tests.engine.conftest import records
from tests.lab import Node
from tests.lab.engine import Engine

_PARTS = ("records", "ingests", "imports", "folders", "tags", "files")


@attrs.frozen
class Traces:
    """Everything that a run makes for a moment, and what it is there for: the records."""

    records: frozenset[str]
    ingests: frozenset[str]
    imports: frozenset[str]
    folders: frozenset[str]
    tags: frozenset[str]
    files: frozenset[str]


@attrs.frozen
class Scene:
    """A node, the engines concerned, and the folders that a run may write to."""

    node: Node
    engines: tuple[Engine, ...]
    temp: Path

    def look(self) -> Traces:
        """Return what is there now."""
        processes = self.node.exec("ps", "-o", "args").splitlines()
        ingests = self.node.ctr("content", "active").splitlines()[1:]
        folders = self.node.exec("ls", "/var/lib", "/tmp", "/run").split()
        return Traces(
            frozenset(records(self.node)),
            frozenset(ingests),
            frozenset(p for p in processes if "images import" in p),
            frozenset(name for name in folders if "imgload" in name),
            frozenset(tag for engine in self.engines for tag in strays(engine)),
            frozenset(path.name for path in self.temp.iterdir()),
        )

    def environ(self, **more: str) -> dict[str, str]:
        """Return an environment whose temporary folder is watched."""
        return {**os.environ, "TMPDIR": str(self.temp), **more}


def strays(engine: Engine) -> list[str]:
    """Return the names that a push left in an engine."""
    names = engine.cli("images", "--format", "{{.Repository}}:{{.Tag}}").split()
    return [name for name in names if "/imgload/" in name]


def until(condition: Callable[[], bool], seconds: float = 10) -> None:
    """Wait for something to become true."""
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "it did not happen"
        time.sleep(0.02)


def settled(scene: Scene, before: Traces, seconds: float = 5, *, but: str = "") -> Traces:
    """Wait until all is as before, `but` one part; return how it is at the end."""
    deadline = time.monotonic() + seconds
    while True:
        now = scene.look()
        same = all(getattr(now, part) == getattr(before, part) for part in _PARTS if part != but)
        if same or time.monotonic() > deadline:
            return now
        time.sleep(0.1)
