"""The images of a node with their layers, whichever runtime it has."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from typing import Literal

import attrs

from imgload.clusters.nodes import containerd
from imgload.clusters.nodes.containerd import ContentStore
from imgload.oci.digest import Digest

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
        own_pins: the names that imgload pinned.
        pinned_by_others: whether a name is pinned, and not by imgload.
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
    own_pins: tuple[str, ...] = ()
    pinned_by_others: bool = False
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


def with_images(stock: Inventory, images: Sequence[NodeImage]) -> Inventory:
    """Return an inventory with its images, and their sizes."""
    users = Counter(item for image in images for item in image.items)
    sized = [
        attrs.evolve(
            image,
            size=stock.size_of(image.items),
            own_size=stock.size_of(item for item in image.items if users[item] == 1),
        )
        for image in images
    ]
    return attrs.evolve(stock, images=tuple(sized))
