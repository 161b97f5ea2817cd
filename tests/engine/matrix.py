"""One batch of images after another: from a source onto three nodes, and what these have then."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import Self

import attrs

import imgload
from imgload.loader.events import Event, Note
from tests.lab import Lab, Node
from tests.lab.cri import Cri
from tests.lab.store import Store

VERSIONS = ("1.6", "1.7", "2.1")
_PATIENCE = 5.0
_ROOM = "2g"


@attrs.frozen
class Wish:
    """An image to load: how it is asked for, and what a node has to have then.

    `chain_id` is None for an image without layers; `emulated` where the nodes cannot run it.
    """

    kind: str
    text: str
    image_id: str
    chain_id: str | None
    emulated: bool = False

    @property
    def name(self) -> str:
        """The record that is to be on a node; an image without a name goes by its ID."""
        if self.text.startswith("sha256:"):
            return self.image_id
        return self.text if "/" in self.text else f"docker.io/library/{self.text}"

    @property
    def records(self) -> set[str]:
        """All records: the name, and the one by ID that CRI adds."""
        return {self.name, self.image_id}


@attrs.frozen
class Batch:
    """Images that are loaded together; with `stdin`, from a pipe; `all` without naming them."""

    source: str
    wishes: tuple[Wish, ...]
    stdin: bytes | None = None
    all: bool = False

    @property
    def texts(self) -> list[str]:
        """What is asked for."""
        return [] if self.all else [wish.text for wish in self.wishes]


@attrs.frozen
class Place:
    """A node with one containerd; its /var is in memory, since what is measured is not the disk."""

    version: str
    node: Node
    cri: Cri
    store: Store

    @classmethod
    def make(cls, lab: Lab, version: str, cluster: str) -> Self:
        """Make a node, with crictl on the newest."""
        newest = version == VERSIONS[-1]
        options = {"name": cluster, "engine": "docker", "containerd": version, "var_size": _ROOM}
        node = lab.make_cluster(**options, crictl=newest).nodes[0]
        cri = node.cri()
        return cls(version, node, cri, Store(cri.socket))

    def wipe(self) -> None:
        """Remove all images with their content, and wait until CRI has heard of it."""
        self.store.remove(sorted(self.store.records()))
        end = time.monotonic() + _PATIENCE
        while self.cri.list_images() and time.monotonic() < end:
            time.sleep(0.05)
        assert self.store.snapshots() == set()

    def has(self, wishes: Sequence[Wish], before: set[str]) -> None:
        """CRI has each image under its name, its snapshot is there, and no record but those."""
        wanted = before.union(*(wish.records for wish in wishes))
        end = time.monotonic() + _PATIENCE
        while (records := self.store.records()) != wanted and time.monotonic() < end:
            time.sleep(0.02)  # CRI hears of an image by an event
        assert records == wanted
        snapshots = self.store.snapshots()
        for wish in wishes:
            assert self.cri.image_id(wish.name) == wish.image_id, wish
            assert wish.chain_id is None or wish.chain_id in snapshots, wish


@attrs.define
class Row:
    """One source's images on all nodes, which are empty before and after.

    `cells` is what happened by kind, the same on every node; `notes` is what was said besides.
    """

    places: Sequence[Place]
    cells: dict[str, str] = attrs.field(factory=dict)
    notes: list[tuple[str, str]] = attrs.field(factory=list)
    _there: set[str] = attrs.field(factory=set)

    def fill(self, batches: Sequence[Batch]) -> None:
        """Load batch after batch, and wipe the nodes."""
        try:
            for batch in batches:
                self._load(batch)
        finally:
            _on_all([place.wipe for place in self.places])

    def _load(self, batch: Batch) -> None:
        """Load a batch into all nodes at once; its images one by one where that is refused."""
        nodes = [place.node.name for place in self.places]
        told = _piped(batch, nodes) if batch.stdin else _loaded(batch, nodes)
        if isinstance(told, Refusal):
            self._check(())
            self._refused(batch, told)
            return
        self._check(batch.wishes)
        self._there |= {name for wish in batch.wishes for name in wish.records}
        self._taken(batch, told)

    def _check(self, wishes: Sequence[Wish]) -> None:
        _on_all([partial(place.has, wishes, self._there) for place in self.places])

    def _taken(self, batch: Batch, told: Sequence[str]) -> None:
        self.notes += [("", line) for line in told if "saving failed" in line]
        for wish in batch.wishes:
            warned = any(wish.name in line and "only with emulation" in line for line in told)
            assert warned == wish.emulated, told
            self.cells[wish.kind] = "loaded, with a warning" if warned else "loaded"

    def _refused(self, batch: Batch, refusal: Refusal) -> None:
        if len(batch.wishes) == 1:
            [wish] = batch.wishes
            self.cells[wish.kind] = f"refused: {refusal.kind}"
            self.notes.append((wish.kind, refusal.message))
            return
        for wish in batch.wishes:
            self._load(attrs.evolve(batch, wishes=(wish,), all=False))


def _on_all(tasks: Sequence[Callable[[], None]]) -> None:
    with ThreadPoolExecutor(len(tasks)) as pool:
        for done in [pool.submit(task) for task in tasks]:
            done.result()


@attrs.frozen
class Refusal:
    """What was said before nothing was loaded."""

    kind: str
    message: str


def _loaded(batch: Batch, nodes: Sequence[str]) -> list[str] | Refusal:
    """Load with the library; return what the user is told besides."""
    events: list[Event] = []
    try:
        imgload.load(batch.texts, nodes=nodes, source=batch.source, on_event=events.append)
    except imgload.LoadFailed:
        raise  # one node is not like the others
    except imgload.ImgloadError as error:
        return Refusal(error.kind, error.message)
    return [event.text for event in events if isinstance(event, Note)]


def _piped(batch: Batch, nodes: Sequence[str]) -> list[str] | Refusal:
    """Load with the command, from a pipe."""
    options = [option for node in nodes for option in ("--node", node)]
    command = [sys.executable, "-m", "imgload", "load", "--from", "-", *options, *batch.texts]
    done = _run(command, batch.stdin)
    if not done.returncode:
        return done.stderr.decode().splitlines()
    error = json.loads(_run([*command, "--output", "json"], batch.stdin).stdout)["error"]
    return Refusal(error["kind"], error["message"])


def _run(command: Sequence[str], stdin: bytes | None) -> subprocess.CompletedProcess[bytes]:
    return subprocess.run(command, input=stdin, env=os.environ, capture_output=True, check=False)
