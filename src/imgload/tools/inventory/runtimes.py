"""Lists and removes the images of a node with the functions for its runtime."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from imgload.clusters.nodes.base import NodeRuntime
from imgload.clusters.nodes.crio import CrioNode
from imgload.clusters.nodes.docker import DockerNode
from imgload.clusters.nodes.node import Node
from imgload.core.errors import NodeUnusable
from imgload.tools.inventory import containerd, crio, docker
from imgload.tools.inventory.base import Inventory, NodeImage

Take = Callable[[Any], Inventory]
Remove = Callable[[Any, Sequence[NodeImage], Inventory], None]
_RUNTIMES: Mapping[type[NodeRuntime], tuple[Take, Remove]] = {
    Node: (containerd.take_inventory, containerd.remove_images),
    DockerNode: (docker.take_inventory, docker.remove_images),
    CrioNode: (crio.take_inventory, crio.remove_images),
}


def take_inventory(node: NodeRuntime) -> Inventory:
    """List all images of a node; raise NodeNotRunning, or NodeUnusable if that fails."""
    take, _ = _functions_for(node)
    return take(node)


def remove_images(node: NodeRuntime, images: Sequence[NodeImage], before: Inventory) -> Inventory:
    """Remove images; return the inventory afterwards. `before` is the inventory until now.

    A name that refers to another image by now stays.
    """
    _, remove = _functions_for(node)
    remove(node, images, before)
    return take_inventory(node)


def _functions_for(node: NodeRuntime) -> tuple[Take, Remove]:
    for runtime, functions in _RUNTIMES.items():
        if isinstance(node, runtime):
            return functions
    node.require_running()
    raise NodeUnusable(f"imgload cannot list the images of {node.name}", node=node.name)
