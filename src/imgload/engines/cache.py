"""What is worth remembering between runs; may be deleted at any time.

Docker's graphdriver store asks a registry only for the digests under which it pushed a layer
before. Which layer such a digest means, only the one who was pushed to knows. Its containerd image
store tells a manifest's digest, and not the image ID.
"""

from __future__ import annotations

import json
import os
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import Any

import attrs

from imgload.core.errors import ArchiveInvalid
from imgload.core.files import private_folder, replace_file
from imgload.core.state import state_folder
from imgload.oci.digest import Digest

_MOST_LAYERS = 2000
_FORGET_SECONDS = 24 * 3600.0
_MAX_FILE = 4 << 20
_IMAGE_IDS = "image_ids.2"
"""Older versions may have remembered wrong ones, as ``image_ids``."""
_LOCK_ATTEMPTS = 200
_LOCK_PAUSE = 0.01
"""Seconds between attempts to lock the folder."""

Layers = dict[Digest, tuple[Digest, int]]
"""Pushed digests, each with the diff ID that it means and its size in bytes."""


@attrs.define
class Memory:
    """What is remembered of each engine, by its address."""

    _path: Path
    _engines: dict[str, Any] = attrs.field(factory=dict)

    @classmethod
    def load(cls) -> Memory:
        """Read what there is; a file that cannot be understood is nothing."""
        path = state_folder() / "engines.json"
        return cls(path, _read(path))

    def layers(self, engine: str) -> Layers:
        """Return the layers that an engine has pushed before."""
        known: Layers = {}
        for digest, value in self._of(engine, "layers").items():
            with suppress(ArchiveInvalid, TypeError, ValueError):
                diff_id, size = value
                if isinstance(size, int) and size >= 0:
                    known[Digest.parse(digest)] = (Digest.parse(diff_id), size)
        return known

    def taught(self, engine: str) -> set[Digest]:
        """Return the diff IDs of the layers that an engine has compressed before."""
        return {
            diff_id for digest, (diff_id, _) in self.layers(engine).items() if digest != diff_id
        }

    def learn(self, engine: str, layers: Layers) -> None:
        """Remember layers, and forget the oldest where there are too many."""
        if not layers:
            return
        added = {str(digest): [str(known), size] for digest, (known, size) in layers.items()}
        self._add(engine, "layers", added)

    def image_id(self, engine: str, manifest: Digest) -> Digest | None:
        """Return the image ID of a manifest that an engine pushed before."""
        return Digest.maybe(self._of(engine, _IMAGE_IDS).get(str(manifest)))

    def identify(self, engine: str, manifest: Digest, image_id: Digest) -> None:
        """Remember the image ID of a manifest; it never changes."""
        if self._of(engine, _IMAGE_IDS).get(str(manifest)) != str(image_id):
            self._add(engine, _IMAGE_IDS, {str(manifest): str(image_id)})

    def is_cut_off(self, engine: str) -> bool:
        """Whether the engine could not reach this machine's loopback within the last day."""
        since = self._of(engine, "cut_off").get("since", 0.0)
        now = time.time()
        return isinstance(since, (int, float)) and now - _FORGET_SECONDS < since <= now

    def cut_off(self, engine: str) -> None:
        """Remember that the engine cannot reach this machine's loopback, as it may have before."""
        if self.reached_from(engine):
            self.reach(engine, "")
        self._add(engine, "cut_off", {"since": time.time()})

    def reached_from(self, engine: str) -> str:
        """Return from where the engine was seen to reach this machine's loopback, or nothing."""
        where = self._of(engine, "reached").get("from", "")
        return where if isinstance(where, str) else ""

    def reach(self, engine: str, where: str) -> None:
        """Remember that the engine reaches this machine's loopback from there."""
        self._add(engine, "reached", {"from": where})

    def _of(self, engine: str, what: str) -> dict[str, Any]:
        return _part(self._engines, engine, what)

    def _add(self, engine: str, what: str, added: dict[str, Any]) -> None:
        """Add to this process's entries and to those in the file, and drop the oldest."""
        with _locked(self._path.parent):
            written = _read(self._path)
            kept = {**self._of(engine, what), **_part(written, engine, what)}
            newest = [*((k, v) for k, v in kept.items() if k not in added), *added.items()]
            for name, entry in written.items():
                self._engines[name] = {**_dict(self._engines.get(name)), **_dict(entry)}
            entry = {**_dict(self._engines.get(engine)), what: dict(newest[-_MOST_LAYERS:])}
            self._engines[engine] = entry
            with suppress(OSError):
                private_folder(self._path.parent)
                replace_file(self._path, json.dumps(self._engines))


def _read(path: Path) -> dict[str, Any]:
    with suppress(OSError, ValueError, RecursionError):
        file = path.stat()
        if file.st_size <= _MAX_FILE and file.st_uid == os.geteuid():
            return _dict(json.loads(path.read_bytes()))
    return {}


def _part(engines: dict[str, Any], engine: str, what: str) -> dict[str, Any]:
    return dict(_dict(_dict(engines.get(engine)).get(what)))


def _dict(value: object) -> dict[str, Any]:
    return value if isinstance(value, dict) else {}


@contextmanager
def _locked(folder: Path) -> Iterator[None]:
    """Lock a folder against other processes that write there, and make it where there is none.

    Without a lock, as on some network file systems or while a stopped process holds it, the file is
    written all the same: what is remembered only saves time.
    """
    with ExitStack() as stack:
        with suppress(OSError, ImportError):
            import fcntl  # noqa: PLC0415 - not on Windows

            private_folder(folder)
            descriptor = os.open(folder, os.O_RDONLY)
            stack.callback(os.close, descriptor)
            for _ in range(_LOCK_ATTEMPTS):
                with suppress(BlockingIOError):
                    fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
                    break
                time.sleep(_LOCK_PAUSE)
        yield
