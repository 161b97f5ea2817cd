"""Removing images so that they are really gone: under every name, on containerd and in CRI."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

from imgload.errors import ReferenceInvalid
from imgload.nodes import containerd
from imgload.nodes.inventory import Inventory, NodeImage, take_inventory
from imgload.nodes.node import Node
from imgload.oci.digest import Digest
from imgload.reference import Reference

_AT_ONCE = 50
"""Names of one look and one removal: the more, the longer a name can move on in between."""
_HEAR = ("sleep", "0.5")
"""For as long as CRI may take to hear of a record."""
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
"""Removes the names that still lead to what was judged; `ctr` and `wait` are words of our own.

ctr prints nothing while it waits for the garbage collection, so the script does, for ten minutes.
"""
SAY_SECONDS = 20.0
_ALIAS = """
ctr=$1 is=$2 taken=$3 record=$4 alias=$5
[ -z "$($ctr images ls -q "$taken")" ] && [ -n "$($ctr images ls -q "$is")" ] || exit 0
exec $ctr images tag -- "$record" "$alias"
"""


def remove_images(node: Node, images: Sequence[NodeImage], there: Inventory) -> Inventory:
    """Remove images, and what only they held; return what is there afterwards.

    A name that leads to another image by now is left alone.

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
    node.require_running()
    ctr = " ".join(node.spelled(containerd.CTR))
    targets = {record: image.targets for image in images for record in image.records}
    aliases = _aliases(targets, {record for image in there.images for record in image.records})
    tags = [_alias_command(ctr, old, targets[old], new) for old, new in aliases.items()]
    targets |= {alias: targets[record] for record, alias in aliases.items()}
    filters = [containerd.leads_to(name, *found) for name, found in targets.items()]
    slices = [filters[start : start + _AT_ONCE] for start in range(0, len(filters), _AT_ONCE)]
    script, every = ("sh", "-c", _REMOVE, "imgload", ctr), f"{SAY_SECONDS:g}"
    removals = [(*script, "--sync" if part is slices[-1] else "", every, *part) for part in slices]
    node.run_all([*tags, *([_HEAR] if tags else []), *removals])
    return take_inventory(node)


def _alias_command(ctr: str, record: str, targets: Sequence[Digest], alias: str) -> tuple[str, ...]:
    taken = f"name=={containerd.quoted(alias)}"
    words = (ctr, containerd.leads_to(record, *targets), taken, record, alias)
    return ("sh", "-c", _ALIAS, "imgload", *words)


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
