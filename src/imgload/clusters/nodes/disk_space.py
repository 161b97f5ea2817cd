"""Whether a node's disk has room for an image."""

from __future__ import annotations

from functools import partial

from imgload.clusters.nodes.node import Node
from imgload.clusters.nodes.runtime import CONTAINERD
from imgload.clusters.nodes.survey import free_command, parse_free
from imgload.core.errors import NodeFull
from imgload.core.parallel import outcome


def require_room(node: Node, free: int | None, needed: int) -> None:
    """Refuse what a node has no room for; it is asked again first: something may have gone since.

    Args:
        node: the node.
        free: bytes that it had when it was surveyed; None where it did not tell.
        needed: bytes.

    Raises:
        NodeFull: when it has less.

    """
    if free is None or free >= needed:
        return
    now = outcome(partial(_free, node))
    if isinstance(now, int) and now < needed:
        raise NodeFull(
            f"{node.name} has {_mib(now)} free, and at least {_mib(needed)} are needed",
            hint=f"see what fills it: {node.engine.name} exec {node.name} df -h /var",
        )


def _free(node: Node) -> int | None:
    [output] = node.run_all([free_command(node.runtime or CONTAINERD)])
    return parse_free(output.text)


def _mib(size: int) -> str:
    return f"{size / (1 << 20):.0f} MiB"
