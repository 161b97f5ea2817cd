"""All images of a node: their names, uses, and sizes on the disk.

containerd's garbage collector keeps whatever is reachable: an image record refers to a manifest;
labels of a blob name the blobs and the snapshot that it refers to; a snapshot refers to its parent,
and a container to its own snapshot (containerd docs/garbage-collection.md).
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from typing import Literal

import attrs

from imgload.clusters.nodes import containerd, cri
from imgload.clusters.nodes.batch import Output
from imgload.clusters.nodes.containerd import ContentStore, Record, parse_labels, rows
from imgload.clusters.nodes.node import Node
from imgload.core.errors import NodeUnusable
from imgload.oci.digest import Digest

_FOLDER = 4096
_OWN_FOLDERS = {"overlayfs": 2, "fuse-overlayfs": 2}
"""Folders of a snapshot around its content; containerd counts the content only."""
_BLOCK = 512
_ON_DISK = (
    'root=$(ctr plugins ls -d id==content | sed -n "s/^ *root  *//p" | head -n 1);'
    ' exec find "$root/blobs" -type f -exec stat -c "%n %b %Y" {} +'
)
_FILE = re.compile(r"/sha256/([0-9a-f]{64}) (\d{1,15}) (\d{1,11})$", re.MULTILINE)
_SIZE = re.compile(r"(\d{1,6}(?:\.\d{1,6})?)([kMGTP]?)B")
_UNITS = {"": 1, "k": 10**3, "M": 10**6, "G": 10**9, "T": 10**12, "P": 10**15}

Item = tuple[Literal["blob", "snapshot"], Digest]
"""A blob by its digest, or a snapshot by its chain ID; the lowest layer's may be equal."""


@attrs.frozen
class Storage:
    """All blobs and snapshots of a node, with their bytes on the disk and their references.

    Args:
        sizes: bytes of each item.
        references: the items that each item refers to; they may not exist.
        content: the content store.
        chain_ids: the snapshot in CRI's snapshotter of each config.
        written: when each blob was written, in seconds since 1970, as far as known.
        in_use: the snapshots that containers' snapshots are based on.

    """

    sizes: Mapping[Item, int]
    references: Mapping[Item, Sequence[Item]]
    content: ContentStore = attrs.field(factory=ContentStore)
    chain_ids: Mapping[Digest, Digest] = attrs.field(factory=dict)
    written: Mapping[Digest, float] = attrs.field(factory=dict)
    in_use: frozenset[Digest] = frozenset()

    def reachable(self, roots: Iterable[Item]) -> frozenset[Item]:
        """Return the items that the garbage collector keeps for some roots, these included."""
        items = containerd.reachable(roots, lambda item: self.references.get(item, ()))
        return frozenset(items & self.sizes.keys())

    def size_of(self, items: Iterable[Item]) -> int:
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
        return self.storage.size_of(items - kept)


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
        own = storage.size_of(item for item in image.items if users[item] == 1)
        images[number] = attrs.evolve(image, size=storage.size_of(image.items), own_size=own)
    return Inventory(tuple(images), storage)


def _records_by_image(named: str, by_id: str, storage: Storage) -> Mapping[Digest, list[Record]]:
    """Return the records of each image ID; of an index, that of the unpacked platform."""
    content, chain_ids = storage.content, storage.chain_ids
    records: dict[Digest, list[Record]] = {}
    for record in containerd.parse_records(named):
        configs = content.configs_under(record.target) & content.blobs
        if configs:
            config = min(configs, key=lambda config: (config not in chain_ids, config))
            records.setdefault(config, []).append(record)
    names = set(by_id.split())
    for manifest, config in content.configs.items():
        if str(config) in names:
            records.setdefault(config, []).append(Record(str(config), manifest, ""))
    return records


def _image(
    image_id: Digest, records: Sequence[Record], used: frozenset[str], storage: Storage
) -> NodeImage:
    names, targets = {r.name for r in records}, {r.target for r in records}
    roots: list[Item] = [("blob", digest) for digest in (*targets, image_id)]
    loaded = parse_labels(storage.content.rows.get(image_id, ""))
    written = storage.written.get(image_id)
    # A container's snapshot on the image's, whatever name the container was created from:
    is_based_on = storage.chain_ids.get(image_id) in storage.in_use
    return NodeImage(
        image_id=image_id,
        names=tuple(sorted(r.name for r in records if r.name != str(image_id))),
        loaded_as=tuple(sorted(loaded)),
        since=max(loaded.values(), default=written),
        arrived=written,
        in_use=not used.isdisjoint({*names, str(image_id), *map(str, targets)}) or is_based_on,
        pinned=any(record.pinned for record in records),
        records=tuple(sorted(names)),
        targets=tuple(sorted(targets)),
        items=storage.reachable(roots),
    )


def _read_storage(
    snapshotter: str, content_text: str, on_disk: str, snapshots: str, usage: str
) -> Storage:
    content = containerd.parse_content(content_text)
    files = {Digest("sha256", m[0]): (int(m[1]), float(m[2])) for m in _FILE.findall(on_disk)}
    key = rf"containerd\.io/gc\.ref\.snapshot\.{re.escape(snapshotter)}(?:/[^=,\s]*)?"
    chain = re.compile(rf"{key}=(sha256:[0-9a-f]{{64}})")
    chain_ids: dict[Digest, Digest] = {}
    sizes: dict[Item, int] = {}
    references: dict[Item, Sequence[Item]] = {}
    for digest, row in content.rows.items():
        file = files.get(digest)
        sizes["blob", digest] = file[0] * _BLOCK if file else _rounded(row)
        items: list[Item] = [("blob", blob) for blob in content.references[digest]]
        if match := chain.search(row):
            chain_ids[digest] = Digest.parse(match[1])
            items.append(("snapshot", chain_ids[digest]))
        references["blob", digest] = items
    folders = _OWN_FOLDERS.get(snapshotter, 0) * _FOLDER
    used = {row[0]: int(row[1]) for row in rows(usage, 2) if row[1].isdecimal()}
    for chain_id, parent in containerd.parse_snapshots(snapshots).items():
        sizes["snapshot", chain_id] = used.get(str(chain_id), 0) + folders
        references["snapshot", chain_id] = [("snapshot", parent)] if parent else []
    active = (Digest.try_parse(row[1]) for row in rows(snapshots, 3) if row[-1] != "Committed")
    written = {digest: time for digest, (_, time) in files.items()}
    return Storage(sizes, references, content, chain_ids, written, frozenset(filter(None, active)))


def _rounded(row: str) -> int:
    """Return the size that ctr prints, with four digits, rounded up to the disk's blocks."""
    match = _SIZE.match(row)
    size = float(match.group(1)) * _UNITS[match.group(2)] if match else 0
    return int(-(-size // _FOLDER) * _FOLDER)
