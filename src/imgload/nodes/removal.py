"""Removing images so that they are really gone: under every name, on containerd and in CRI."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

from imgload.errors import ReferenceInvalid
from imgload.nodes import containerd
from imgload.nodes.inventory import Inventory, NodeImage, take_inventory
from imgload.nodes.node import Node
from imgload.reference import Reference

_AT_ONCE = 1000
"""Names in one command, which then fits into one exec."""
_HEAR = ("sleep", "0.5")
"""For as long as CRI may take to hear of a record."""


def remove_images(node: Node, images: Sequence[NodeImage], there: Inventory) -> Inventory:
    """Remove images, and what only they held; return what is there afterwards.

    CRI lists what it has by normalised names, and forgets an image when a record of just that name
    goes: one that ``ctr images import --digests`` called ``import-DATE@sha256:…`` stays in its
    list, without content, until containerd is started anew (kind #3369). So such a record is given
    its normalised name first.

    Args:
        node: where.
        images: what is to go.
        there: what the node has, these included.

    Raises:
        NodeNotRunning: when the container is stopped or paused.
        NodeUnusable: when containerd cannot be asked.

    """
    records = [record for image in images for record in image.records]
    aliases = _aliases(records, {record for image in there.images for record in image.records})
    tags = [containerd.tag_command(record, alias) for record, alias in aliases.items()]
    removals = _removals([*records, *aliases.values()])
    node.require_running()
    node.run_all([*tags, *([_HEAR] if tags else []), *removals])
    return take_inventory(node)


def _removals(names: Sequence[str]) -> list[Sequence[str]]:
    """Return the commands that take names away; the last waits until their content is gone."""
    slices = [names[start : start + _AT_ONCE] for start in range(0, len(names), _AT_ONCE)]
    return [containerd.remove_command(each, wait=each is slices[-1]) for each in slices]


def _aliases(records: Iterable[str], taken: set[str]) -> Mapping[str, str]:
    """Return the normalised names of records that have others, where those are free."""
    found: dict[str, str] = {}
    for record in records:
        if record.startswith(containerd.CRI_RECORD):
            continue
        try:
            normalised = str(Reference.parse(record))
        except ReferenceInvalid:
            continue
        if normalised not in {record, *taken, *found.values()}:
            found[record] = normalised
    return found
