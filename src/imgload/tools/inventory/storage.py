"""A node's blobs and snapshots with their references, as containerd's garbage collector sees them.

An image record refers to a manifest; labels of a blob name the blobs and the snapshot that it
refers to; a snapshot refers to its parent, and a container to its own snapshot (containerd
docs/garbage-collection.md).
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from typing import Literal

import attrs

from imgload.clusters.nodes import containerd
from imgload.clusters.nodes.batch import Output
from imgload.clusters.nodes.labels import parse_marks
from imgload.oci.digest import Digest

_SHA256 = "sha256:[0-9a-f]{64}"
_FOLDER = 4096
_OWN_FOLDERS = {"overlayfs": 2, "fuse-overlayfs": 2}
"""Folders of a snapshot around its content; containerd counts the content only."""
_BLOCK = 512
_LOCATE = "s/^ *root  *//p"
_ON_DISK = (
    f'root=$(ctr plugins ls -d id==content | sed -n "{_LOCATE}" | head -n 1);'
    ' exec find "$root/blobs" -type f -exec stat -c "%n %b %Y" {} +'
)
_FILE = re.compile(r"/(sha256)/([0-9a-f]{64}) (\d{1,15}) (\d{1,11})$", re.MULTILINE)
_BLOB_REFERENCE = re.compile(rf"containerd\.io/gc\.ref\.content\.[^=,\s]+=({_SHA256})")
_SIZE = re.compile(r"(\d{1,6}(?:\.\d{1,6})?)([kMGTP]?)B")
_UNITS = {"": 1, "k": 10**3, "M": 10**6, "G": 10**9, "T": 10**12, "P": 10**15}

Item = tuple[Literal["blob", "snapshot"], Digest]
"""A blob by its digest, or a snapshot by its chain ID; the lowest layer's may be equal."""


@attrs.frozen
class Blob:
    """A blob of the content store.

    Args:
        chain_id: of the snapshot in CRI's snapshotter that it refers to.
        written: when it was written, in seconds since 1970; None if unknown.
        loaded: on a config, the names imgload loaded the image under, and when.

    """

    chain_id: Digest | None = None
    written: float | None = None
    loaded: Mapping[str, float] = attrs.field(factory=dict)


@attrs.frozen
class Storage:
    """All blobs and snapshots of a node.

    Args:
        sizes: bytes of each item on the disk.
        references: the items that an item refers to, which may be absent.
        blobs: all blobs.
        content: the parsed content store.
        in_use: chain IDs of the snapshots that containers' snapshots are based on.

    """

    sizes: Mapping[Item, int]
    references: Mapping[Item, Sequence[Item]]
    blobs: Mapping[Digest, Blob] = attrs.field(factory=dict)
    content: containerd.Content = attrs.field(factory=containerd.Content)
    in_use: frozenset[Digest] = frozenset()

    def reachable(self, roots: Iterable[Item]) -> frozenset[Item]:
        """Return the items that the garbage collector keeps for some roots, these included."""
        waiting, reached = list(roots), set[Item]()
        while waiting:
            item = waiting.pop()
            if item not in reached and item in self.sizes:
                reached.add(item)
                waiting.extend(self.references.get(item, ()))
        return frozenset(reached)

    def size_of(self, items: Iterable[Item]) -> int:
        """Return the bytes that some items take on the disk."""
        return sum(self.sizes[item] for item in items)


def storage_commands(snapshotter: str) -> list[Sequence[str]]:
    """Return the commands that list the blobs and snapshots."""
    return [
        containerd.CONTENT,
        ("sh", "-c", _ON_DISK),
        containerd.snapshots_of(snapshotter),
        containerd.usage_of(snapshotter),
    ]


def read_storage(snapshotter: str, outputs: Sequence[Output]) -> Storage:
    """Parse the output of `storage_commands`."""
    content, on_disk, snapshots, usage = (output.text for output in outputs)
    files = {f"{m[0]}:{m[1]}": (int(m[2]), float(m[3])) for m in _FILE.findall(on_disk)}
    chain = re.compile(
        rf"containerd\.io/gc\.ref\.snapshot\.{re.escape(snapshotter)}(?:/[^=,\s]*)?=({_SHA256})"
    )
    blobs: dict[Digest, Blob] = {}
    sizes: dict[Item, int] = {}
    references: dict[Item, Sequence[Item]] = {}
    for line in content.splitlines()[1:]:
        text, _, labels = line.partition("\t")
        if digest := Digest.maybe(text):
            blocks, written = files.get(text, (None, None))
            chain_ids = [Digest.parse(chain_id) for chain_id in chain.findall(labels)[:1]]
            blobs[digest] = Blob(next(iter(chain_ids), None), written, parse_marks(labels))
            sizes["blob", digest] = _rounded(labels) if blocks is None else blocks * _BLOCK
            references["blob", digest] = [
                *(("blob", Digest.parse(blob)) for blob in _BLOB_REFERENCE.findall(labels)),
                *(("snapshot", chain_id) for chain_id in chain_ids),
            ]
    folders = _OWN_FOLDERS.get(snapshotter, 0) * _FOLDER
    used = {row[0]: int(row[1]) for row in _rows(usage) if len(row) > 1 and row[1].isdecimal()}
    in_use: set[Digest] = set()
    for row in _rows(snapshots):
        parent = Digest.maybe(row[1]) if len(row) > 2 else None  # noqa: PLR2004 - KEY PARENT KIND
        if row[-1] != "Committed":
            in_use |= {parent} if parent else set()
        elif chain_id := Digest.maybe(row[0]):
            sizes["snapshot", chain_id] = used.get(row[0], 0) + folders
            references["snapshot", chain_id] = [("snapshot", parent)] if parent else []
    parsed = containerd.parse_content(content)
    return Storage(sizes, references, blobs, parsed, frozenset(in_use))


def _rows(table: str) -> list[list[str]]:
    return [row for line in table.splitlines()[1:] if (row := line.split())]


def _rounded(text: str) -> int:
    """Return the size that ctr prints, with four digits, rounded up to the disk's blocks."""
    match = _SIZE.match(text)
    size = float(match.group(1)) * _UNITS[match.group(2)] if match else 0
    return int(-(-size // _FOLDER) * _FOLDER)
