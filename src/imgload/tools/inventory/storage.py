"""What lies on a node's disk and what holds it there, as containerd's garbage collector sees it.

Image records hold manifests; labels of a blob say which blobs and which snapshot it holds; a
snapshot holds its parent, and a container its own snapshot (containerd docs/garbage-collection.md).
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from typing import Literal

import attrs

from imgload.clusters.nodes import containerd
from imgload.clusters.nodes.batch import Output
from imgload.clusters.nodes.containerd import parse_marks
from imgload.oci.digest import Digest

_SHA256 = "sha256:[0-9a-f]{64}"
_FOLDER = 4096
_OWN_FOLDERS = {"overlayfs": 2, "fuse-overlayfs": 2}
"""Folders that a snapshot has besides its content, which alone containerd counts."""
_BLOCK = 512
_LOCATE = "s/^ *root  *//p"
_ON_DISK = (
    f'root=$(ctr plugins ls -d id==content | sed -n "{_LOCATE}" | head -n 1);'
    ' exec find "$root/blobs" -type f -exec stat -c "%n %b %Y" {} +'
)
_FILE = re.compile(r"/(sha256)/([0-9a-f]{64}) (\d{1,15}) (\d{1,11})$", re.MULTILINE)
_HELD_BLOB = re.compile(rf"containerd\.io/gc\.ref\.content\.[^=,\s]+=({_SHA256})")
_SIZE = re.compile(r"(\d{1,6}(?:\.\d{1,6})?)([kMGTP]?)B")
_UNITS = {"": 1, "k": 10**3, "M": 10**6, "G": 10**9, "T": 10**12, "P": 10**15}

Item = tuple[Literal["blob", "snapshot"], Digest]
"""A blob by its digest, or a snapshot by its chain ID; for a lowest layer these may be equal."""


@attrs.frozen
class Blob:
    """A blob of the content store.

    Args:
        size: bytes on the disk.
        blobs: what it holds of other blobs.
        chain_id: the snapshot that it holds, in CRI's snapshotter.
        written: when it came to the node, in seconds since 1970; None when not known.
        loaded: the names under which imgload loaded it, and when; of an image's config only.

    """

    size: int
    blobs: tuple[Digest, ...] = ()
    chain_id: Digest | None = None
    written: float | None = None
    loaded: Mapping[str, float] = attrs.field(factory=dict)


@attrs.frozen
class Snapshot:
    """A committed snapshot: its own bytes on the disk, and what it lies on."""

    size: int
    parent: Digest | None = None


@attrs.frozen
class Storage:
    """All blobs and snapshots of a node; `in_use` are those that a container's lies on."""

    blobs: Mapping[Digest, Blob]
    snapshots: Mapping[Digest, Snapshot]
    in_use: frozenset[Digest] = frozenset()

    def held_by(self, blobs: Iterable[Digest]) -> frozenset[Item]:
        """Return everything that some blobs hold, these included."""
        return self._closure([("blob", digest) for digest in blobs])

    def held_by_containers(self) -> frozenset[Item]:
        """Return the snapshots that containers need, whatever becomes of their images."""
        return self._closure([("snapshot", chain_id) for chain_id in self.in_use])

    def size_of(self, items: Iterable[Item]) -> int:
        """Return the bytes that some items take on the disk."""
        return sum(self._size(item) for item in items)

    @property
    def items(self) -> frozenset[Item]:
        """Everything that is there."""
        snapshots: set[Item] = {("snapshot", chain_id) for chain_id in self.snapshots}
        return frozenset({("blob", digest) for digest in self.blobs} | snapshots)

    def _closure(self, waiting: list[Item]) -> frozenset[Item]:
        found: set[Item] = set()
        while waiting:
            item = waiting.pop()
            if item not in found and self._has(item):
                found.add(item)
                waiting.extend(self._below(item))
        return frozenset(found)

    def _has(self, item: Item) -> bool:
        kind, digest = item
        return digest in (self.blobs if kind == "blob" else self.snapshots)

    def _size(self, item: Item) -> int:
        kind, digest = item
        return self.blobs[digest].size if kind == "blob" else self.snapshots[digest].size

    def _below(self, item: Item) -> list[Item]:
        kind, digest = item
        if kind == "snapshot":
            parent = self.snapshots[digest].parent
            return [("snapshot", parent)] if parent else []
        blob = self.blobs[digest]
        held: list[Item] = [("blob", below) for below in blob.blobs]
        return [*held, ("snapshot", blob.chain_id)] if blob.chain_id else held


def storage_commands(snapshotter: str) -> list[Sequence[str]]:
    """Return the commands that tell what lies on the disk."""
    return [
        containerd.CONTENT,
        ("sh", "-c", _ON_DISK),
        containerd.snapshots_of(snapshotter),
        containerd.usage_of(snapshotter),
    ]


def read_storage(snapshotter: str, outputs: Sequence[Output]) -> Storage:
    """Understand the answers to `storage_commands`."""
    content, on_disk, snapshots, usage = (output.text for output in outputs)
    committed, in_use = _parse_snapshots(snapshots, snapshotter, _parse_usage(usage))
    return Storage(_parse_blobs(content, on_disk, snapshotter), committed, in_use)


def _parse_blobs(content: str, on_disk: str, snapshotter: str) -> dict[Digest, Blob]:
    files = {f"{m[0]}:{m[1]}": (int(m[2]), float(m[3])) for m in _FILE.findall(on_disk)}
    chain = re.compile(
        rf"containerd\.io/gc\.ref\.snapshot\.{re.escape(snapshotter)}(?:/[^=,\s]*)?=({_SHA256})"
    )
    blobs: dict[Digest, Blob] = {}
    for line in content.splitlines()[1:]:
        text, _, rest = line.partition("\t")
        if digest := Digest.maybe(text):
            blocks, written = files.get(text, (None, None))
            found = chain.search(rest)
            blobs[digest] = Blob(
                size=_about(rest) if blocks is None else blocks * _BLOCK,
                blobs=tuple(map(Digest.parse, _HELD_BLOB.findall(rest))),
                chain_id=Digest.parse(found.group(1)) if found else None,
                written=written,
                loaded=parse_marks(rest),
            )
    return blobs


def _about(text: str) -> int:
    """Return the size that ctr prints, with four digits, in whole blocks of the disk."""
    match = _SIZE.match(text)
    size = float(match.group(1)) * _UNITS[match.group(2)] if match else 0
    return int(-(-size // _FOLDER) * _FOLDER)


def _parse_usage(text: str) -> dict[str, int]:
    rows = (line.split() for line in text.splitlines()[1:])
    return {row[0]: int(row[1]) for row in rows if len(row) > 1 and row[1].isdecimal()}


def _parse_snapshots(
    text: str, snapshotter: str, usage: Mapping[str, int]
) -> tuple[dict[Digest, Snapshot], frozenset[Digest]]:
    """Return the committed snapshots, and the chain IDs that containers' snapshots lie on."""
    more = _OWN_FOLDERS.get(snapshotter, 0) * _FOLDER
    committed: dict[Digest, Snapshot] = {}
    in_use: set[Digest] = set()
    for row in (line.split() for line in text.splitlines()[1:]):
        parent = Digest.maybe(row[1]) if len(row) > 2 else None  # noqa: PLR2004 - KEY PARENT KIND
        if row and row[-1] != "Committed":
            in_use |= {parent} if parent else set()
        elif row and (chain_id := Digest.maybe(row[0])):
            committed[chain_id] = Snapshot(usage.get(row[0], 0) + more, parent)
    return committed, frozenset(in_use)
