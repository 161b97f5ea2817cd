"""The nodes of a cluster for as long as a watch lasts, also after the cluster was made anew."""

from __future__ import annotations

from collections.abc import Sequence

import attrs

from imgload.clusters.nodes.node import Node
from imgload.clusters.select import select_cluster, select_nodes
from imgload.engines.base import Engine


@attrs.define
class LastingSelection:
    """Which nodes are meant, settled once: whatever the kube context is later.

    Args:
        engines: those that run the nodes; others may come and go.
        cluster: its name; None when nodes are meant by their names alone.
        names: only these nodes; empty for all.
        nodes: as they were found last.

    """

    engines: Sequence[Engine]
    cluster: str | None
    names: Sequence[str]
    nodes: tuple[Node, ...] = ()

    @classmethod
    def settle(
        cls, engines: Sequence[Engine], cluster: str | None, names: Sequence[str]
    ) -> LastingSelection:
        """Settle which nodes are meant; arguments and errors as for `select_nodes`."""
        nodes = select_nodes(engines, cluster, names)
        if cluster is None and not names:
            cluster = select_cluster(engines, None).name
        own = list(dict.fromkeys(node.engine for node in nodes))
        return cls(own or engines, cluster, names, nodes)

    def renew(self) -> bool:
        """Find the nodes again; return whether their containers are others than before.

        Raises:
            EngineError: when an engine that runs them does not answer.
            ClusterError: when they are not there.

        """
        found = select_nodes(self.engines, self.cluster, self.names)
        before = {node.container.id for node in self.nodes}
        if [node.container for node in found] != [node.container for node in self.nodes]:
            self.nodes = found
        return not before.issuperset(node.container.id for node in found)

    def forget(self) -> None:
        """Forget what is known of the nodes: after a failure their free space, too, is stale."""
        self.nodes = tuple(
            Node(n.name, n.engine, n.container, n.runtime, n.role) for n in self.nodes
        )
