"""All images of a node: their names, uses, and sizes on the disk.

containerd's garbage collector keeps whatever is reachable: an image record refers to a manifest;
labels of a blob name the blobs and the snapshot that it refers to; a snapshot refers to its parent,
and a container to its own snapshot (containerd docs/garbage-collection.md).
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from typing import Literal, NamedTuple

import attrs

from imgload.clusters.nodes import containerd, cri
from imgload.clusters.nodes.batch import Output
from imgload.clusters.nodes.containerd import parse_labels
from imgload.clusters.nodes.node import Node
from imgload.core.errors import NodeUnusable
from imgload.oci.digest import Digest

_ROW = re.compile(r"(?P<name>\S.*?)\s+\S+/\S+\s+(?P<target>sha256:[0-9a-f]{64})\s(?P<rest>.*)")
"""A row of ``ctr images ls``; containerd accepts names with spaces."""
_PINNED = "io.cri-containerd.pinned=pinned"
_SHA256 = "sha256:[0-9a-f]{64}"
_FOLDER = 4096
_OWN_FOLDERS = {"overlayfs": 2, "fuse-overlayfs": 2}
"""Folders of a snapshot around its content; containerd counts the content only."""
_BLOCK = 512
_ON_DISK = (
    'root=$(ctr plugins ls -d id==content | sed -n "s/^ *root  *//p" | head -n 1);'
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
    """A blob: its snapshot in CRI's snapshotter, and when it was written and loaded by imgload.

    Times are in seconds since 1970; `loaded` maps the names that imgload loaded a config under.
    """

    chain_id: Digest | None = None
    written: float | None = None
    loaded: Mapping[str, float] = attrs.field(factory=dict)


@attrs.frozen
class Storage:
    """All blobs and snapshots of a node, with their bytes on the disk and their references.

    References may be dangling; `in_use` are the snapshots that containers' snapshots are based on.
    """

    sizes: Mapping[Item, int]
    references: Mapping[Item, Sequence[Item]]
    blobs: Mapping[Digest, Blob] = attrs.field(factory=dict)
    content: containerd.ContentStore = attrs.field(factory=containerd.ContentStore)
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

    def stat_blob(self, items: Iterable[Item]) -> int:
        """Return the bytes that some items take on the disk."""
        return sum(self.sizes[item] for item in items)


@attrs.frozen
class NodeImage:
    """An image on one node.

    Args:
        image_id: the digest of its config.
        names: of its records; empty if all its names moved to other images.
        loaded_as: the names under which imgload loaded it; empty if imgload did not.
        since: when it was last loaded or else written, in seconds since 1970; None if unknown.
        arrived: when its config was written; loading it again does not change this.
        created: the creation time in its config; None if that was not read.
        size: bytes of its blobs and snapshots on the node's disk.
        own_size: the part of `size` that no other image needs.
        in_use: whether a container, running or not, was created from it.
        pinned: whether CRI must not remove it.
        records: the names of all its records: `names`, and CRI's own.
        targets: the manifests and indexes that these lead to.
        items: its blobs and snapshots.

    """

    image_id: Digest
    names: tuple[str, ...] = ()
    loaded_as: tuple[str, ...] = ()
    since: float | None = None
    arrived: float | None = attrs.field(default=None, repr=False)
    created: float | None = attrs.field(default=None, repr=False)
    size: int = 0
    own_size: int = 0
    in_use: bool = False
    pinned: bool = False
    records: tuple[str, ...] = attrs.field(default=(), repr=False)
    targets: tuple[Digest, ...] = attrs.field(default=(), repr=False)
    items: frozenset[Item] = attrs.field(default=frozenset(), repr=False)


@attrs.frozen
class Inventory:
    """All images of a node, and its storage."""

    images: tuple[NodeImage, ...]
    storage: Storage

    def freed_without(self, images: Iterable[NodeImage]) -> int:
        """Return the bytes that removing some of the images would free."""
        removed = {image.image_id for image in images}
        containers = self.storage.reachable(("snapshot", chain) for chain in self.storage.in_use)
        kept = containers.union(*(i.items for i in self.images if i.image_id not in removed))
        items = frozenset().union(*(i.items for i in self.images if i.image_id in removed))
        return self.storage.stat_blob(items - kept)


class _Record(NamedTuple):
    name: str
    target: Digest
    is_cris: bool = False
    pinned: bool = False


def take_inventory(node: Node) -> Inventory:
    """List all images in one exec; raise NodeNotRunning, or NodeUnusable if containerd fails."""
    node.require_running()
    traits, outputs = node.run_for_snapshotter(inventory_commands)
    with node.naming_node_in_errors():
        return read_inventory(traits.snapshotter, outputs)


def inventory_commands(snapshotter: str) -> list[list[Sequence[str]]]:
    """Return the commands that list a node's images, in groups to run in parallel."""
    return [
        [*containerd.all_images()],
        [
            containerd.CONTAINERS,
            cri.CONTAINERS,
            containerd.CONTENT,
            ("sh", "-c", _ON_DISK),
            containerd.snapshots_command(snapshotter),
            containerd.usage_command(snapshotter),
        ],
    ]


def read_inventory(snapshotter: str, outputs: Sequence[Output]) -> Inventory:
    """Parse the output of `inventory_commands`.

    Raises NodeUnusable if a command failed: an image in use could seem unused.
    """
    named, by_id, containers, in_cri, *stored = outputs
    content, _, snapshots, _ = stored
    if any(output.exit_status for output in (named, by_id, containers, content, snapshots)):
        raise NodeUnusable("containerd does not list its images, containers, content or snapshots")
    storage = _read_storage(snapshotter, *(output.text for output in stored))
    used = containerd.parse_containers(containers.text) | cri.parse_containers(in_cri)
    used |= {name.rpartition("@")[2] for name in used}
    records = _records_by_image(named.text, by_id.text, storage)
    images = [_image(image_id, own, used, storage) for image_id, own in records.items()]
    users = Counter(item for image in images for item in image.items)
    for number, image in enumerate(images):
        own = storage.stat_blob(item for item in image.items if users[item] == 1)
        images[number] = attrs.evolve(image, size=storage.stat_blob(image.items), own_size=own)
    return Inventory(tuple(images), storage)


def _records_by_image(named: str, by_id: str, storage: Storage) -> Mapping[Digest, list[_Record]]:
    """Return the records of each image ID; of an index, that of the unpacked platform."""
    content, blobs = storage.content, storage.blobs
    records: dict[Digest, list[_Record]] = {}
    for row in filter(None, map(_ROW.match, named.splitlines()[1:])):
        target = Digest.parse(row["target"])
        configs = [config for config in content.configs_under(target) if config in blobs]
        for config in sorted(configs, key=lambda c: (blobs[c].chain_id is None, c))[:1]:
            record = _Record(row["name"], target, pinned=_PINNED in row["rest"])
            records.setdefault(config, []).append(record)
    names = set(by_id.split())
    for manifest, config in content.configs.items():
        if str(config) in names:
            record = _Record(str(config), manifest, is_cris=True)
            records.setdefault(config, []).append(record)
    return records


def _image(
    image_id: Digest, records: Sequence[_Record], used: frozenset[str], storage: Storage
) -> NodeImage:
    config = storage.blobs.get(image_id, Blob())
    names, targets = {r.name for r in records}, {r.target for r in records}
    roots: list[Item] = [("blob", digest) for digest in (*targets, image_id)]
    # A container's snapshot on the image's, whatever name the container was created from:
    is_based_on = config.chain_id in storage.in_use
    return NodeImage(
        image_id=image_id,
        names=tuple(sorted(record.name for record in records if not record.is_cris)),
        loaded_as=tuple(sorted(config.loaded)),
        since=max(config.loaded.values(), default=config.written),
        arrived=config.written,
        in_use=not used.isdisjoint({*names, str(image_id), *map(str, targets)}) or is_based_on,
        pinned=any(record.pinned for record in records),
        records=tuple(sorted(names)),
        targets=tuple(sorted(targets)),
        items=storage.reachable(roots),
    )


def _read_storage(
    snapshotter: str, content: str, on_disk: str, snapshots: str, usage: str
) -> Storage:
    files = {f"{m[0]}:{m[1]}": (int(m[2]), float(m[3])) for m in _FILE.findall(on_disk)}
    chain = re.compile(
        rf"containerd\.io/gc\.ref\.snapshot\.{re.escape(snapshotter)}(?:/[^=,\s]*)?=({_SHA256})"
    )
    blobs: dict[Digest, Blob] = {}
    sizes: dict[Item, int] = {}
    references: dict[Item, Sequence[Item]] = {}
    for line in content.splitlines()[1:]:
        text, _, labels = line.partition("\t")
        if digest := Digest.try_parse(text):
            blocks, written = files.get(text, (None, None))
            chain_ids = [Digest.parse(chain_id) for chain_id in chain.findall(labels)[:1]]
            blobs[digest] = Blob(next(iter(chain_ids), None), written, parse_labels(labels))
            sizes["blob", digest] = _rounded(labels) if blocks is None else blocks * _BLOCK
            references["blob", digest] = [
                *(("blob", Digest.parse(blob)) for blob in _BLOB_REFERENCE.findall(labels)),
                *(("snapshot", chain_id) for chain_id in chain_ids),
            ]
    folders = _OWN_FOLDERS.get(snapshotter, 0) * _FOLDER
    used = {row[0]: int(row[1]) for row in _rows(usage) if len(row) > 1 and row[1].isdecimal()}
    in_use: set[Digest] = set()
    for row in _rows(snapshots):
        parent = Digest.try_parse(row[1]) if len(row) > 2 else None  # noqa: PLR2004 - KEY PARENT KIND
        if row[-1] != "Committed":
            in_use |= {parent} if parent else set()
        elif chain_id := Digest.try_parse(row[0]):
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
