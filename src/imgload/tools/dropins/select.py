"""Select the nodes of a cluster by another tool's rules."""

from __future__ import annotations

from collections.abc import Sequence

from imgload.clusters.nodes.node import Node
from imgload.clusters.select import Cluster, find_clusters
from imgload.core.errors import ClusterAmbiguous, ClusterNotFound, EngineUnreachable, NodeNotFound
from imgload.engines.base import Engine
from imgload.engines.endpoint import EngineKind
from imgload.tools.dropins.pflag import quoted
from imgload.tools.dropins.tool import Request, Tool

_ORDER: tuple[EngineKind, ...] = ("docker", "podman")
"""The order in which kind looks for engines; k3d supports only Docker."""


def select(engines: Sequence[Engine], tool: Tool, request: Request, cluster: str) -> Sequence[Node]:
    """Return the nodes of the tool's cluster with this exact name, all on one engine.

    Raises:
        ClusterError: when the cluster or a node does not exist, or two engines of one kind run
            such a cluster.
        EngineUnreachable: when the requested engine does not answer.

    """
    if request.engine and request.engine not in {engine.name for engine in engines}:
        raise EngineUnreachable(
            f"KIND_EXPERIMENTAL_PROVIDER is {request.engine}, and no {request.engine} answers",
            hint="start it, or set its address in DOCKER_HOST or CONTAINER_HOST",
        )
    clusters = [
        c
        for c in find_clusters(engines)
        if all(tool.label in node.container.labels for node in c.nodes)
    ]
    matching = [
        c for c in clusters if c.name == cluster and request.engine in {None, c.engine.name}
    ]
    if not matching:
        raise _not_found(tool, request, cluster, clusters)
    first, *others = sorted(matching, key=lambda c: _ORDER.index(c.engine.endpoint.kind))
    if others and others[0].engine.name == first.engine.name:
        both = f"{first.engine.endpoint} and {others[0].engine.endpoint}"
        raise ClusterAmbiguous(
            f"two clusters have the name {quoted(cluster)}: on {both}",
            hint="select an engine with DOCKER_HOST or CONTAINER_HOST",
        )
    nodes = {node.name: node for node in first.nodes}
    for name in request.nodes:
        if name not in nodes:
            raise NodeNotFound(
                f"unknown node: {quoted(name)}; available: {', '.join(nodes)}",
                hint="name some of those with --nodes A,B",
            )
    return [nodes[name] for name in dict.fromkeys(request.nodes)] or first.nodes


def _not_found(
    tool: Tool, request: Request, cluster: str, clusters: Sequence[Cluster]
) -> ClusterNotFound:
    hint = f"name one of those with {tool.name_flag}" if clusters else f"create one: {tool.makes}"
    if cluster in {c.name for c in clusters}:
        hint = "another engine runs it: unset KIND_EXPERIMENTAL_PROVIDER"
    engine = f" on {request.engine}" if request.engine else ""
    available = ", ".join(map(str, clusters)) or "none"
    return ClusterNotFound(
        f"no nodes found for cluster {quoted(cluster)}{engine}; available: {available}", hint=hint
    )
