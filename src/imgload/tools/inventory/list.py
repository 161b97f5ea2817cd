"""What the nodes have: images by nodes, as values, and as the JSON document of machines."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from datetime import UTC, datetime
from functools import partial
from typing import Any

import attrs

from imgload.clusters.nodes.node import Node
from imgload.core.errors import JSON_VERSION, ImgloadError, error_json
from imgload.core.parallel import in_parallel, outcome
from imgload.oci.digest import Digest
from imgload.oci.patterns import matches
from imgload.tools.inventory.node_images import Inventory, NodeImage, take_inventory


@attrs.frozen
class ListedImage:
    """One image under one name, on the nodes that have it so.

    Args:
        name: in full; None where it has none any more, for the name moved on to another image.
        image_id: the digest of its config.
        nodes: what it is on each node that has it.
        drift: whether the name leads to another image on another node.

    """

    name: str | None
    image_id: Digest
    nodes: Mapping[str, NodeImage] = attrs.field(hash=False)
    drift: bool = False

    @property
    def in_use(self) -> bool:
        """Whether a container on any of the nodes was made from it."""
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
    """Images by nodes.

    Args:
        images: by name; those that match what was asked for.
        sizes: the bytes that all images take on each node's disk, matching or not.
        errors: the nodes that could not be asked, and why.

    """

    images: tuple[ListedImage, ...]
    sizes: Mapping[str, int] = attrs.field(hash=False)
    errors: Mapping[str, ImgloadError] = attrs.field(hash=False)

    @property
    def ok(self) -> bool:
        """Whether every node could be asked."""
        return not self.errors

    def to_json(self) -> dict[str, Any]:
        """Return the document of ``--output json``."""
        asked = [{"node": node, "size": size, "error": None} for node, size in self.sizes.items()]
        failed = [
            {"node": node, "size": None, "error": error_json(error)}
            for node, error in self.errors.items()
        ]
        return {
            "version": JSON_VERSION,
            "nodes": [*asked, *failed],
            "images": [image.to_json() for image in self.images],
            "ok": self.ok,
        }


def take_inventories(nodes: Sequence[Node]) -> dict[str, Inventory | ImgloadError]:
    """Ask all nodes at once about all their images; one that fails does not stop the others."""
    answers = in_parallel([partial(outcome, partial(take_inventory, node)) for node in nodes])
    return dict(zip((node.name for node in nodes), answers, strict=True))


def list_images(
    nodes: Sequence[Node],
    patterns: Sequence[str] = (),
    *,
    unused: bool = False,
    drift: bool = False,
) -> Listing:
    """Return what the nodes have; see `imgload.images`."""
    answers = take_inventories(nodes)
    there = {node: a for node, a in answers.items() if isinstance(a, Inventory)}
    images = sorted(_listed(there), key=_order)
    return Listing(
        tuple(i for i in images if _wanted(i, patterns, unused=unused, drift=drift)),
        {node: _size(inventory) for node, inventory in there.items()},
        {node: a for node, a in answers.items() if isinstance(a, ImgloadError)},
    )


def _listed(inventories: Mapping[str, Inventory]) -> Iterator[ListedImage]:
    places: dict[tuple[str | None, Digest], dict[str, NodeImage]] = {}
    images: dict[str | None, set[Digest]] = {}
    for node, inventory in inventories.items():
        for image in inventory.images:
            for name in image.names or (None,):
                places.setdefault((name, image.image_id), {})[node] = image
                images.setdefault(name, set()).add(image.image_id)
    for (name, image_id), on_nodes in places.items():
        drift = name is not None and len(images[name]) > 1
        yield ListedImage(name, image_id, on_nodes, drift)


def _order(image: ListedImage) -> tuple[bool, str, float, Digest]:
    """Names in order; below them what has lost its name; the newest first."""
    since = max((i.since or 0.0 for i in image.nodes.values()), default=0.0)
    names = image.loaded_as if image.name is None else (image.name,)
    return image.name is None, " ".join(names), -since, image.image_id


def _wanted(image: ListedImage, patterns: Sequence[str], *, unused: bool, drift: bool) -> bool:
    names = image.loaded_as if image.name is None else (image.name,)
    named = not patterns or any(matches(name, patterns) for name in names)
    return named and not (unused and image.in_use) and not (drift and not image.drift)


def _size(inventory: Inventory) -> int:
    held = frozenset().union(*(image.items for image in inventory.images))
    return inventory.storage.size_of(held)


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
