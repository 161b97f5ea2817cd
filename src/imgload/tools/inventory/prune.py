"""Remove old builds from nodes: select them, and check that they are gone."""

from __future__ import annotations

import json
import time
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from datetime import datetime, timedelta
from functools import partial
from typing import Any

import attrs

from imgload.clusters.cluster import Cluster
from imgload.clusters.nodes import containerd
from imgload.clusters.nodes.base import NodeRuntime
from imgload.core.arguments import require_flags, require_strings
from imgload.core.errors import JSON_VERSION, ImgloadError, NotRemoved, UsageError, error_json
from imgload.core.parallel import in_parallel
from imgload.loader.record import change_record
from imgload.loader.session import Session
from imgload.oci.digest import Digest
from imgload.oci.reference import matches, repositories_of, require_repositories
from imgload.tools.inventory.base import NodeImage
from imgload.tools.inventory.runtimes import remove_images, take_inventory


@attrs.frozen
class Policy:
    """The selection of images to remove, by the arguments of `prune`; UsageError if invalid."""

    repositories: tuple[str, ...] = ()
    keep: int = 3
    older_than: timedelta | None = None
    everything: bool = False
    unpin: bool = False

    def __attrs_post_init__(self) -> None:
        require_repositories(self.repositories)
        require_flags(everything=self.everything, unpin=self.unpin)
        if type(self.keep) is not int:
            raise UsageError(f"keep must be an integer, not {self.keep!r:.100}")
        if self.older_than is not None and not isinstance(self.older_than, timedelta):
            raise UsageError(f"older_than must be a timedelta, not {self.older_than!r:.100}")
        if self.keep < 0:
            raise UsageError(f"cannot keep {self.keep} builds", hint="0 keeps none")


@attrs.frozen
class Kept:
    """A kept image, and the reason."""

    image: NodeImage
    reason: str


@attrs.frozen
class NodePruned:
    """The result on one node; in a dry run, the plan.

    Args:
        node: its name.
        removed: the removed images, with their removed names.
        kept: the kept images of the selected repositories.
        bytes_freed: on the node's disk.
        error: why the node could not be asked, or which images or pins remain; or None.
        unpinned: the names of kept images whose pins were removed.

    """

    node: str
    removed: tuple[NodeImage, ...] = ()
    kept: tuple[Kept, ...] = ()
    bytes_freed: int = 0
    error: ImgloadError | None = None
    unpinned: tuple[str, ...] = ()

    def to_json(self) -> dict[str, Any]:
        """Return the node's part of the document."""
        return {
            "node": self.node,
            "removed": [_identity(image) for image in self.removed],
            "kept": [{**_identity(kept.image), "reason": kept.reason} for kept in self.kept],
            "unpinned": list(self.unpinned),
            "bytes_freed": self.bytes_freed,
            "error": error_json(self.error) if self.error else None,
        }


@attrs.frozen
class PruneReport:
    """The results on all nodes; in a dry run, the plan."""

    nodes: tuple[NodePruned, ...]
    dry_run: bool = False

    @property
    def ok(self) -> bool:
        """Whether no node failed."""
        return all(node.error is None for node in self.nodes)

    def to_json(self) -> dict[str, Any]:
        """Return the document of ``--output json``."""
        nodes = [node.to_json() for node in self.nodes]
        return {"version": JSON_VERSION, "dry_run": self.dry_run, "nodes": nodes, "ok": self.ok}


class PruneFailed(ImgloadError):
    """At least one node could not be pruned.

    Args:
        report: the results on all nodes, including those that succeeded.

    """

    def __init__(self, report: PruneReport) -> None:
        failed = [node.error.message for node in report.nodes if node.error]
        super().__init__("\n".join(failed) or "some node failed")
        self.show_hints(node.error.hint for node in report.nodes if node.error)
        self.report = report


def prune(
    repositories: str | Sequence[str] = (),
    *,
    cluster: str | Sequence[str] | None = None,
    nodes: str | Sequence[str] = (),
    address: str | None = None,
    keep: int = 3,
    older_than: timedelta | None = None,
    everything: bool = False,
    unpin: bool = False,
    dry_run: bool = False,
) -> PruneReport:
    """Remove old builds from the nodes of a cluster, under every name they have on a node.

    Removes images that imgload loaded and that are untagged or older than the newest `keep`
    builds of their repository. Pinned images, and images that any container was created from,
    running or not, are never removed.

    Args:
        repositories: names of repositories, full or familiar, with ``*`` and ``?``; empty for all.
        cluster: the cluster's name, or several; None for the kube context's, or the only one if no
            kube context is set.
        nodes: names or patterns of the nodes; empty for all nodes of the cluster.
        address: the path of containerd's socket on the nodes; None to find it.
        keep: the number of newest named builds to keep in each repository.
        older_than: remove only images that came to the node at least so long ago.
        everything: also remove images that imgload did not load.
        unpin: remove the pins that imgload set on the selected repositories' images, which are
            then kept or removed like others. Other pins stay.
        dry_run: only report the images that would be removed.

    Raises:
        PruneFailed: when a node failed; its `report` says which.
        ImgloadError: when no node could be pruned; `core.errors` draws the tree.

    """
    require_flags(dry_run=dry_run)
    patterns = require_strings(repositories, "repositories")
    policy = Policy(patterns, keep, older_than, everything, unpin)
    with Session.open(has_images=False) as connections:
        selection = connections.select(cluster, nodes, ignores_context=False, address=address)
        selected = selection.nodes
        calls = [partial(_prune, node, policy, dry_run=dry_run) for node in selected]
        report = PruneReport(tuple(in_parallel(calls)), dry_run)
    if not report.ok:
        raise PruneFailed(report)
    for chosen in () if dry_run else selection.clusters:
        change_record(chosen, removed=_removed_names(report, chosen))
    return report


def _removed_names(report: PruneReport, cluster: Cluster) -> set[str]:
    """Return the names that were removed, and that no node of a cluster can have any more."""
    members = {member.name for member in cluster.members}
    nodes = [node for node in report.nodes if node.node in members]
    if len(nodes) < len(members):
        return set()
    kept = {name for node in nodes for kept in node.kept for name in kept.image.names}
    return {name for node in nodes for image in node.removed for name in image.names} - kept


def _prune(node: NodeRuntime, policy: Policy, *, dry_run: bool) -> NodePruned:
    kept: tuple[Kept, ...] = ()
    try:
        before = take_inventory(node)
        images = _with_creation_times(node, before.images)
        removable, kept = choose(images, policy, time.time())
        pins = {name for k in kept for name in k.image.own_pins} if policy.unpin else set[str]()
        unpinned = tuple(sorted(pins))
        if dry_run or not (removable or pins):
            freed = before.freed_without(removable)
            return NodePruned(node.name, removable, kept, freed, unpinned=unpinned)
        if pins:
            node.unpin(unpinned)
        after = remove_images(node, removable, before)
    except ImgloadError as error:
        return NodePruned(node.name, kept=kept, error=error)
    remaining = {image.image_id: image for image in after.images}
    names = {name for image in after.images for name in image.names}
    removed = tuple(
        attrs.evolve(image, names=tuple(name for name in image.names if name not in names))
        for image in removable
        if image.image_id not in remaining
    )
    freed = before.size_of(before.sizes.keys() - after.sizes.keys())
    left = [remaining[image.image_id] for image in removable if image.image_id in remaining]
    still_pinned = {name for image in after.images for name in image.own_pins} & pins
    remain = [record for image in left for record in image.records]
    remain += [f"the pin of {name}" for name in sorted(still_pinned)]
    hint = node.list_command
    message = f"{node.name} still has {', '.join(remain)}"
    not_removed = NotRemoved(message, hint=hint) if remain else None
    unpinned = tuple(sorted(pins - still_pinned))
    return NodePruned(node.name, removed, kept, freed, not_removed, unpinned)


def _with_creation_times(node: NodeRuntime, images: Sequence[NodeImage]) -> tuple[NodeImage, ...]:
    """Read the creation times of named images that came to the node at the same time."""
    times = Counter(image.since for image in images if image.names)
    tied = [
        image
        for image in images
        if image.names and times[image.since] > 1 and image.created is None
    ]
    if not tied:
        return tuple(images)
    configs = node.run_all([containerd.content_command(image.image_id) for image in tied])
    created: dict[Digest, float] = {}
    for image, config in zip(tied, configs, strict=True):
        with suppress(ValueError, KeyError, TypeError, RecursionError, OverflowError, OSError):
            time_text = json.loads(config.stdout)["created"]
            created[image.image_id] = datetime.fromisoformat(time_text).timestamp()
    return tuple(
        attrs.evolve(image, created=created.get(image.image_id, image.created)) for image in images
    )


def choose(
    images: Sequence[NodeImage], policy: Policy, now: float
) -> tuple[tuple[NodeImage, ...], tuple[Kept, ...]]:
    """Return the images of a node to remove, and the kept ones of the selected repositories."""
    newest_first = sorted(
        images,
        key=lambda i: (-(i.since or 0.0), -(i.created or 0.0), -(i.arrived or 0.0), i.image_id),
    )
    builds: dict[str, list[Digest]] = {}
    for image in newest_first:
        for repository in repositories_of(image.names):
            builds.setdefault(repository, []).append(image.image_id)
    names = Counter(name for image in images for name in image.names)
    # A name with a line break can look as if it led to two images.
    unclear = frozenset(name for name, count in names.items() if count > 1)
    removable: list[NodeImage] = []
    kept: list[Kept] = []
    for image in sorted(images, key=lambda i: (not i.names, i.names or i.loaded_as, i.since or 0)):
        wanted, own = policy.repositories, image.names or image.loaded_as
        if not wanted or any(matches(name, wanted) for name in own):
            reasons = _reasons_to_keep(image, policy, now, builds, unclear)
            if reason := next(reasons, ""):
                kept.append(Kept(image, reason))
            else:
                removable.append(image)
    return tuple(removable), tuple(kept)


def _reasons_to_keep(
    image: NodeImage,
    policy: Policy,
    now: float,
    builds: Mapping[str, Sequence[Digest]],
    unclear: frozenset[str],
) -> Iterator[str]:
    if image.in_use:
        yield "in use by a container"
    if image.pinned_by_others or (image.pinned and not policy.unpin):
        yield "pinned"
    if not image.loaded_as and not policy.everything:
        yield "not loaded by imgload"
    if not unclear.isdisjoint(image.names):
        yield "its name is unclear"
    repositories, wanted = sorted(repositories_of(image.names)), policy.repositories
    yield from (f"also named in {r}" for r in repositories if wanted and not matches(r, wanted))
    for repository in repositories:
        newest = builds[repository][: policy.keep]
        if newest[:1] == [image.image_id]:
            yield f"the newest of {repository}: {image.names[0]}"
        if image.image_id in newest:
            yield f"among the newest {policy.keep} of {repository}"
    age = now - image.since if image.since is not None else 0.0
    if policy.older_than is not None and age < policy.older_than.total_seconds():
        yield "too young"


def _identity(image: NodeImage) -> dict[str, Any]:
    return {
        "image_id": str(image.image_id),
        "names": list(image.names),
        "loaded_as": list(image.loaded_as),
        "size": image.size,
    }
