"""One cell after another: an image from a source onto a node, and what the node has then."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Self

import attrs

import imgload
from imgload.events import Event, Note
from tests.lab import Lab, Node
from tests.lab.cri import Cri

VERSIONS = ("1.6", "1.7", "2.1")
_PATIENCE = 5.0


@attrs.frozen
class Wish:
    """An image to load: how it is asked for, and what the node has to have then.

    `chain_id` is None for an image without layers; `emulated` where the node cannot run it.
    """

    kind: str
    text: str
    image_id: str
    chain_id: str | None
    emulated: bool = False
    versions: Sequence[str] = VERSIONS

    @property
    def name(self) -> str:
        """The record that is to be on the node."""
        return self.text if self.text.startswith("sha256:") else f"docker.io/library/{self.text}"


@attrs.frozen
class Outcome:
    """What happened to an image on a node; where it was refused, with what was said."""

    what: str
    said: str = ""


@attrs.frozen
class Batch:
    """Images that are loaded together; with `stdin`, from a pipe."""

    source: str
    wishes: tuple[Wish, ...]
    stdin: bytes | None = None

    def on(self, version: str) -> Self:
        """Return the part that is meant for one containerd."""
        return attrs.evolve(self, wishes=tuple(w for w in self.wishes if version in w.versions))


@attrs.frozen
class Place:
    """A node with one containerd."""

    version: str
    cluster: str
    node: Node
    cri: Cri

    @classmethod
    def make(cls, lab: Lab, version: str, cluster: str) -> Self:
        """Make a node, with crictl on the newest."""
        spec = {"name": cluster, "engine": "docker", "containerd": version}
        node = lab.make_cluster(**spec, crictl=version == VERSIONS[-1]).nodes[0]
        return cls(version, cluster, node, node.cri())

    def records(self) -> set[str]:
        """Return the names of all records, CRI's own by ID included."""
        return set(self.node.ctr("images", "ls", "-q").split())

    def snapshots(self) -> set[str]:
        """Return the keys of all committed snapshots."""
        lines = self.node.ctr("snapshots", "ls").splitlines()[1:]
        return {line.split()[0] for line in lines if line.split()[-1] == "Committed"}

    def load(self, batch: Batch) -> dict[str, Outcome]:
        """Load a batch and return what happened to each kind; one by one where that fails."""
        if not batch.wishes:
            return {}
        before = self.records()
        try:
            told = _piped(self.cluster, batch) if batch.stdin else _loaded(self.cluster, batch)
        except imgload.ImgloadError as error:
            self._has_no_other(batch.wishes, before)
            if len(batch.wishes) == 1:
                return {batch.wishes[0].kind: Outcome(f"refused: {error.kind}", error.message)}
            alone = [self.load(attrs.evolve(batch, wishes=(wish,))) for wish in batch.wishes]
            return {kind: said for each in alone for kind, said in each.items()}
        self._has(batch.wishes, before)
        return {wish.kind: _outcome(wish, told) for wish in batch.wishes}

    def _has_no_other(self, wishes: Sequence[Wish], before: set[str]) -> None:
        """A load that failed left nothing, but whole images of other platforms than the bad one."""
        wanted = {name for wish in wishes for name in (wish.name, wish.image_id)}
        assert before <= self.records() <= before | wanted

    def _has(self, wishes: Sequence[Wish], before: set[str]) -> None:
        """CRI has each image under its name, its snapshot is there, and no record but those."""
        wanted = before | {name for wish in wishes for name in (wish.name, wish.image_id)}
        end = time.monotonic() + _PATIENCE
        while (records := self.records()) != wanted and time.monotonic() < end:
            time.sleep(0.1)  # CRI hears of an image by an event
        assert records == wanted
        snapshots = self.snapshots()
        for wish in wishes:
            assert self._cri_id(wish.name) == wish.image_id, wish
            assert wish.chain_id is None or wish.chain_id in snapshots, wish

    def _cri_id(self, name: str) -> str | None:
        found = self.cri.image_status(name)
        return str(found["status"]["id"]) if found else None


class RefusedError(imgload.ImgloadError):
    """What the command said before it failed."""


def _loaded(cluster: str, batch: Batch) -> list[str]:
    """Load with the library; return what the user is told besides."""
    events: list[Event] = []
    texts = [wish.text for wish in batch.wishes]
    imgload.load(texts, cluster=cluster, source=batch.source, on_event=events.append)
    return [event.text for event in events if isinstance(event, Note)]


def _piped(cluster: str, batch: Batch) -> list[str]:
    """Load with the command, from a pipe."""
    command = [sys.executable, "-m", "imgload", "load", "--from", "-", "--cluster", cluster]
    texts = [wish.text for wish in batch.wishes]
    done = subprocess.run(
        [*command, *texts], input=batch.stdin, env=os.environ, capture_output=True, check=False
    )
    said = done.stderr.decode()
    if done.returncode:
        raise RefusedError(said)
    return said.splitlines()


def _outcome(wish: Wish, told: Sequence[str]) -> Outcome:
    warned = any(wish.name in line and "only with emulation" in line for line in told)
    assert warned == wish.emulated, told
    return Outcome("loaded, with a warning" if warned else "loaded")


@attrs.frozen
class Cell:
    """What happened to images of one kind from one source, by containerd."""

    outcomes: Mapping[str, Outcome]

    def __str__(self) -> str:
        """Say what happened, and where that was not the same everywhere."""
        versions: dict[str, list[str]] = {}
        for version, outcome in self.outcomes.items():
            versions.setdefault(outcome.what, []).append(version)
        if len(versions) == 1 and tuple(self.outcomes) == VERSIONS:
            return next(iter(versions))
        return "; ".join(f"{what} ({', '.join(on)})" for what, on in versions.items())

    @property
    def said(self) -> str:
        """What was said about a refusal."""
        return next((outcome.said for outcome in self.outcomes.values() if outcome.said), "")


def everywhere(places: Sequence[Place], batches: Sequence[Batch]) -> dict[str, Cell]:
    """Load batches into all nodes at once; return what happened, by kind."""

    def fill(place: Place) -> dict[str, Outcome]:
        told = [place.load(batch.on(place.version)) for batch in batches]
        return {kind: outcome for each in told for kind, outcome in each.items()}

    with ThreadPoolExecutor(len(places)) as pool:
        answers = dict(zip((p.version for p in places), pool.map(fill, places), strict=True))
    kinds = dict.fromkeys(kind for answer in answers.values() for kind in answer)
    return {
        kind: Cell({version: seen[kind] for version, seen in answers.items() if kind in seen})
        for kind in kinds
    }
