"""Remove images under every name, from containerd and from CRI."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress

from imgload.clusters.nodes import containerd
from imgload.clusters.nodes.node import Node
from imgload.core.errors import ReferenceInvalid
from imgload.oci.reference import Reference
from imgload.tools.inventory.node_images import Inventory, NodeImage, take_inventory

_BATCH = 50
"""Names in one check and removal: in a longer batch, a name can move to a new image meanwhile."""
_WAIT_FOR_CRI = ("sleep", "0.5")
"""CRI learns of a new record by an event."""
_REMOVE = """
ctr=$1 wait=$2 every=$3
shift 3
names=$($ctr images ls -q "$@")
[ -n "$names" ] || exit 0
{ printf '%s\\n' "$names" | tr '\\n' '\\0' | xargs -0 $ctr images rm $wait --; } & work=$!
left=30
while [ $left -gt 0 ] && sleep "$every" >/dev/null && kill -0 $work
do echo; left=$((left - 1)); done </dev/null 2>/dev/null & watch=$!
wait $work
status=$?
kill $watch
exit $status
"""
"""Removes the names that still lead to the selected images; `ctr` and `wait` are our own words.

ctr prints nothing while it waits for the garbage collection, so the script does, for ten minutes.
"""
KEEPALIVE_SECONDS = 20.0
"""Between two of these lines."""
_ALIAS = """
ctr=$1 is=$2 taken=$3 record=$4 alias=$5
[ -z "$($ctr images ls -q "$taken")" ] && [ -n "$($ctr images ls -q "$is")" ] || exit 0
exec $ctr images tag -- "$record" "$alias"
"""


def remove_images(node: Node, images: Sequence[NodeImage], before: Inventory) -> Inventory:
    """Remove images and the content that only they need; return the inventory afterwards.

    A name that leads to another image by now is left alone.

    CRI lists images by normalised names, and forgets one when a record of exactly that name is
    removed: one that ``ctr images import --digests`` called ``import-DATE@sha256:…`` stays in its
    list, without content, until containerd restarts (kind #3369). Such a record therefore first
    gets its normalised name.

    Args:
        node: the node.
        images: the images to remove.
        before: all images on the node.

    Raises:
        NodeNotRunning: when the container is stopped or paused.
        NodeUnusable: when containerd cannot be asked.

    """
    node.require_running()
    ctr = " ".join(node.resolve_command(containerd.CTR))
    targets = {record: image.targets for image in images for record in image.records}
    taken = {record for image in before.images for record in image.records}
    aliases = _aliases(targets, taken)
    tags: list[Sequence[str]] = []
    for record, alias in aliases.items():
        is_same = containerd.points_to(record, *targets[record])
        is_taken = f"name=={containerd.quoted(alias)}"
        tags.append(("sh", "-c", _ALIAS, "imgload", ctr, is_same, is_taken, record, alias))
    targets |= {alias: targets[record] for record, alias in aliases.items()}
    filters = [containerd.points_to(name, *digests) for name, digests in targets.items()]
    removals: list[Sequence[str]] = []
    for start in range(0, len(filters), _BATCH):
        wait = "--sync" if start + _BATCH >= len(filters) else ""
        words = (ctr, wait, f"{KEEPALIVE_SECONDS:g}", *filters[start : start + _BATCH])
        removals.append(("sh", "-c", _REMOVE, "imgload", *words))
    node.run_all([*tags, *([_WAIT_FOR_CRI] if tags else []), *removals])
    return take_inventory(node)


def _aliases(records: Iterable[str], taken: set[str]) -> Mapping[str, str]:
    """Return the normalised names of records that have others, unless these are taken."""
    aliases: dict[str, str] = {}
    for record in records:
        if record.startswith(containerd.CRI_RECORD):
            continue
        with suppress(ReferenceInvalid):
            normalised = str(Reference.parse(record))
            if normalised not in {record, *taken, *aliases.values()}:
                aliases[record] = normalised
    return aliases
