"""List the images on nodes, with their uses and sizes on the disk."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from functools import partial
from typing import Any

import attrs

from imgload.clusters.nodes.base import NodeRuntime
from imgload.core.arguments import require_strings
from imgload.core.errors import JSON_VERSION, ImgloadError, error_json
from imgload.core.parallel import in_parallel, result_or_error
from imgload.loader.session import Session
from imgload.oci.digest import Digest
from imgload.oci.reference import matches
from imgload.tools.inventory.base import NodeImage
from imgload.tools.inventory.runtimes import take_inventory


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
    nodes: str | Sequence[str] = (),
    address: str | None = None,
    unused: bool = False,
    drift: bool = False,
) -> Listing:
    """Return the images on the nodes of a cluster, with their sizes and uses.

    Args:
        patterns: names or repositories, full or familiar, with ``*`` and ``?``; empty for all.
        cluster: the cluster's name, or several; None for the kube context's, or the only one.
        nodes: names or patterns of the nodes; empty for all nodes of the cluster.
        address: the path of containerd's socket on the nodes; None to find it.
        unused: only images that no container on these nodes was created from.
        drift: only names that lead to different images on different nodes.

    Returns:
        the images, by name; its `errors` name the nodes that could not be asked.

    Raises:
        EngineError: when no engine can be used.
        ClusterError: when the cluster or a node does not exist.

    """
    with Session.open(has_images=False) as connections:
        selection = connections.select(cluster, nodes, address=address)
        listing = list_images(
            selection.nodes,
            require_strings(patterns, "patterns"),
            unused=unused,
            drift=drift,
        )
    return attrs.evolve(listing, notes=selection.notes)


def list_images(
    nodes: Sequence[NodeRuntime],
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
        "pinned_by_imgload": bool(image.own_pins),
        "loaded_by_imgload": bool(image.loaded_as),
        "since": since.isoformat(timespec="seconds") if since else None,
    }
