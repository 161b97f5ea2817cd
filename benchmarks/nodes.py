"""What is on a node, asked of containerd and CRI, past kind and imgload."""

import contextlib
import time
from collections.abc import Iterable, Sequence

from benchmarks.images import Image
from benchmarks.measure import Failed
from tests.lab import Cluster, CommandError, Node

_PATIENCE = 30.0
_PAUSE = 0.2


def check(cluster: Cluster, image: Image) -> None:
    """Raise `Failed` unless each node has this build under its name, and unpacked."""
    for node in cluster.nodes:
        deadline = time.monotonic() + _PATIENCE
        while (found := node.cri().image_id(image.name)) != image.image_id:
            if time.monotonic() > deadline:
                raise Failed(f"{node.name}: {image.name} is {found}, not {image.image_id}")
            time.sleep(_PAUSE)
        if not set(image.chain_ids) <= _snapshots(node):
            raise Failed(f"{node.name}: {image.name} is not unpacked")


def forget(cluster: Cluster, images: Sequence[Image]) -> None:
    """Remove all records of these builds from the nodes, and wait until their content is gone."""
    for node in cluster.nodes:
        deadline = time.monotonic() + _PATIENCE
        while (names := _names(node, images)) or (left := _leftovers(node, images)):
            if time.monotonic() > deadline:
                raise Failed(f"{node.name}: cannot be cleared of {', '.join(names or left)}")
            _remove(node, names)


def _remove(node: Node, names: Sequence[str]) -> None:
    if names:
        with contextlib.suppress(CommandError):  # CRI may have removed its own meanwhile
            node.ctr("images", "rm", "--sync", *names)
    else:
        time.sleep(_PAUSE)


def _names(node: Node, images: Iterable[Image]) -> list[str]:
    """Every record of the builds: theirs, CRI's by ID, and kind's by date."""
    rows = [line.split() for line in node.ctr("images", "ls").splitlines()[1:]]
    records = {row[0]: row[2] for row in rows}
    known = {name for image in images for name in (image.name, image.image_id)}
    targets = {target for name, target in records.items() if name in known}
    return [name for name, target in records.items() if target in targets]


def _leftovers(node: Node, images: Sequence[Image]) -> list[str]:
    """Snapshots, configs and layers of the builds."""
    chains = {chain for image in images for chain in image.chain_ids}
    blobs = {blob for image in images for blob in (image.image_id, *image.diff_ids)}
    content = set(node.ctr("content", "ls", "-q").split())
    return sorted(chains & _snapshots(node) | blobs & content)


def _snapshots(node: Node) -> set[str]:
    rows = node.ctr("snapshots", "--snapshotter", "overlayfs", "ls").splitlines()[1:]
    return {row.split()[0] for row in rows if row.strip()}
