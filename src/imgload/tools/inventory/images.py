"""The images on nodes: their names, uses, and sizes on the disk.

containerd's garbage collector keeps whatever is reachable: an image record refers to a manifest;
labels of a blob name the blobs and the snapshot that it refers to; a snapshot refers to its parent,
and a container to its own snapshot (containerd docs/garbage-collection.md).
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from datetime import UTC, datetime
from functools import partial
from typing import Any, Literal

import attrs

from imgload.clusters.nodes import containerd
from imgload.clusters.nodes.batch import Output
from imgload.clusters.nodes.containerd import ContentStore, Record, parse_labels, rows
from imgload.clusters.nodes.node import Node, containerd_nodes
from imgload.core.arguments import require_strings
from imgload.core.errors import JSON_VERSION, ImgloadError, NodeUnusable, error_json
from imgload.core.parallel import in_parallel, result_or_error
from imgload.loader.session import Session
from imgload.oci.digest import Digest
from imgload.oci.reference import matches

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
    """All images of a node, and the blobs and snapshots on its disk.

    `sizes` are bytes; `references` may name items that do not exist. `chain_ids` are the snapshots
    of configs in CRI's snapshotter, `written` the times of blobs in seconds since 1970, as far as
    known, and `in_use` the snapshots that containers' snapshots are based on.
    """

    images: tuple[NodeImage, ...] = ()
    sizes: Mapping[Item, int] = attrs.field(factory=dict)
    references: Mapping[Item, Sequence[Item]] = attrs.field(factory=dict)
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

    def freed_without(self, images: Iterable[NodeImage]) -> int:
        """Return the bytes that removing some of the images would free."""
        removed = {image.image_id for image in images}
        containers = self.reachable(("snapshot", chain_id) for chain_id in self.in_use)
        kept = containers.union(*(i.items for i in self.images if i.image_id not in removed))
        items = frozenset().union(*(i.items for i in self.images if i.image_id in removed))
        return self.size_of(items - kept)


def take_inventory(node: Node) -> Inventory:
    """List all images in one exec; raise NodeNotRunning, or NodeUnusable if containerd fails."""
    traits, outputs = node.run_for_snapshotter(inventory_commands)
    with node.naming_node_in_errors():
        return read_inventory(traits.snapshotter, outputs)


def inventory_commands(snapshotter: str) -> list[list[Sequence[str]]]:
    """Return the commands that list a node's images, in groups to run in parallel."""
    return [
        [*containerd.all_images()],
        [
            (*containerd.CTR, "containers", "ls"),
            ("crictl", "ps", "-a", "-o", "json"),
            containerd.CONTENT,
            ("sh", "-c", _ON_DISK),
            containerd.snapshots_command(snapshotter),
            containerd.snapshots_command(snapshotter, "usage", "-b"),
        ],
    ]


def read_inventory(snapshotter: str, outputs: Sequence[Output]) -> Inventory:
    """Parse the output of `inventory_commands`."""
    named, by_id, containers, in_cri, *stored = outputs
    content, _, snapshots, _ = stored
    # An image in use could seem unused if one of these failed.
    if any(output.exit_status for output in (named, by_id, containers, content, snapshots)):
        raise NodeUnusable("containerd does not list its images, containers, content or snapshots")
    stock = _read_stock(snapshotter, *(output.text for output in stored))
    used = containerd.parse_cri_containers(in_cri) | {row[1] for row in rows(containers.text, 3)}
    used |= {name.rpartition("@")[2] for name in used}
    records = _records_by_image(named.text, by_id.text, stock)
    images = [_image(image_id, own, used, stock) for image_id, own in records.items()]
    users = Counter(item for image in images for item in image.items)
    for number, image in enumerate(images):
        own = stock.size_of(item for item in image.items if users[item] == 1)
        images[number] = attrs.evolve(image, size=stock.size_of(image.items), own_size=own)
    return attrs.evolve(stock, images=tuple(images))


def _records_by_image(named: str, by_id: str, stock: Inventory) -> Mapping[Digest, list[Record]]:
    """Return the records of each image ID; of an index, that of the unpacked platform."""
    content, chain_ids = stock.content, stock.chain_ids
    records: dict[Digest, list[Record]] = {}
    for record in containerd.parse_records(named):
        configs = content.configs_under(record.target) & content.blobs
        if configs:
            config = min(configs, key=lambda config: (config not in chain_ids, config))
            records.setdefault(config, []).append(record)
    names = set(by_id.split())
    for manifest, config in content.configs.items():
        if str(config) in names:
            records.setdefault(config, []).append(Record(str(config), manifest))
    return records


def _image(
    image_id: Digest, records: Sequence[Record], used: frozenset[str], stock: Inventory
) -> NodeImage:
    names, targets = {r.name for r in records}, {r.target for r in records}
    roots: list[Item] = [("blob", digest) for digest in (*targets, image_id)]
    loaded = parse_labels(stock.content.rows.get(image_id, ""))
    written = stock.written.get(image_id)
    # A container's snapshot on the image's, whatever name the container was created from:
    is_based_on = stock.chain_ids.get(image_id) in stock.in_use
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
        items=stock.reachable(roots),
    )


def _read_stock(
    snapshotter: str, content_text: str, on_disk: str, snapshots: str, usage: str
) -> Inventory:
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
    in_use = frozenset(filter(None, active))
    return Inventory((), sizes, references, content, chain_ids, written, in_use)


def _rounded(row: str) -> int:
    """Return the size that ctr prints, with four digits, rounded up to the disk's blocks."""
    match = _SIZE.match(row)
    size = float(match.group(1)) * _UNITS[match.group(2)] if match else 0
    return int(-(-size // _FOLDER) * _FOLDER)


@attrs.frozen
class ListedImage:
    """One image under one name, on the nodes that have it.

    Args:
        name: in full; None if its name moved to another image.
        image_id: the digest of its config.
        nodes: the image on each node that has it, by the node's name.
        drift: whether the name leads to another image on another node.

    """

    name: str | None
    image_id: Digest
    nodes: Mapping[str, NodeImage] = attrs.field(hash=False)
    drift: bool = False

    @property
    def in_use(self) -> bool:
        """Whether a container on any of the nodes was created from it."""
        return any(image.in_use for image in self.nodes.values())

    @property
    def loaded_as(self) -> tuple[str, ...]:
        """The names under which imgload loaded it, on any node."""
        return tuple(sorted({name for i in self.nodes.values() for name in i.loaded_as}))

    def to_json(self) -> dict[str, Any]:
        """Return the image's part of the document."""
        return {
            "reference": self.name,
            "image_id": str(self.image_id),
            "loaded_as": list(self.loaded_as),
            "drift": self.drift,
            "nodes": [_on_node(node, image) for node, image in self.nodes.items()],
        }


@attrs.frozen
class Listing:
    """Images on nodes.

    Args:
        images: the selected images, by name.
        sizes: bytes that all images, selected or not, take on each node's disk.
        errors: the nodes that could not be asked, and why.
        notes: lines of information for the user.

    """

    images: tuple[ListedImage, ...]
    sizes: Mapping[str, int] = attrs.field(hash=False)
    errors: Mapping[str, ImgloadError] = attrs.field(hash=False)
    notes: tuple[str, ...] = ()

    @property
    def ok(self) -> bool:
        """Whether every node could be asked."""
        return not self.errors

    def to_json(self) -> dict[str, Any]:
        """Return the document of ``--output json``."""
        listed = [(node, size, None) for node, size in self.sizes.items()]
        failed = [(node, None, error_json(error)) for node, error in self.errors.items()]
        return {
            "version": JSON_VERSION,
            "nodes": [{"node": n, "size": s, "error": e} for n, s, e in (*listed, *failed)],
            "images": [image.to_json() for image in self.images],
            "notes": list(self.notes),
            "ok": self.ok,
        }


def images(
    patterns: str | Sequence[str] = (),
    *,
    cluster: str | Sequence[str] | None = None,
    nodes: Sequence[str] = (),
    unused: bool = False,
    drift: bool = False,
) -> Listing:
    """Return the images on the nodes of a cluster, with their sizes and uses.

    Args:
        patterns: names or repositories, full or familiar, with ``*`` and ``?``; empty for all.
        cluster: the cluster's name, or several; None for the kube context's, or the only one.
        nodes: names of the nodes; empty for all nodes of the cluster.
        unused: only images that no container on these nodes was created from.
        drift: only names that lead to different images on different nodes.

    Returns:
        the images, by name; its `errors` name the nodes that could not be asked.

    Raises:
        EngineError: when no engine can be used.
        ClusterError: when the cluster or a node does not exist.

    """
    with Session.open() as connections:
        selection = connections.select(cluster, nodes)
        listing = list_images(
            containerd_nodes(selection.nodes),
            require_strings(patterns, "patterns"),
            unused=unused,
            drift=drift,
        )
    return attrs.evolve(listing, notes=selection.notes)


def list_images(
    nodes: Sequence[Node],
    patterns: Sequence[str] = (),
    *,
    unused: bool = False,
    drift: bool = False,
) -> Listing:
    """Return the selected images on the nodes; see `imgload.images`."""
    sizes: dict[str, int] = {}
    errors: dict[str, ImgloadError] = {}
    on_nodes: dict[tuple[str | None, Digest], dict[str, NodeImage]] = {}
    calls = [partial(result_or_error, partial(take_inventory, node)) for node in nodes]
    for node, result in zip(nodes, in_parallel(calls), strict=True):
        if isinstance(result, ImgloadError):
            errors[node.name] = result
            continue
        items = frozenset().union(*(image.items for image in result.images))
        sizes[node.name] = result.size_of(items)
        for image in result.images:
            for name in image.names or (None,):
                on_nodes.setdefault((name, image.image_id), {})[node.name] = image
    counts = Counter(name for name, _ in on_nodes)
    images = [
        ListedImage(name, image_id, by_node, drift=name is not None and counts[name] > 1)
        for (name, image_id), by_node in on_nodes.items()
    ]
    selected = [
        image
        for image in sorted(images, key=_order)
        if (not patterns or any(matches(name, patterns) for name in _names(image)))
        and not (unused and image.in_use)
        and not (drift and not image.drift)
    ]
    return Listing(tuple(selected), sizes, errors)


def _names(image: ListedImage) -> tuple[str, ...]:
    return image.loaded_as if image.name is None else (image.name,)


def _order(image: ListedImage) -> tuple[bool, str, float, Digest]:
    """Sort by name, unnamed images last; the newest first."""
    since = max((i.since or 0.0 for i in image.nodes.values()), default=0.0)
    return image.name is None, " ".join(_names(image)), -since, image.image_id


def _on_node(node: str, image: NodeImage) -> dict[str, Any]:
    since = datetime.fromtimestamp(image.since, UTC) if image.since is not None else None
    return {
        "node": node,
        "size": image.size,
        "own_size": image.own_size,
        "in_use": image.in_use,
        "pinned": image.pinned,
        "loaded_by_imgload": bool(image.loaded_as),
        "since": since.isoformat(timespec="seconds") if since else None,
    }
