"""Which nodes a cluster's name means to another loader."""

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
"""In which kind looks for engines; k3d knows Docker only."""


def select(engines: Sequence[Engine], tool: Tool, request: Request, cluster: str) -> Sequence[Node]:
    """Return the nodes of the tool's cluster of that name, all of one engine.

    Raises:
        ClusterError: when there is none, or one too many, or a node is not there.
        EngineUnreachable: when the engine that the request names does not answer.

    """
    if request.engine and request.engine not in {engine.name for engine in engines}:
        raise EngineUnreachable(
            f"KIND_EXPERIMENTAL_PROVIDER is {request.engine}, and no {request.engine} answers",
            hint="start it, or say where it is with DOCKER_HOST or CONTAINER_HOST",
        )
    found = [c for c in find_clusters(engines) if _made_by(tool, c)]
    fitting = [c for c in found if c.name == cluster and request.engine in {None, c.engine.name}]
    if not fitting:
        raise _not_found(tool, request, cluster, found)
    return _named(_first(fitting).nodes, request.nodes)


def _made_by(tool: Tool, cluster: Cluster) -> bool:
    return all(tool.label in node.container.labels for node in cluster.nodes)


def _first(fitting: Sequence[Cluster]) -> Cluster:
    """Return the cluster of the engine that is asked first."""
    by_engine = sorted(fitting, key=lambda cluster: _ORDER.index(cluster.engine.endpoint.kind))
    first, *others = by_engine
    if others and others[0].engine.name == first.engine.name:
        both = f"{first.engine.endpoint} and {others[0].engine.endpoint}"
        raise ClusterAmbiguous(
            f"there are two clusters {quoted(first.name)}: on {both}",
            hint="say which engine is meant with DOCKER_HOST or CONTAINER_HOST",
        )
    return first


def _not_found(
    tool: Tool, request: Request, cluster: str, found: Sequence[Cluster]
) -> ClusterNotFound:
    there = ", ".join(map(str, found)) or "none"
    where = f" on {request.engine}" if request.engine else ""
    hint = f"name one of those with {tool.name_flag}" if found else f"make one: {tool.makes}"
    if cluster in {c.name for c in found}:
        hint = "another engine runs it: unset KIND_EXPERIMENTAL_PROVIDER"
    return ClusterNotFound(
        f"no nodes found for cluster {quoted(cluster)}{where}; there: {there}", hint=hint
    )


def _named(nodes: Sequence[Node], names: Sequence[str]) -> Sequence[Node]:
    by_name = {node.name: node for node in nodes}
    for name in names:
        if name not in by_name:
            raise NodeNotFound(
                f"unknown node: {quoted(name)}; there: {', '.join(by_name)}",
                hint="name some of those with --nodes A,B",
            )
    return [by_name[name] for name in dict.fromkeys(names)] or nodes
