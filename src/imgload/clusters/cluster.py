"""Clusters and their nodes, and how they are found on engines and machines."""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from functools import cached_property, partial

import attrs

from imgload.clusters.kubeconfig import current_context
from imgload.clusters.nodes.base import NodeRuntime
from imgload.clusters.provider import ClusterProvider, NodeContainer, providers
from imgload.core.parallel import in_parallel
from imgload.engines.base import Container, ContainerHost

Candidate = tuple[str, Callable[[], NodeRuntime]]
"""The name of a node, and a function that opens it."""


@attrs.frozen
class Member:
    """A node of a cluster, to be opened when it is needed: that may detect its runtime."""

    node: NodeContainer
    engine: ContainerHost
    tool: ClusterProvider

    @property
    def name(self) -> str:
        return self.node.container.name

    def open(self) -> NodeRuntime:
        """Return the node with its runtime."""
        return self.tool.runtime_of(self.node, self.engine)


@attrs.frozen
class Cluster:
    """A cluster, the engine that runs its nodes, and the provider that made it.

    If the nodes are machines, `engine` is the first of them.
    """

    name: str
    engine: ContainerHost
    members: tuple[Member, ...]
    tool: ClusterProvider

    @property
    def identity(self) -> tuple[object, ...]:
        """The same after it was created again: clusters of two tools may share a name."""
        # the machines of one cluster are hosts of their own
        return self.name, self.tool, self.engine.endpoint.kind == "ssh" or self.engine

    @property
    def candidates(self) -> list[Candidate]:
        """The nodes by name, each as a function that opens it."""
        return [(member.name, member.open) for member in self.members]

    @cached_property
    def nodes(self) -> tuple[NodeRuntime, ...]:
        """The nodes with their runtimes."""
        return tuple(in_parallel([open_node for _, open_node in self.candidates]))

    @property
    def context(self) -> str:
        """The cluster's kube context; the current one if it may have several."""
        contexts = self.tool.contexts(self.name)
        current = current_context() if len(contexts) > 1 else None
        return current if current in contexts else contexts[0]

    def is_named(self, names: Collection[str]) -> bool:
        """Whether one of the names is the cluster's, or that of a kube context."""
        return not {self.name, *self.tool.contexts(self.name)}.isdisjoint(names)

    def __str__(self) -> str:
        return f"{self.name} ({self.engine.name})"


def find_clusters(
    engines: Sequence[ContainerHost], of: Sequence[ClusterProvider] | None = None
) -> list[Cluster]:
    """Return every cluster on some engines and on machines, of some providers (default: all).

    Without engines, it returns those on machines. Each engine is queried once, for the containers
    with the provider's label if there is only one provider.
    """
    tools = of or providers()
    listings: list[Sequence[Container] | None] = [None for _ in engines]
    if len(tools) > 1:
        listings = [*in_parallel([partial(engine.containers, "") for engine in engines])]
    hosts = [(e, tool, x) for e, x in zip(engines, listings, strict=True) for tool in tools]
    hosts += [(m, tool, None) for tool in tools for m in tool.machines() if m not in engines]
    answers = in_parallel([partial(tool.find, host, listed) for host, tool, listed in hosts])
    clusters: dict[tuple[object, ...], Cluster] = {}
    for (host, tool, _), found in zip(hosts, answers, strict=True):
        for name, containers in found.items():
            members = tuple(Member(container, host, tool) for container in containers)
            cluster = Cluster(name, host, (), tool)
            first = clusters.get(cluster.identity, cluster)
            clusters[first.identity] = attrs.evolve(first, members=(*first.members, *members))
    return list(clusters.values())
