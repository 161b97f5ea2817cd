"""Load batches of images from a source onto three nodes, and check the nodes."""

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
from imgload.oci.digest import Digest, chain_ids
from tests.lab import Lab, Node, suites
from tests.lab.cri import Cri
from tests.lab.shape import CrioInMinikube
from tests.lab.store import Store

VERSIONS = suites.versions("containerd")
_PATIENCE = 5.0
_VAR_SIZE = "2g"


@attrs.frozen
class ExpectedImage:
    """An image to load: its requested name, and the expected state of a node.

    `chain_id` is None for an image without layers; `emulated` is set if the nodes cannot run it.
    """

    kind: str
    text: str
    image_id: str
    chain_id: str | None
    emulated: bool = False

    @property
    def name(self) -> str:
        """The expected record on a node: the name, or the image ID of an untagged image."""
        if self.text.startswith("sha256:"):
            return self.image_id
        return self.text if "/" in self.text else f"docker.io/library/{self.text}"

    @property
    def records(self) -> set[str]:
        """All expected records: the name, and CRI's record by image ID."""
        return {self.name, self.image_id}


@attrs.frozen
class Batch:
    """Images that are loaded together: with `stdin` from a pipe, with `all` without names."""

    source: str
    images: tuple[ExpectedImage, ...]
    stdin: bytes | None = None
    all: bool = False

    @property
    def texts(self) -> list[str]:
        """The requested names."""
        return [] if self.all else [image.text for image in self.images]


@attrs.frozen
class MatrixNode:
    """A node with one version of containerd; its /var is in memory."""

    version: str
    node: Node
    cri: Cri
    store: Store

    @classmethod
    def make(cls, lab: Lab, version: str, cluster: str) -> Self:
        """Create a node; the one with the newest containerd has crictl."""
        newest = version == VERSIONS[-1]
        options = {
            "name": cluster,
            "engine": "docker",
            "containerd": version,
            "var_size": _VAR_SIZE,
        }
        node = lab.make_cluster(**options, crictl=newest).nodes[0]
        cri = node.cri()
        return cls(version, node, cri, Store(cri.socket))

    @property
    def containerd(self) -> str:
        """The version that the program reports."""
        return self.node.exec("containerd", "--version").split()[2]

    def wipe(self) -> None:
        """Remove all images with their content, and wait until CRI has noticed it."""
        self.store.remove(sorted(self.store.records()))
        end = time.monotonic() + _PATIENCE
        while self.cri.list_images() and time.monotonic() < end:
            time.sleep(0.05)
        assert self.store.snapshots() == set()

    def assert_has(self, images: Sequence[ExpectedImage], before: set[str]) -> None:
        """Assert that CRI has each image, that its snapshot exists, and no other record does."""
        wanted = before.union(*(image.records for image in images))
        end = time.monotonic() + _PATIENCE
        while (records := self.store.records()) != wanted and time.monotonic() < end:
            time.sleep(0.02)  # CRI is notified of an image by an event
        assert records == wanted
        snapshots = self.store.snapshots()
        for image in images:
            assert self.cri.image_id(image.name) == image.image_id, image
            assert image.chain_id is None or image.chain_id in snapshots, image


@attrs.frozen
class CrioMatrixNode:
    """A node with CRI-O's store; its /var is in memory."""

    version: str
    node: Node

    @classmethod
    def make(cls, lab: Lab, version: str, cluster: str) -> Self:
        """Create a node with a version of Podman."""
        options = {"name": cluster, "engine": "docker", "var_size": _VAR_SIZE}
        shape = CrioInMinikube()
        return cls(version, lab.make_cluster(**options, containerd=version, shape=shape).nodes[0])

    def wipe(self) -> None:
        """Remove all images."""
        self.node.exec("podman", "rmi", "--all", "--force")
        assert self._names() == {}

    def assert_has(self, images: Sequence[ExpectedImage], before: set[str]) -> None:
        """Assert that Podman has each image with all layers, and that no other name exists."""
        names = self._names()
        wanted = before.union(*(image.records for image in images))
        assert names.keys() | set(names.values()) == wanted
        for image in images:
            assert names.get(image.name, image.name) == image.image_id, image
            found = self.node.exec("podman", "image", "inspect", image.image_id.partition(":")[2])
            layers = [
                Digest.parse(layer) for layer in json.loads(found)[0]["RootFS"]["Layers"] or ()
            ]
            chain = [str(chain_id) for chain_id in chain_ids(tuple(layers))][-1:]
            assert chain == [x for x in (image.chain_id,) if x], image

    def _names(self) -> dict[str, str]:
        """Return the image IDs by name, and by themselves for images without names."""
        listed = json.loads(self.node.exec("podman", "images", "--format", "json"))
        ids = [(f"sha256:{image['Id']}", image.get("Names") or ()) for image in listed]
        return {name: image_id for image_id, names in ids for name in (*names, image_id)}


@attrs.define
class Row:
    """The images of one source on all nodes, which are empty before and after.

    `cells` are the results by kind of image, the same on every node; `notes` are the messages.
    """

    nodes: Sequence[MatrixNode | CrioMatrixNode]
    cells: dict[str, str] = attrs.field(factory=dict)
    notes: list[tuple[str, str]] = attrs.field(factory=list)
    _records: set[str] = attrs.field(factory=set)

    def fill(self, batches: Sequence[Batch]) -> None:
        """Load batch after batch, and wipe the nodes."""
        try:
            for batch in batches:
                self._load(batch)
        finally:
            _on_all([node.wipe for node in self.nodes])

    def _load(self, batch: Batch) -> None:
        """Load a batch into all nodes in parallel; if it is refused, load its images one by one."""
        nodes = [node.node.name for node in self.nodes]
        messages = _piped(batch, nodes) if batch.stdin else _loaded(batch, nodes)
        if isinstance(messages, Refusal):
            self._check(())
            self._record_refused(batch, messages)
            return
        self._check(batch.images)
        self._records |= {name for image in batch.images for name in image.records}
        self._record_loaded(batch, messages)

    def _check(self, images: Sequence[ExpectedImage]) -> None:
        _on_all([partial(node.assert_has, images, self._records) for node in self.nodes])

    def _record_loaded(self, batch: Batch, messages: Sequence[str]) -> None:
        self.notes += [("", line) for line in messages if "saving failed" in line]
        for image in batch.images:
            warned = any(image.name in line and "exec format error" in line for line in messages)
            assert warned == image.emulated, messages
            self.cells[image.kind] = "loaded, with a warning" if warned else "loaded"

    def _record_refused(self, batch: Batch, refusal: Refusal) -> None:
        if len(batch.images) == 1:
            [image] = batch.images
            self.cells[image.kind] = f"refused: {refusal.kind}"
            self.notes.append((image.kind, refusal.message))
            return
        for image in batch.images:
            self._load(attrs.evolve(batch, images=(image,), all=False))


def _on_all(tasks: Sequence[Callable[[], None]]) -> None:
    with ThreadPoolExecutor(len(tasks)) as pool:
        for done in [pool.submit(task) for task in tasks]:
            done.result()


@attrs.frozen
class Refusal:
    """An error after which nothing was loaded."""

    kind: str
    message: str


def _loaded(batch: Batch, nodes: Sequence[str]) -> list[str] | Refusal:
    """Load with the library; return the notes, or the refusal."""
    events: list[Event] = []
    try:
        imgload.load(batch.texts, nodes=nodes, source=batch.source, on_event=events.append)
    except imgload.LoadFailed:
        raise  # one node differs from the others
    except imgload.ImgloadError as error:
        return Refusal(error.kind, error.message)
    return [event.text for event in events if isinstance(event, Note)]


def _piped(batch: Batch, nodes: Sequence[str]) -> list[str] | Refusal:
    """Load with the command from a pipe; return its messages, or the refusal."""
    options = [option for node in nodes for option in ("--node", node)]
    command = [sys.executable, "-m", "imgload", "load", "--from", "-", *options, *batch.texts]
    done = _run(command, batch.stdin)
    if not done.returncode:
        return done.stderr.decode().splitlines()
    error = json.loads(_run([*command, "--output", "json"], batch.stdin).stdout)["error"]
    return Refusal(error["kind"], error["message"])


def _run(command: Sequence[str], stdin: bytes | None) -> subprocess.CompletedProcess[bytes]:
    return subprocess.run(command, input=stdin, env=os.environ, capture_output=True, check=False)
