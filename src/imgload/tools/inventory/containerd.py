"""The images of nodes with containerd: their uses and sizes, and their removal.

containerd's garbage collector keeps whatever is reachable: an image record refers to a manifest;
labels of a blob name the blobs and the snapshot that it refers to; a snapshot refers to its parent,
and a container to its own snapshot (containerd docs/garbage-collection.md).
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from functools import partial

from imgload.clusters.nodes import containerd
from imgload.clusters.nodes.batch import Output, keepalive_command
from imgload.clusters.nodes.containerd import Record, parse_labels, rows
from imgload.clusters.nodes.node import Node
from imgload.core.errors import NodeUnusable, UsageError
from imgload.oci.digest import Digest
from imgload.oci.reference import Reference
from imgload.tools.inventory.base import Inventory, Item, NodeImage, with_images

_CONTAINERS = (*containerd.CTR, "containers", "ls")
_WITHOUT_NAME = (containerd.CRI_RECORD, containerd.DANGLING)
_FOLDER = 4096
_OWN_FOLDERS = {"overlayfs": 2, "fuse-overlayfs": 2}
"""Folders of a snapshot around its content; containerd counts the content only."""
_BLOCK = 512
_ON_DISK = (
    'root=$(ctr plugins ls -d id==content | sed -n "s/^ *root  *//p" | head -n 1);'
    ' exec find "$root/blobs" -type f -exec stat -c "%n %b %Y" {} +'
)
_FILE = re.compile(r"/sha256/([0-9a-f]{64}) (\d{1,15}) (\d{1,11})$", re.MULTILINE)
_SIZE = re.compile(r"(\d{1,6}(?:\.\d{1,6})?)([kMGTP]?)B")
_UNITS = {"": 1, "k": 10**3, "M": 10**6, "G": 10**9, "T": 10**12, "P": 10**15}
_BATCH = 50
"""Names in one check and removal: in a longer batch, a name can move to a new image meanwhile."""
_REMOVE = """
ctr=$1 wait=$2 left=30
shift 2
names=$($ctr images ls -q "$@")
[ -n "$names" ] || exit 0
{ printf '%s\\n' "$names" | tr '\\n' '\\0' | xargs -0 $ctr images rm $wait --; }
"""
"""Removes the names that still lead to the selected images; `ctr` and `wait` are our own words."""
_TEN_MINUTES = "left=$((left - 1)) && [ $left -gt 0 ] && kill -0 $work && now=$left"
"""ctr prints nothing while it waits for the garbage collection."""
_ALIAS = """
ctr=$1 is=$2 taken=$3 record=$4 alias=$5
[ -z "$($ctr images ls -q "$taken")" ] && [ -n "$($ctr images ls -q "$is")" ] || exit 0
exec $ctr images tag -- "$record" "$alias"
"""


def take_inventory(node: Node, containers: Sequence[str] = _CONTAINERS) -> Inventory:
    """List all images in one exec; raise NodeNotRunning, or NodeUnusable if containerd fails.

    `containers` lists the containers with their images.
    """
    commands = partial(inventory_commands, containers=containers)
    traits, outputs = node.run_for_snapshotter(commands)
    with node.naming_node_in_errors():
        return read_inventory(traits.snapshotter, outputs)


def inventory_commands(
    snapshotter: str, containers: Sequence[str] = _CONTAINERS
) -> list[list[Sequence[str]]]:
    """Return the commands that list a node's images, in groups to run in parallel."""
    return [
        [*containerd.all_images()],
        [
            containers,
            ("crictl", "ps", "-a", "-o", "json"),
            containerd.CONTENT,
            ("sh", "-c", _ON_DISK),
            containerd.snapshots_command(snapshotter),
            containerd.snapshots_command(snapshotter, "usage", "-b"),
        ],
    ]


def read_inventory(snapshotter: str, outputs: Sequence[Output]) -> Inventory:
    """Parse the output of `inventory_commands`."""
    named, by_id, containers, in_cri, *stored = outputs
    content, _, snapshots, _ = stored
    # An image in use could seem unused if one of these failed.
    if any(output.exit_status for output in (named, by_id, containers, content, snapshots)):
        raise NodeUnusable("containerd does not list its images, containers, content or snapshots")
    stock = _read_stock(snapshotter, *(output.text for output in stored))
    used = containerd.parse_cri_containers(in_cri) | {row[1] for row in rows(containers.text, 3)}
    used |= {name.rpartition("@")[2] for name in used}
    records = _records_by_image(named.text, by_id.text, stock)
    return with_images(stock, [_image(i, own, used, stock) for i, own in records.items()])


def _records_by_image(named: str, by_id: str, stock: Inventory) -> Mapping[Digest, list[Record]]:
    """Return the records of each image ID; of an index, that of the unpacked platform."""
    content, chain_ids = stock.content, stock.chain_ids
    records: dict[Digest, list[Record]] = {}
    for record in containerd.parse_records(named):
        configs = content.configs_under(record.target) & content.blobs
        if configs:
            config = min(configs, key=lambda config: (config not in chain_ids, config))
            records.setdefault(config, []).append(record)
    names = set(by_id.split())
    for manifest, config in content.configs.items():
        if str(config) in names:
            records.setdefault(config, []).append(Record(str(config), manifest))
    return records


def _image(
    image_id: Digest, records: Sequence[Record], used: frozenset[str], stock: Inventory
) -> NodeImage:
    names, targets = {r.name for r in records}, {r.target for r in records}
    roots: list[Item] = [("blob", digest) for digest in (*targets, image_id)]
    loaded = parse_labels(stock.content.rows.get(image_id, ""))
    written = stock.written.get(image_id)
    # A container's snapshot on the image's, whatever name the container was created from:
    is_based_on = stock.chain_ids.get(image_id) in stock.in_use
    return NodeImage(
        image_id=image_id,
        names=tuple(sorted(r.name for r in records if not r.name.startswith(_WITHOUT_NAME))),
        loaded_as=tuple(sorted(loaded)),
        since=max(loaded.values(), default=written),
        arrived=written,
        in_use=not used.isdisjoint({*names, str(image_id), *map(str, targets)}) or is_based_on,
        pinned=any(record.pinned for record in records),
        own_pins=tuple(sorted(r.name for r in records if r.pinned and r.own_pin)),
        pinned_by_others=any(record.pinned and not record.own_pin for record in records),
        records=tuple(sorted(names)),
        targets=tuple(sorted(targets)),
        items=stock.reachable(roots),
    )


def _read_stock(
    snapshotter: str, content_text: str, on_disk: str, snapshots: str, usage: str
) -> Inventory:
    content = containerd.parse_content(content_text)
    files = {Digest("sha256", m[0]): (int(m[1]), float(m[2])) for m in _FILE.findall(on_disk)}
    key = rf"containerd\.io/gc\.ref\.snapshot\.{re.escape(snapshotter)}(?:/[^=,\s]*)?"
    chain = re.compile(rf"{key}=(sha256:[0-9a-f]{{64}})")
    chain_ids: dict[Digest, Digest] = {}
    sizes: dict[Item, int] = {}
    references: dict[Item, Sequence[Item]] = {}
    for digest, row in content.rows.items():
        file = files.get(digest)
        sizes["blob", digest] = file[0] * _BLOCK if file else _rounded(row)
        items: list[Item] = [("blob", blob) for blob in content.references[digest]]
        if match := chain.search(row):
            chain_ids[digest] = Digest.parse(match[1])
            items.append(("snapshot", chain_ids[digest]))
        references["blob", digest] = items
    folders = _OWN_FOLDERS.get(snapshotter, 0) * _FOLDER
    used = {row[0]: int(row[1]) for row in rows(usage, 2) if row[1].isdecimal()}
    for chain_id, parent in containerd.parse_snapshots(snapshots).items():
        sizes["snapshot", chain_id] = used.get(str(chain_id), 0) + folders
        references["snapshot", chain_id] = [("snapshot", parent)] if parent else []
    active = (Digest.try_parse(row[1]) for row in rows(snapshots, 3) if row[-1] != "Committed")
    written = {digest: time for digest, (_, time) in files.items()}
    in_use = frozenset(filter(None, active))
    return Inventory((), sizes, references, content, chain_ids, written, in_use)


def _rounded(row: str) -> int:
    """Return the size that ctr prints, with four digits, rounded up to the disk's blocks."""
    match = _SIZE.match(row)
    size = float(match.group(1)) * _UNITS[match.group(2)] if match else 0
    return int(-(-size // _FOLDER) * _FOLDER)


def remove_images(node: Node, images: Sequence[NodeImage], before: Inventory) -> None:
    """Remove images and the content that only they need.

    A name that refers to another image by now stays.

    CRI lists images by normalised names, and forgets one when a record of exactly that name is
    removed: one that ``ctr images import --digests`` called ``import-DATE@sha256:…`` stays in its
    list, without content, until containerd restarts (kind #3369). Such a record therefore first
    gets its normalised name, unless an image in `before`, the inventory until now, has it.
    """
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
        words = (ctr, wait, *filters[start : start + _BATCH])
        removals.append(keepalive_command(_REMOVE, _TEN_MINUTES, *words))
    wait_for_event = [("sleep", "0.5")] if tags else []  # CRI learns of a new record by an event
    node.run_all([*tags, *wait_for_event, *removals])


def _aliases(records: Iterable[str], taken: set[str]) -> Mapping[str, str]:
    """Return the normalised names of records that have others, unless these are taken."""
    aliases: dict[str, str] = {}
    for record in records:
        if record.startswith(_WITHOUT_NAME):
            continue
        with suppress(UsageError):
            normalised = str(Reference.parse(record))
            if normalised not in {record, *taken, *aliases.values()}:
                aliases[record] = normalised
    return aliases
