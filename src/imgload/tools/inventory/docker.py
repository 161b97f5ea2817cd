"""The images of nodes whose pods run on Docker: their uses and sizes, and their removal."""

from __future__ import annotations

import re
from collections.abc import Sequence
from contextlib import suppress
from datetime import datetime

from imgload.clusters.nodes.batch import Output, with_reason
from imgload.clusters.nodes.docker import (
    IMAGES,
    LABELS,
    DockerNode,
    content_of,
    parse_images,
)
from imgload.clusters.nodes.moby import MobyNode
from imgload.clusters.nodes.survey import NOTHING
from imgload.core.errors import NodeUnusable, reason
from imgload.oci.digest import Digest, chain_ids
from imgload.tools.inventory import containerd
from imgload.tools.inventory.base import Inventory, Item, NodeImage, with_images

_CONTAINERS = r"""
echo CONTAINER IMAGE RUNTIME
ids=$(docker container ls --all --quiet --no-trunc) || exit
[ -z "$ids" ] || docker container inspect --format '{{.Name}} {{.Image}} docker' $ids || [ $? = 1 ]
"""
"""Lists all containers like ``ctr containers ls``, with the IDs of their images."""
_SIZES = 'cd "$1/layerdb/sha256" && exec grep -H "" */size'
_LABELED = f"cd {LABELS} 2>/dev/null && exec grep -H '' *"
_WRITTEN = 'cd "$1/imagedb/content/sha256" && exec stat -c "%n %Y" *'
_SIZE = re.compile(r"^([0-9a-f]{64})/size:(\d{1,18})$", re.MULTILINE)
_TIME = re.compile(r"^([0-9a-f]{64}) (\d{1,11})$", re.MULTILINE)
_LABEL = re.compile(r"^([0-9a-f]{64}):(\d{1,11}(?:\.\d{1,3})?) (\S{1,1000})$", re.MULTILINE)
_REMOVE = rf"""
id=$1
shift
for name; do
    [ "$(docker image inspect --format '{{{{.Id}}}}' "$name" 2>/dev/null)" != "$id" ] ||
        docker image rm --no-prune "$name"
done
if docker image inspect "$id" >/dev/null 2>&1; then docker image rm --no-prune "$id"; fi
docker image inspect "$id" >/dev/null 2>&1 || rm -f "{LABELS}/${{id#sha256:}}"
"""
"""Removes the names that still lead to an image, and the image if no container uses it."""


def take_inventory(node: DockerNode | MobyNode) -> Inventory:
    """List all images; raise NodeNotRunning, or NodeUnusable if Docker fails."""
    containers = with_reason(("sh", "-c", _CONTAINERS))
    if isinstance(node, MobyNode):
        return containerd.take_inventory(node, containers)
    node.survey(NOTHING)  # where its files are
    files = [("sh", "-c", script, "imgload", node.image_folder) for script in (_SIZES, _WRITTEN)]
    outputs = node.run_all([containers, *files, ("sh", "-c", _LABELED)], [IMAGES])
    with node.naming_node_in_errors():
        return read_inventory(*outputs)


def read_inventory(
    used: Output, sizes: Output, times: Output, labeled: Output, listed: Output
) -> Inventory:
    """Parse the containers' images, sizes of layers, times of configs, labels, and images."""
    images = parse_images(listed)
    if used.exit_status:
        raise NodeUnusable(f"Docker does not list its containers: {reason(used.text)}")
    loaded: dict[Digest, dict[str, float]] = {}
    for image_hex, seconds, name in _LABEL.findall(labeled.text):
        loaded.setdefault(Digest("sha256", image_hex), {})[name] = float(seconds)
    bytes_of = {Digest("sha256", chain): int(size) for chain, size in _SIZE.findall(sizes.text)}
    references: dict[Item, Sequence[Item]] = {}
    for image in images:
        parent: Sequence[Item] = []
        for chain_id in chain_ids(image.diff_ids):
            references["snapshot", chain_id] = parent
            parent = [("snapshot", chain_id)]
    written = {Digest("sha256", m[0]): float(m[1]) for m in _TIME.findall(times.text)}
    in_use = {image_id for word in used.text.split() if (image_id := Digest.try_parse(word))}
    tops = {i.image_id: chain_ids(i.diff_ids)[-1] for i in images if i.diff_ids}
    stock = Inventory(
        sizes={item: bytes_of.get(item[1], 0) for item in references},
        references=references,
        content=content_of(images),
        chain_ids=tops,
        in_use=frozenset(chain_id for image_id, chain_id in tops.items() if image_id in in_use),
    )
    listed_images = []
    for image in images:
        labels = loaded.get(image.image_id, {})
        roots: list[Item] = [("snapshot", tops[image.image_id])] if image.diff_ids else []
        listed_images.append(
            NodeImage(
                image_id=image.image_id,
                names=tuple(sorted(image.names)),
                loaded_as=tuple(sorted(labels)),
                since=max(labels.values(), default=written.get(image.image_id)),
                arrived=written.get(image.image_id),
                created=_seconds(image.created),
                in_use=image.image_id in in_use,
                records=tuple(sorted(image.records)),
                targets=tuple(sorted({image.image_id, *image.names.values()})),
                items=stock.reachable(roots),
            )
        )
    return with_images(stock, listed_images)


def _seconds(text: str) -> float | None:
    with suppress(ValueError, OverflowError, OSError):
        return datetime.fromisoformat(text).timestamp()
    return None


def remove_images(
    node: DockerNode | MobyNode, images: Sequence[NodeImage], before: Inventory
) -> None:
    """Remove images; a name that refers to another image by now stays, with that image."""
    if isinstance(node, MobyNode):
        containerd.remove_images(node, images, before)
    else:
        words = ((str(image.image_id), *image.names) for image in images)
        node.run_all([("sh", "-c", _REMOVE, "imgload", *w) for w in words])
