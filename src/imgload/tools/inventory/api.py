"""The library's functions for the images on nodes."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from imgload.core.arguments import require_strings

if TYPE_CHECKING:
    from datetime import timedelta

    from imgload.tools.inventory.list import Listing
    from imgload.tools.inventory.prune import PruneReport


def images(
    patterns: str | Sequence[str] = (),
    *,
    cluster: str | None = None,
    nodes: Sequence[str] = (),
    unused: bool = False,
    drift: bool = False,
) -> Listing:
    """Return the images on the nodes of a cluster, with their sizes and uses.

    Args:
        patterns: names or repositories, full or familiar, with ``*`` and ``?``; empty for all.
        cluster: the cluster's name; None for the kube context's, or the only one.
        nodes: names of the nodes; empty for all nodes of the cluster.
        unused: only images that no container on these nodes was created from.
        drift: only names that lead to different images on different nodes.

    Returns:
        the images, by name; its `errors` name the nodes that could not be asked.

    Raises:
        EngineError: when no engine can be used.
        ClusterError: when the cluster or a node does not exist.

    """
    from imgload.loader.session import Session  # noqa: PLC0415 - start-up
    from imgload.tools.inventory.list import list_images  # noqa: PLC0415

    with Session.open() as connections:
        selected = connections.select_nodes(cluster, nodes)
        return list_images(
            selected, require_strings(patterns, "patterns"), unused=unused, drift=drift
        )


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
    """Remove old builds from the nodes of a cluster, under every name they have on a node.

    Removes images that imgload loaded and that are untagged or older than the newest `keep`
    builds of their repository. Pinned images, and images that any container was created from,
    running or not, are never removed.

    Args:
        repositories: names of repositories, full or familiar, with ``*`` and ``?``; empty for all.
        cluster: the cluster's name; None for the kube context's, or the only one.
        nodes: names of the nodes; empty for all nodes of the cluster.
        keep: the number of newest named builds to keep in each repository.
        older_than: remove only images that came to the node at least so long ago.
        everything: also remove images that imgload did not load.
        dry_run: only report the images that would be removed.

    Raises:
        PruneFailed: when a node failed; its `report` says which.
        ImgloadError: when no node could be pruned; `core.errors` draws the tree.

    """
    from imgload.loader.session import Session  # noqa: PLC0415 - start-up
    from imgload.tools.inventory.prune import Policy, prune_nodes  # noqa: PLC0415

    policy = Policy(require_strings(repositories, "repositories"), keep, older_than, everything)
    with Session.open() as connections:
        return prune_nodes(connections.select_nodes(cluster, nodes), policy, dry_run=dry_run)
