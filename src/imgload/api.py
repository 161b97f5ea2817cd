"""The one-call forms of the library."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

from imgload.events import Event
from imgload.loader import Loader, require_options
from imgload.looking import Request
from imgload.reference import strings
from imgload.report import Report

if TYPE_CHECKING:
    from datetime import timedelta
    from os import PathLike

    from imgload.clusters.listing import ClusterList
    from imgload.listing import Listing
    from imgload.plan import Verify
    from imgload.pruning import PruneReport
    from imgload.transports.choose import TransportOption


def load(
    images: str | Sequence[str],
    *,
    cluster: str | None = None,
    nodes: Sequence[str] = (),
    source: str | PathLike[str] | None = None,
    name: str | None = None,
    also: Sequence[str] = (),
    platform: str | None = None,
    transport: TransportOption = "auto",
    verify: Verify = "cri",
    dry_run: bool = False,
    on_event: Callable[[Event], None] = lambda _: None,
) -> Report:
    """Put images on every node of a cluster, and prove that they are there.

    Args:
        images: one or several names or image IDs.
        cluster: the cluster's name; None for the kube context's, or else the only one.
        nodes: names of the nodes to load; empty for all of the cluster.
        source: ``docker``, ``podman``, an engine's URL, or a path to an archive; None asks every
            engine that can be reached.
        name: the name to load one image under, in place of its own.
        also: names that the one image gets beside that, in the same transfer.
        transport: ``archive`` (whole images), ``delta`` (what is missing) or ``auto``.
        platform: ``os/arch[/variant]`` out of a multi-platform image.
        verify: ``cri`` (what containerd and CRI say), or ``deep`` (and every blob that a node keeps
            of the images is read again, and hashed there).
        dry_run: plan only; nothing is changed.
        on_event: told what happens, as values of `imgload.Event`, from several threads.

    Returns:
        what happened, image by image and node by node.

    Raises:
        LoadFailed: when a node was not proven; its `report` says which.
        ImgloadError: when nothing could be loaded at all; the tree is drawn in `imgload.errors`.

    """
    texts = strings(images, "images")
    require_options(transport, verify, on_event)
    Request.of(texts, name, also, platform)  # refuses what it can before an engine is looked for
    with Loader.connect(cluster, nodes=nodes, source=source) as loader:
        return loader.load(
            texts,
            name=name,
            also=also,
            platform=platform,
            transport=transport,
            verify=verify,
            dry_run=dry_run,
            on_event=on_event,
        )


def verify(
    images: str | Sequence[str],
    *,
    cluster: str | None = None,
    nodes: Sequence[str] = (),
    source: str | PathLike[str] | None = None,
    name: str | None = None,
    platform: str | None = None,
    deep: bool = False,
    on_event: Callable[[Event], None] = lambda _: None,
) -> Report:
    """Read back whether every node of a cluster has exactly these images; nothing is changed.

    Args:
        images: one or several names or image IDs; the source tells which image that is.
        cluster: the cluster's name; None for the kube context's, or else the only one.
        nodes: names of the nodes to ask; empty for all of the cluster.
        source: as for `load`.
        name: the name that one image has on the nodes, in place of its own.
        platform: ``os/arch[/variant]`` out of a multi-platform image.
        deep: also read every blob that a node keeps of them again, and hash it there.
        on_event: told each result, as values of `imgload.Event`.

    Returns:
        what was read back, image by image and node by node.

    Raises:
        LoadFailed: when a node lacks an image, or has another one under its name.
        ImgloadError: when the images or the nodes could not be settled on.

    """
    texts = strings(images, "images")
    Request.of(texts, name, (), platform)  # as for `load`
    with Loader.connect(cluster, nodes=nodes, source=source) as loader:
        return loader.verify(texts, name=name, platform=platform, deep=deep, on_event=on_event)


def images(
    patterns: str | Sequence[str] = (),
    *,
    cluster: str | None = None,
    nodes: Sequence[str] = (),
    unused: bool = False,
    drift: bool = False,
) -> Listing:
    """Return which images the nodes of a cluster have, and what they take there.

    Args:
        patterns: names or repositories, in full or as people write them, with ``*`` and ``?``;
            none for all.
        cluster: the cluster's name; None for the kube context's, or else the only one.
        nodes: names of the nodes; empty for all of the cluster.
        unused: only images that no container on these nodes was made from.
        drift: only names that lead to different images on different nodes.

    Returns:
        the images, node by node; its `errors` name the nodes that could not be asked.

    Raises:
        EngineError: when no engine can be used.
        ClusterError: when the cluster or a node is not there.

    """
    from imgload.connect import Connections  # noqa: PLC0415 - start-up
    from imgload.listing import list_images  # noqa: PLC0415

    wanted = strings(patterns, "patterns")
    with Connections.open() as connections:
        chosen = connections.select_nodes(cluster, nodes)
        return list_images(chosen, wanted, unused=unused, drift=drift)


def prune(
    repositories: str | Sequence[str] = (),
    *,
    cluster: str | None = None,
    nodes: Sequence[str] = (),
    keep: int = 3,
    older_than: timedelta | None = None,
    everything: bool = False,
    dry_run: bool = False,
) -> PruneReport:
    """Remove old builds from the nodes of a cluster, under every name that they have there.

    What goes is what imgload loaded, and what has no name any more or is not among the newest of
    its repository. What a container, running or not, was made from stays, and what is pinned.

    Args:
        repositories: names of repositories, in full or as people write them, with ``*`` and
            ``?``; none for all.
        cluster: the cluster's name; None for the kube context's, or else the only one.
        nodes: names of the nodes; empty for all of the cluster.
        keep: how many named builds stay in each repository, the newest first.
        older_than: how long ago what goes must have come to the node, at least.
        everything: also what imgload did not load.
        dry_run: only say what would go.

    Raises:
        PruneFailed: when a node failed; its `report` says which.
        ImgloadError: when nothing could be pruned at all; the tree is drawn in `imgload.errors`.

    """
    from imgload.connect import Connections  # noqa: PLC0415 - start-up
    from imgload.pruning import Policy, prune_nodes  # noqa: PLC0415

    policy = Policy(strings(repositories, "repositories"), keep, older_than, everything)
    with Connections.open() as connections:
        return prune_nodes(connections.select_nodes(cluster, nodes), policy, dry_run=dry_run)


def find_clusters() -> ClusterList:
    """Return the clusters of kind, k3d and minikube on every engine that can be reached.

    Raises:
        EngineError: when no engine can be.

    """
    from imgload.clusters.listing import list_clusters  # noqa: PLC0415 - start-up
    from imgload.connect import Connections  # noqa: PLC0415

    with Connections.open() as connections:
        errors = [attempt.error for attempt in connections.found.silent if attempt.error]
        return list_clusters(connections.engines, errors)
