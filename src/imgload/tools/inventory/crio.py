"""The images of nodes with CRI-O: their uses and sizes, and their removal."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Sequence
from contextlib import suppress
from datetime import datetime

from imgload.clusters.nodes.batch import NOT_FOUND, Output
from imgload.clusters.nodes.containerd import parse_labels
from imgload.clusters.nodes.crio import CrioNode
from imgload.clusters.nodes.storage import Store, read_users
from imgload.clusters.nodes.survey import NOTHING
from imgload.core.errors import NodeUnusable, reason
from imgload.oci.digest import Digest
from imgload.tools.inventory.base import Inventory, Item, NodeImage, with_images

_WRITTEN = 'cd "$1" && exec stat -c "%n %Y" */manifest'
_TIME = re.compile(r"^([0-9a-f]{64})/manifest (\d{1,11})$", re.MULTILINE)
_PINNED = ("crictl", "images", "-o", "json")
_REMOVE = r"""
id=$1 names=$2
shift 2
set -f
IFS='
'
for name in $names; do
    [ "$("$@" image inspect --format '{{.Id}}' "$name" 2>/dev/null)" != "$id" ] || "$@" rmi "$name"
done
[ "$("$@" image inspect --format '{{.RepoTags}}' "$id" 2>/dev/null)" != '[]' ] || "$@" rmi "$id"
"""
"""Removes the names that still lead to an image; without a name, the image, which no container
uses: Podman refuses to remove others."""


def take_inventory(node: CrioNode) -> Inventory:
    """List all images; raise NodeNotRunning, or NodeUnusable if the store cannot be read."""
    node.survey(NOTHING)
    storage = node.storage
    written = ("sh", "-c", _WRITTEN, "imgload", storage.images)
    *containers, pinned, times = node.run_all([*storage.containers, _PINNED, written])
    with node.naming_node_in_errors():
        return read_inventory(node.store, read_users(containers), pinned, times)


def read_inventory(
    store: Store, in_use: frozenset[str], pinned: Output, times: Output
) -> Inventory:
    """Return the inventory of a store, with the IDs of images that containers use.

    `pinned` lists the images by CRI; `times` are those at which they came to the node.
    """
    pins = frozenset(_pinned(pinned))
    sizes: dict[Item, int] = {}
    references: dict[Item, Sequence[Item]] = {}
    for layer in store.layers.values():
        item: Item = ("snapshot", layer.chain_id)
        sizes[item] = layer.size
        references[item] = [("snapshot", layer.parent)] if layer.parent else []
    tops = {
        image.id: store.layers[image.layers[-1]].chain_id
        for image in store.images
        if image.layers and image.layers[-1] in store.layers
    }
    stock = Inventory(
        sizes=sizes,
        references=references,
        content=store.content,
        chain_ids={i.config: tops[i.id] for i in store.images if i.id in tops},
        in_use=frozenset(top for image_id, top in tops.items() if image_id in in_use),
    )
    written = {image_id: float(seconds) for image_id, seconds in _TIME.findall(times.text)}
    images = []
    for image in store.images:
        labels = parse_labels(store.labels.get(image.id, ""))
        roots: list[Item] = [("snapshot", tops[image.id])] if image.id in tops else []
        images.append(
            NodeImage(
                image_id=Digest("sha256", image.id),
                names=tuple(sorted(image.names)),
                loaded_as=tuple(sorted(labels)),
                since=max(labels.values(), default=written.get(image.id)),
                arrived=written.get(image.id),
                created=_seconds(image.created),
                in_use=image.id in in_use,
                pinned=image.id in pins,
                records=(*sorted(image.names), f"sha256:{image.id}"),
                targets=image.manifests,
                items=stock.reachable(roots),
            )
        )
    return with_images(stock, images)


def _pinned(listed: Output) -> Iterator[str]:
    """Yield the IDs of images that CRI-O must not remove (crio.conf(5), pinned_images)."""
    if listed.exit_status == NOT_FOUND:
        return
    if listed.exit_status:
        raise NodeUnusable(f"crictl does not list the images: {reason(listed.text)}")
    with suppress(ValueError, KeyError, TypeError, AttributeError, RecursionError):
        for image in json.loads(listed.stdout)["images"]:
            if image.get("pinned"):
                yield str(image["id"]).removeprefix("sha256:")


def _seconds(text: str) -> float | None:
    with suppress(ValueError, OverflowError, OSError):
        return datetime.fromisoformat(text).timestamp()
    return None


def remove_images(node: CrioNode, images: Sequence[NodeImage], _before: Inventory) -> None:
    """Remove images; a name that refers to another image by now stays, with that image."""
    node.run_all(
        [
            (
                "sh",
                "-c",
                _REMOVE,
                "imgload",
                i.image_id.hex,
                "\n".join(i.names),
                *node.storage.podman,
            )
            for i in images
        ]
    )
