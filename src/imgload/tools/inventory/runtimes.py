"""Lists and removes the images of a node with the module of its runtime."""

from __future__ import annotations

from collections.abc import Sequence
from importlib import import_module
from types import ModuleType

from imgload.clusters.nodes.base import NodeRuntime
from imgload.core.errors import NodeUnusable
from imgload.tools.inventory.base import Inventory, NodeImage


def take_inventory(node: NodeRuntime) -> Inventory:
    """List all images of a node; raise NodeNotRunning, or NodeUnusable if that fails."""
    inventory: Inventory = _module_for(node).take_inventory(node)
    return inventory


def remove_images(node: NodeRuntime, images: Sequence[NodeImage], before: Inventory) -> Inventory:
    """Remove images; return the inventory afterwards. `before` is the inventory until now.

    A name that refers to another image by now stays.
    """
    _module_for(node).remove_images(node, images, before)
    return take_inventory(node)


def _module_for(node: NodeRuntime) -> ModuleType:
    if node.runtime_name:
        return import_module(f"{__package__}.{node.runtime_name}")
    node.require_running()
    raise NodeUnusable(f"imgload cannot list the images of {node.name}", node=node.name)
