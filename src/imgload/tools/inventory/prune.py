"""Old builds off the nodes: which may go, and that they are gone."""

from __future__ import annotations

import json
import time
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from datetime import datetime, timedelta
from functools import partial
from typing import Any

import attrs

from imgload.clusters.nodes.batch import Output
from imgload.clusters.nodes.containerd import content_of
from imgload.clusters.nodes.node import Node
from imgload.core.errors import JSON_VERSION, ImgloadError, NotRemoved, UsageError, error_json
from imgload.core.parallel import in_parallel
from imgload.oci.patterns import matches, repositories_of, require_repositories
from imgload.tools.inventory.list import take_inventories
from imgload.tools.inventory.node_images import Inventory, NodeImage
from imgload.tools.inventory.remove import remove_images


@attrs.frozen
class Policy:
    """What may go.

    Args:
        repositories: names of repositories, or globs; none for all.
        keep: how many named builds stay in each repository, the newest first.
        older_than: how long ago what goes must have come to the node, at least.
        everything: also what imgload did not load.

    Raises:
        UsageError: when one of the repositories has a tag, or less than none is to be kept.

    """

    repositories: tuple[str, ...] = ()
    keep: int = 3
    older_than: timedelta | None = None
    everything: bool = False

    def __attrs_post_init__(self) -> None:
        require_repositories(self.repositories)
        if type(self.keep) is not int:
            raise UsageError(f"keep must be an integer, not {self.keep!r:.100}")
        if self.older_than is not None and not isinstance(self.older_than, timedelta):
            raise UsageError(f"older_than must be a timedelta, not {self.older_than!r:.100}")
        if self.keep < 0:
            raise UsageError(f"cannot keep {self.keep} builds", hint="0 keeps none")


@attrs.frozen
class Kept:
    """An image that stays, and why."""

    image: NodeImage
    reason: str


@attrs.frozen
class NodePruned:
    """What was done on one node; in a dry run, what would be.

    Args:
        node: its name.
        removed: the images that are gone, under every name.
        kept: the images that stay, of the repositories asked for.
        bytes_freed: what is gone from the node's disk.
        error: why the node could not be asked, or which images would not go; or None.

    """

    node: str
    removed: tuple[NodeImage, ...] = ()
    kept: tuple[Kept, ...] = ()
    bytes_freed: int = 0
    error: ImgloadError | None = None

    def to_json(self) -> dict[str, Any]:
        """Return the node's part of the document."""
        return {
            "node": self.node,
            "removed": [_identity(image) for image in self.removed],
            "kept": [{**_identity(kept.image), "reason": kept.reason} for kept in self.kept],
            "bytes_freed": self.bytes_freed,
            "error": error_json(self.error) if self.error else None,
        }


@attrs.frozen
class PruneReport:
    """What was pruned, node by node; in a dry run, what would be."""

    nodes: tuple[NodePruned, ...]
    dry_run: bool = False

    @property
    def ok(self) -> bool:
        """Whether nothing went wrong on any node."""
        return all(node.error is None for node in self.nodes)

    def to_json(self) -> dict[str, Any]:
        """Return the document of ``--output json``."""
        nodes = [node.to_json() for node in self.nodes]
        return {"version": JSON_VERSION, "dry_run": self.dry_run, "nodes": nodes, "ok": self.ok}


def prune_nodes(nodes: Sequence[Node], policy: Policy, *, dry_run: bool) -> PruneReport:
    """Remove from all nodes at once what the policy lets go; see `imgload.prune`."""
    answers = take_inventories(nodes)
    steps = [partial(_prune, node, answers[node.name], policy, dry_run) for node in nodes]
    report = PruneReport(tuple(in_parallel(steps)), dry_run)
    if not report.ok:
        raise PruneFailed(report)
    return report


def _prune(
    node: Node,
    before: Inventory | ImgloadError,
    policy: Policy,
    dry_run: bool,  # noqa: FBT001 - called by `partial`
) -> NodePruned:
    if isinstance(before, ImgloadError):
        return NodePruned(node.name, error=before)
    try:
        images = with_creation_times(node, before.images)
    except ImgloadError as error:
        return NodePruned(node.name, error=error)
    going, kept = choose(images, policy, time.time())
    if dry_run or not going:
        return NodePruned(node.name, going, kept, before.freed_without(going))
    try:
        after = remove_images(node, going, before)
    except ImgloadError as error:
        return NodePruned(node.name, kept=kept, error=error)
    return _compare(node, going, kept, before, after)


def with_creation_times(node: Node, images: Sequence[NodeImage]) -> tuple[NodeImage, ...]:
    """Return the images; those that came to the node in one moment with their creation time.

    Raises:
        NodeUnusable: when containerd cannot be asked.

    """
    ages = Counter(image.since for image in images if image.names)
    tied = [image for image in images if image.names and ages[image.since] > 1]
    if not tied:
        return tuple(images)
    configs = node.run_all([content_of(image.image_id) for image in tied])
    created = {i.image_id: _created(c) for i, c in zip(tied, configs, strict=True)}
    return tuple(attrs.evolve(image, created=created.get(image.image_id)) for image in images)


def _created(config: Output) -> float | None:
    """Return the creation time that an image's config tells, in seconds since 1970."""
    try:
        return datetime.fromisoformat(json.loads(config.stdout)["created"]).timestamp()
    except (ValueError, KeyError, TypeError, RecursionError, OverflowError, OSError):
        return None


def _compare(
    node: Node,
    going: Sequence[NodeImage],
    kept: tuple[Kept, ...],
    before: Inventory,
    after: Inventory,
) -> NodePruned:
    """Say what is gone by what is there afterwards."""
    there = {image.image_id: image for image in after.images}
    left = [there[image.image_id] for image in going if image.image_id in there]
    freed = before.storage.size_of(before.storage.items - after.storage.items)
    names = {name for image in after.images for name in image.names}
    gone = [image for image in going if image.image_id not in there]
    removed = tuple(
        attrs.evolve(i, names=tuple(n for n in i.names if n not in names)) for i in gone
    )
    return NodePruned(node.name, removed, kept, freed, _left(node, left) if left else None)


def _left(node: Node, images: Sequence[NodeImage]) -> NotRemoved:
    names = ", ".join(record for image in images for record in image.records)
    return NotRemoved(
        f"{node.name} still has {names}",
        hint=f"{node.engine.name} exec {node.name} ctr -n k8s.io images ls",
    )


def choose(
    images: Sequence[NodeImage], policy: Policy, now: float
) -> tuple[tuple[NodeImage, ...], tuple[Kept, ...]]:
    """Return which images of a node go, and which of the repositories asked for stay, and why.

    Args:
        images: all images of the node.
        policy: what may go.
        now: the time, in seconds since 1970.

    """
    asked = sorted((image for image in images if _asked(image, policy)), key=_order)
    reason = _Reasons(policy, now, _places(images), _shared_names(images)).of
    reasons = [(image, reason(image)) for image in asked]
    going = tuple(image for image, why in reasons if not why)
    return going, tuple(Kept(image, why) for image, why in reasons if why)


def _order(image: NodeImage) -> tuple[bool, tuple[str, ...], float]:
    return not image.names, image.names or image.loaded_as, image.since or 0.0


def _asked(image: NodeImage, policy: Policy) -> bool:
    names = image.names or image.loaded_as
    return not policy.repositories or any(matches(n, policy.repositories) for n in names)


def _places(images: Sequence[NodeImage]) -> dict[str, list[NodeImage]]:
    """Return the named images of each repository, the newest first."""
    newest = sorted(
        images,
        key=lambda i: (-(i.since or 0.0), -(i.created or 0.0), -(i.arrived or 0.0), i.image_id),
    )
    places: dict[str, list[NodeImage]] = {}
    for image in newest:
        for repository in repositories_of(image.names):
            places.setdefault(repository, []).append(image)
    return places


def _shared_names(images: Sequence[NodeImage]) -> frozenset[str]:
    """Return names that seem to lead to two images, as one with a line break in it can have it."""
    seen = Counter(name for image in images for name in image.names)
    return frozenset(name for name, times in seen.items() if times > 1)


@attrs.frozen
class _Reasons:
    """Why an image stays."""

    policy: Policy
    now: float
    places: Mapping[str, Sequence[NodeImage]]
    unclear: frozenset[str]

    def of(self, image: NodeImage) -> str:
        """Return the first reason, or nothing when the image may go."""
        return next((why for why in self._all(image) if why), "")

    def _all(self, image: NodeImage) -> Iterator[str]:
        yield "in use by a container" if image.in_use else ""
        yield "pinned" if image.pinned else ""
        yield "" if image.loaded_as or self.policy.everything else "not loaded by imgload"
        yield "its name is unclear" if self.unclear.intersection(image.names) else ""
        yield self._other_repository(image)
        yield self._newest(image)
        yield self._too_young(image)

    def _other_repository(self, image: NodeImage) -> str:
        wanted = self.policy.repositories
        for repository in sorted(repositories_of(image.names)) if wanted else ():
            if not matches(repository, wanted):
                return f"also named in {repository}"
        return ""

    def _newest(self, image: NodeImage) -> str:
        keep = self.policy.keep
        for repository in sorted(repositories_of(image.names)):
            newest = self.places[repository][:keep]
            if newest and image.image_id == newest[0].image_id:
                return f"the newest of {repository}: {image.names[0]}"
            if any(image.image_id == other.image_id for other in newest):
                return f"among the newest {keep} of {repository}"
        return ""

    def _too_young(self, image: NodeImage) -> str:
        least = self.policy.older_than
        if least is None:
            return ""
        age = self.now - image.since if image.since is not None else 0.0
        return "" if age >= least.total_seconds() else "too young"


def _identity(image: NodeImage) -> dict[str, Any]:
    return {
        "image_id": str(image.image_id),
        "names": list(image.names),
        "loaded_as": list(image.loaded_as),
        "size": image.size,
    }


class PruneFailed(ImgloadError):
    """At least one node could not be pruned.

    Args:
        report: what happened on every node, including those that went well.

    """

    def __init__(self, report: PruneReport) -> None:
        failed = [node.error.message for node in report.nodes if node.error]
        super().__init__("\n".join(failed) or "some node failed")
        self.report = report
