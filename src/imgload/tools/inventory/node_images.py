"""All images that a node has: their names, what they take on its disk, and what needs them."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence

import attrs

from imgload.clusters.nodes import containerd, cri
from imgload.clusters.nodes.batch import Output
from imgload.clusters.nodes.node import Node
from imgload.core.errors import NodeUnusable
from imgload.oci.digest import Digest
from imgload.tools.inventory.storage import Item, Storage, read_storage, storage_commands

_ROW = re.compile(r"(?P<name>\S.*?)\s+\S+/\S+\s+(?P<target>sha256:[0-9a-f]{64})\s(?P<rest>.*)")
_PINNED = "io.cri-containerd.pinned=pinned"


@attrs.frozen
class NodeImage:
    """An image on one node.

    Args:
        image_id: the digest of its config.
        names: every name that leads to it; none where a name moved on to another image.
        loaded_as: the names under which imgload loaded it; none where imgload did not.
        since: when it came to the node, in seconds since 1970; None when not known.
        arrived: when its config did, which a later load of it does not change.
        created: when it was built, as it says; None where that was not asked.
        size: the bytes that it takes on the node's disk, blobs and snapshots.
        own_size: those of them that no other image needs.
        in_use: whether a container, running or not, was made from it.
        pinned: whether CRI is told never to remove it.
        records: every record that leads to it: its names, and CRI's own.
        targets: what these lead to.
        items: the blobs and snapshots that it needs.

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
        """Return the bytes that only some of the images need."""
        gone = {image.image_id for image in images}
        needed = set(self.storage.held_by_containers())
        for image in self.images:
            needed |= image.items if image.image_id not in gone else frozenset()
        held = frozenset().union(*(i.items for i in self.images if i.image_id in gone))
        return self.storage.size_of(held - needed)


@attrs.frozen
class _Record:
    name: str
    target: Digest
    pinned: bool


@attrs.define
class _Found:
    """What is known of one image ID while the records are gone through."""

    names: list[str] = attrs.field(factory=list)
    records: list[str] = attrs.field(factory=list)
    targets: set[Digest] = attrs.field(factory=set)
    pinned: bool = False

    def add(self, record: _Record) -> None:
        self.names.append(record.name)
        self.records.append(record.name)
        self.targets.add(record.target)
        self.pinned |= record.pinned


def take_inventory(node: Node) -> Inventory:
    """Read everything about all images of a node, in one exec.

    Raises:
        NodeNotRunning: when the container is stopped or paused.
        NodeUnusable: when containerd cannot be asked.

    """
    node.require_running()
    traits, outputs = node.ask(inventory_commands)
    with node.understanding():
        return read_inventory(traits.snapshotter, outputs)


def inventory_commands(snapshotter: str) -> list[list[Sequence[str]]]:
    """Return the commands that tell all about a node's images, in groups to run side by side."""
    return [
        [*containerd.all_images()],
        [containerd.CONTAINERS, cri.CONTAINERS, *storage_commands(snapshotter)],
    ]


def read_inventory(snapshotter: str, outputs: Sequence[Output]) -> Inventory:
    """Understand the answers to `inventory_commands`.

    Raises:
        NodeUnusable: when one of them is missing; without it an image in use might not look so.

    """
    named, by_id, containers, in_cri, content, on_disk, snapshots, usage = outputs
    if any(output.exit_status for output in (named, by_id, containers, content, snapshots)):
        raise NodeUnusable("containerd does not list its images, containers, content or snapshots")
    storage = read_storage(snapshotter, [content, on_disk, snapshots, usage])
    graph = containerd.parse_content(content.text)
    found = _by_image(_parse_records(named.text), by_id.text.split(), graph, storage)
    used = containerd.parse_containers(containers.text) | cri.parse_containers(in_cri)
    return Inventory(tuple(_measured(_images(found, used, storage), storage)), storage)


def _parse_records(text: str) -> Iterator[_Record]:
    """Yield the rows of ``ctr images ls``; a name may have spaces in it, for containerd."""
    for row in map(_ROW.match, text.splitlines()[1:]):
        if row:
            yield _Record(row["name"], Digest.parse(row["target"]), _PINNED in row["rest"])


def _by_image(
    records: Iterable[_Record],
    by_id: Iterable[str],
    graph: containerd.Content,
    storage: Storage,
) -> Mapping[Digest, _Found]:
    found: dict[Digest, _Found] = {}
    for record in records:
        for config in _configs(graph.configs_under(record.target), storage):
            found.setdefault(config, _Found()).add(record)
    manifests: dict[str, set[Digest]] = {}
    for manifest, config in graph.configs.items():
        manifests.setdefault(str(config), set()).add(manifest)
    for name in set(by_id) & manifests.keys():
        image = found.setdefault(Digest.parse(name), _Found())
        image.records.append(name)
        image.targets |= manifests[name]
    return found


def _configs(configs: Iterable[Digest], storage: Storage) -> list[Digest]:
    """Return the one config that counts: of several platforms, that which is unpacked."""
    there = sorted(config for config in configs if config in storage.blobs)
    return [*(c for c in there if storage.blobs[c].chain_id), *there][:1]


def _images(
    found: Mapping[Digest, _Found], used: frozenset[str], storage: Storage
) -> Iterator[NodeImage]:
    digests = {name.rpartition("@")[2] for name in used}
    for image_id, image in found.items():
        config = storage.blobs.get(image_id)
        called = {*image.records, str(image_id), *map(str, image.targets)}
        yield NodeImage(
            image_id=image_id,
            names=tuple(sorted(image.names)),
            loaded_as=tuple(sorted(config.loaded)) if config else (),
            since=_since(image_id, storage),
            arrived=config.written if config else None,
            in_use=not called.isdisjoint(used | digests) or _holds_container(image_id, storage),
            pinned=image.pinned,
            records=tuple(sorted(image.records)),
            targets=tuple(sorted(image.targets)),
            items=storage.held_by([*image.targets, image_id]),
        )


def _since(image_id: Digest, storage: Storage) -> float | None:
    config = storage.blobs.get(image_id)
    if config is None:
        return None
    return max(config.loaded.values(), default=config.written)


def _holds_container(image_id: Digest, storage: Storage) -> bool:
    """Whether a container's snapshot lies upon the image's, whatever it was made under."""
    config = storage.blobs.get(image_id)
    return config is not None and config.chain_id in storage.in_use


def _measured(images: Iterable[NodeImage], storage: Storage) -> Iterator[NodeImage]:
    there = list(images)
    needed = Counter(item for image in there for item in image.items)
    for image in there:
        alone = (item for item in image.items if needed[item] == 1)
        size = storage.size_of(image.items)
        yield attrs.evolve(image, size=size, own_size=storage.size_of(alone))
