"""The library's functions for the images on nodes."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from imgload.oci.reference import strings

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
    from imgload.loader.session import Connections  # noqa: PLC0415 - start-up
    from imgload.tools.inventory.list import list_images  # noqa: PLC0415

    with Connections.open() as connections:
        chosen = connections.select_nodes(cluster, nodes)
        return list_images(chosen, strings(patterns, "patterns"), unused=unused, drift=drift)


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
        ImgloadError: when nothing could be pruned at all; the tree is drawn in `core.errors`.

    """
    from imgload.loader.session import Connections  # noqa: PLC0415 - start-up
    from imgload.tools.inventory.prune import Policy, prune_nodes  # noqa: PLC0415

    policy = Policy(strings(repositories, "repositories"), keep, older_than, everything)
    with Connections.open() as connections:
        return prune_nodes(connections.select_nodes(cluster, nodes), policy, dry_run=dry_run)
