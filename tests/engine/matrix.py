"""Load batches of images from a source onto nodes, and check the nodes."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import Any

import attrs

import imgload
from tests.engine.nodes import ExpectedImage, MatrixNode, Refusal

LOADED, WARNED, REFUSED = "✓", "!", "✗"
"""Results of an image: loaded, loaded with a warning about its platform, refused by imgload."""
NOT_TAKEN, ABSENT = "-", "·"
"""The engine or builder refused the image; the source cannot have such an image."""


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

    def without(self, kind: str) -> Batch:
        """Return the batch without a kind of image."""
        return attrs.evolve(self, images=tuple(i for i in self.images if i.kind != kind))


@attrs.frozen
class Images:
    """The images of a source, as batches.

    `cells` are the results of kinds of images that the source does not have, and `notes` the
    messages about them.
    """

    batches: Sequence[Batch]
    cells: dict[str, str] = attrs.field(factory=dict)
    notes: list[tuple[str, str]] = attrs.field(factory=list)


@attrs.define
class Row:
    """The images of one source on nodes, which are empty before and after.

    `cells` are the results by kind of image, the same on every node; `notes` are the messages, and
    `refused` the kinds of errors.
    """

    nodes: Sequence[MatrixNode]
    cells: dict[str, str] = attrs.field(factory=dict)
    notes: list[tuple[str, str]] = attrs.field(factory=list)
    refused: dict[str, str] = attrs.field(factory=dict)
    _records: set[str] = attrs.field(factory=set)

    def fill(self, images: Images) -> None:
        """Load batch after batch, and wipe the nodes."""
        self.cells |= images.cells
        self.notes += images.notes
        try:
            for batch in images.batches:
                self._load(batch)
        finally:
            _on_all([node.wipe for node in self.nodes])

    def _load(self, batch: Batch) -> None:
        """Load a batch into all nodes in parallel; if it is refused, load its images one by one."""
        addresses = [node.address for node in self.nodes]
        report = (_piped if batch.stdin else _loaded)(batch, addresses)
        if not isinstance(report, Refusal):
            self._record(batch, report)
        elif batch.images[1:]:
            self._check(())
            for image in batch.images:
                self._load(attrs.evolve(batch, images=(image,), all=False))
        else:
            self._check(())
            self._refuse(batch.images[0], report)

    def _check(self, images: Sequence[ExpectedImage]) -> None:
        _on_all([partial(node.assert_has, images, self._records) for node in self.nodes])

    def _record(self, batch: Batch, report: dict[str, Any]) -> None:
        """Check the nodes after a load, of which some images may have failed on all nodes."""
        messages, loaded = report["notes"], []
        self.notes += [("", line) for line in messages if "saving failed" in line]
        for image, result in zip(batch.images, report["images"], strict=True):
            errors = [node["error"] for node in result["nodes"]]
            if all(errors):
                [kind] = {error["kind"] for error in errors}
                self._refuse(image, Refusal(kind, errors[0]["message"]))
                continue
            assert not any(errors), report
            warned = any(image.name in line and "exec format error" in line for line in messages)
            assert warned == image.emulated, messages
            self.cells[image.kind] = WARNED if warned else LOADED
            loaded.append(image)
        self._check(loaded)
        self._records |= {name for image in loaded for name in image.records}

    def _refuse(self, image: ExpectedImage, refusal: Refusal) -> None:
        self.cells[image.kind] = REFUSED
        self.refused[image.kind] = refusal.kind
        self.notes.append((f"{image.kind}: {refusal.kind}", refusal.reason))


def _on_all(tasks: Sequence[Callable[[], None]]) -> None:
    with ThreadPoolExecutor(len(tasks)) as pool:
        for done in [pool.submit(task) for task in tasks]:
            done.result()


def _loaded(batch: Batch, nodes: Sequence[str]) -> dict[str, Any] | Refusal:
    """Load with the library; return the report, or the error after which nothing was loaded."""
    try:
        return imgload.load(batch.texts, nodes=nodes, source=batch.source).to_json()
    except imgload.LoadFailed as failed:
        return failed.report.to_json()
    except imgload.ImgloadError as error:
        return Refusal(error.kind, error.message)


def _piped(batch: Batch, nodes: Sequence[str]) -> dict[str, Any] | Refusal:
    """Load with the command from a pipe; return the same as `_loaded`."""
    options = [option for node in nodes for option in ("--node", node)]
    command = (sys.executable, "-m", "imgload", "load", "--from", "-", "--output", "json")
    done = subprocess.run(
        [*command, *options, *batch.texts],
        input=batch.stdin,
        env=os.environ,
        capture_output=True,
        check=False,
    )
    document: dict[str, Any] = json.loads(done.stdout)
    error = document.get("error")
    return Refusal(error["kind"], error["message"]) if error else document
