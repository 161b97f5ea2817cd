"""The nodes that a watch loads into, also after their cluster was created again."""

from __future__ import annotations

from collections.abc import Sequence

import attrs

from imgload.clusters.nodes.node import Node
from imgload.clusters.select import select_cluster, select_nodes
from imgload.engines.base import Engine


@attrs.define
class LastingSelection:
    """A selection of nodes that does not follow later changes of the kube context.

    Args:
        engines: those that run the nodes; others may come and go.
        cluster: its name; None when the nodes were named.
        names: only these nodes; empty for all.
        nodes: the current ones.

    """

    engines: Sequence[Engine]
    cluster: str | None
    names: Sequence[str]
    nodes: tuple[Node, ...] = ()

    @classmethod
    def settle(
        cls, engines: Sequence[Engine], cluster: str | None, names: Sequence[str]
    ) -> LastingSelection:
        """Select nodes once; arguments and errors as for `select_nodes`."""
        nodes = select_nodes(engines, cluster, names)
        if cluster is None and not names:
            cluster = select_cluster(engines, None).name
        own = list(dict.fromkeys(node.engine for node in nodes))
        return cls(own or engines, cluster, names, nodes)

    def renew(self) -> bool:
        """Find the nodes again; return whether any has a new container.

        Raises:
            EngineError: when an engine that runs them does not answer.
            ClusterError: when they do not exist.

        """
        nodes = select_nodes(self.engines, self.cluster, self.names)
        before = {node.container.id for node in self.nodes}
        if [node.container for node in nodes] != [node.container for node in self.nodes]:
            self.nodes = nodes
        return not before.issuperset(node.container.id for node in nodes)

    def forget(self) -> None:
        """Drop cached facts about the nodes: after a failure their free space is stale, too."""
        self.nodes = tuple(
            Node(n.name, n.engine, n.container, n.runtime, n.role) for n in self.nodes
        )
