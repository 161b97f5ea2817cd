"""The cache of facts about engines; it may be deleted at any time.

Docker's graphdriver store queries a registry only for the digests of its own earlier pushes. Only
the receiver of such a push knows the layer of a digest. Docker's containerd image store reports the
digest of a manifest instead of the image ID.
"""

from __future__ import annotations

import json
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

import attrs

from imgload.core.errors import ArchiveInvalid
from imgload.core.state import (
    locked_folder,
    private_folder,
    read_own_file,
    replace_file,
    state_folder,
)
from imgload.oci.digest import Digest
from imgload.oci.document import dig

_ANY = "any"
"""In place of an address, for facts that do not depend on the engine."""
_MAX_ENTRIES = 2000
_CUT_OFF_SECONDS = 24 * 3600.0
_BLOCKED_SECONDS = 3600.0
_HICCUP_SECONDS = 60.0
_MAX_BYTES = 4 << 20
_IMAGE_IDS = "image_ids.2"  # older versions may have stored wrong IDs as ``image_ids``

Layers = dict[Digest, tuple[Digest, int]]
"""Pushed digests, each with the layer's diff ID and the size in bytes."""


@attrs.define(eq=False, repr=False)
class EngineCache:
    """The cached facts of each engine, by its address."""

    _path: Path
    _engines: dict[str, Any] = attrs.field(factory=dict)

    @classmethod
    def load(cls) -> EngineCache:
        """Read the cache file; an invalid file counts as empty."""
        path = state_folder() / "engines.json"
        return cls(path, _read(path))

    def layers(self, engine: str) -> Layers:
        """Return the layers that an engine has pushed before."""
        layers: Layers = {}
        for digest, value in _section(self._engines, engine, "layers").items():
            with suppress(ArchiveInvalid, TypeError, ValueError):
                diff_id, size = value
                if isinstance(size, int) and size >= 0:
                    layers[Digest.parse(digest)] = (Digest.parse(diff_id), size)
        return layers

    def plain_sizes(self) -> dict[Digest, int]:
        """Return the bytes of layers as uncompressed tars, by diff ID, whatever engine has them."""
        sizes = _section(self._engines, _ANY, "plain").items()
        digests = {Digest.try_parse(text): size for text, size in sizes if isinstance(size, int)}
        return {digest: size for digest, size in digests.items() if digest and size >= 0}

    def record_plain_sizes(self, sizes: Mapping[Digest, int]) -> None:
        added = {str(digest): size for digest, size in sizes.items()}
        if added.items() - _section(self._engines, _ANY, "plain").items():
            self._add(_ANY, "plain", added)

    def known_layers(self, engine: str) -> set[Digest]:
        """Return the diff IDs of the layers that an engine has compressed before."""
        layers = self.layers(engine).items()
        return {diff_id for digest, (diff_id, _) in layers if digest != diff_id}

    def record_layers(self, engine: str, layers: Layers) -> None:
        """Store pushed layers; the oldest are dropped beyond a limit."""
        added = {str(digest): [str(diff_id), size] for digest, (diff_id, size) in layers.items()}
        if added:
            self._add(engine, "layers", added)

    def image_id(self, engine: str, manifest: Digest) -> Digest | None:
        return Digest.try_parse(_section(self._engines, engine, _IMAGE_IDS).get(str(manifest)))

    def record_image_id(self, engine: str, manifest: Digest, image_id: Digest) -> None:
        if self.image_id(engine, manifest) != image_id:
            self._add(engine, _IMAGE_IDS, {str(manifest): str(image_id)})

    def last_build(self, engine: str, repository: str) -> Digest | None:
        """Return the engine's ID of the last build of a repository by a foreign builder."""
        return Digest.try_parse(_section(self._engines, engine, "builds").get(repository))

    def record_build(self, engine: str, repository: str, target: Digest) -> None:
        self._add(engine, "builds", {repository: str(target)})

    def is_unreachable(self, engine: str) -> bool:
        """Whether the engine could not reach this machine's loopback within the last day."""
        since = _section(self._engines, engine, "cut_off").get("since", 0.0)
        now = time.time()
        return isinstance(since, (int, float)) and now - _CUT_OFF_SECONDS < since <= now

    def mark_unreachable(self, engine: str) -> None:
        if self.reached_from(engine):
            self.record_reached(engine, "")
        self._add(engine, "cut_off", {"since": time.time()})

    def reached_from(self, engine: str) -> str:
        """Return the place from which the engine reached this machine's loopback, or nothing."""
        place = _section(self._engines, engine, "reached").get("from", "")
        return place if isinstance(place, str) else ""

    def record_reached(self, engine: str, where: str) -> None:
        self._add(engine, "reached", {"from": where})

    def blocks_pulls(self, engine: str, gateways: Sequence[str]) -> bool:
        """Whether a node with these gateways could not connect to this machine lately."""
        since, count = self._blocked(engine, " ".join(gateways))
        now = time.time()
        return now - (_BLOCKED_SECONDS if count > 1 else _HICCUP_SECONDS) < since <= now

    def _blocked(self, engine: str, gateways: str) -> tuple[float, int]:
        """Return when a node could last not connect, and how often within an hour."""
        match _section(self._engines, engine, "blocked").get(gateways):
            case [int() | float() as since, int() as count]:
                return since, count
        return 0.0, 0

    def record_blocked_pulls(self, engine: str, gateways: Sequence[str]) -> None:
        """Store that a node with these gateways could not connect to this machine within a second.

        Once may be a machine under load: only the second time counts for an hour.
        """
        key, now = " ".join(gateways), time.time()
        since, count = self._blocked(engine, key)
        count = count + 1 if now - 2 * _BLOCKED_SECONDS < since else 1
        self._add(engine, "blocked", {key: [now, count]})

    def _add(self, engine: str, section: str, added: dict[str, Any]) -> None:
        """Merge entries into this object and the file, which other processes may have changed."""
        with locked_folder(self._path.parent):
            stored = _read(self._path)
            entries = _section(self._engines, engine, section) | _section(stored, engine, section)
            newest = [*((k, v) for k, v in entries.items() if k not in added), *added.items()]
            for name, entry in stored.items():
                self._engines[name] = {**_dict(self._engines.get(name)), **_dict(entry)}
            entry = {**_dict(self._engines.get(engine)), section: dict(newest[-_MAX_ENTRIES:])}
            self._engines[engine] = entry
            with suppress(OSError):
                private_folder(self._path.parent)
                replace_file(self._path, json.dumps(self._engines))


def _read(path: Path) -> dict[str, Any]:
    with suppress(OSError, ValueError, RecursionError):
        return _dict(json.loads(read_own_file(path, _MAX_BYTES)))
    return {}


def _section(engines: dict[str, Any], engine: str, section: str) -> dict[str, Any]:
    return _dict(dig(engines, engine, section))


def _dict(value: object) -> dict[str, Any]:
    return value if isinstance(value, dict) else {}
