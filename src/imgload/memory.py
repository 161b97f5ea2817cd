"""What is worth remembering between runs; may be deleted at any time.

Docker's graphdriver store asks a registry only for the digests under which it pushed a layer
before. Which layer such a digest means, only the one who was pushed to knows. Its containerd image
store tells a manifest's digest, and not the image ID.
"""

from __future__ import annotations

import json
import time
from contextlib import suppress
from pathlib import Path
from typing import Any

import attrs

from imgload.errors import ArchiveInvalid
from imgload.files import private_folder, replace_file
from imgload.oci.digest import Digest
from imgload.state import state_folder

_MOST_LAYERS = 2000
_FORGET_SECONDS = 24 * 3600.0
_MAX_FILE = 4 << 20

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
        kept = self._of(engine, "layers")
        for digest, (diff_id, size) in layers.items():
            kept.pop(str(digest), None)
            kept[str(digest)] = [str(diff_id), size]
        newest = dict(list(kept.items())[-_MOST_LAYERS:])
        self._set(engine, "layers", newest)

    def image_id(self, engine: str, manifest: Digest) -> Digest | None:
        """Return the image ID of a manifest that an engine pushed before."""
        return Digest.maybe(self._of(engine, "image_ids").get(str(manifest)))

    def identify(self, engine: str, manifest: Digest, image_id: Digest) -> None:
        """Remember the image ID of a manifest; it never changes."""
        kept = self._of(engine, "image_ids")
        if kept.get(str(manifest)) != str(image_id):
            kept[str(manifest)] = str(image_id)
            self._set(engine, "image_ids", dict(list(kept.items())[-_MOST_LAYERS:]))

    def is_cut_off(self, engine: str) -> bool:
        """Whether the engine could not reach this machine's loopback within the last day."""
        since = self._of(engine, "cut_off").get("since", 0.0)
        now = time.time()
        return isinstance(since, (int, float)) and now - _FORGET_SECONDS < since <= now

    def cut_off(self, engine: str) -> None:
        """Remember that the engine cannot reach this machine's loopback, as it may have before."""
        if self.reached_from(engine):
            self.reach(engine, "")
        self._set(engine, "cut_off", {"since": time.time()})

    def reached_from(self, engine: str) -> str:
        """Return from where the engine was seen to reach this machine's loopback, or nothing."""
        where = self._of(engine, "reached").get("from", "")
        return where if isinstance(where, str) else ""

    def reach(self, engine: str, where: str) -> None:
        """Remember that the engine reaches this machine's loopback from there."""
        self._set(engine, "reached", {"from": where})

    def _of(self, engine: str, what: str) -> dict[str, Any]:
        entry = self._engines.get(engine)
        value = entry.get(what) if isinstance(entry, dict) else None
        return dict(value) if isinstance(value, dict) else {}

    def _set(self, engine: str, what: str, value: dict[str, Any]) -> None:
        stored = _read(self._path)  # others may have written since
        for engines in (self._engines, stored):
            entry = engines.get(engine)
            engines[engine] = {**(entry if isinstance(entry, dict) else {}), what: value}
        with suppress(OSError):
            private_folder(self._path.parent)
            replace_file(self._path, json.dumps(stored))


def _read(path: Path) -> dict[str, Any]:
    """Return what is stored; nothing where that cannot be understood."""
    with suppress(OSError, ValueError, RecursionError):
        if path.stat().st_size <= _MAX_FILE:
            found = json.loads(path.read_bytes())
            return found if isinstance(found, dict) else {}
    return {}
