"""Which nodes a name means to kind."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import partial

from imgload.clusters.kind import kind_nodes
from imgload.engines.base import Container, Engine, EngineKind
from imgload.errors import ClusterAmbiguous, ClusterNotFound, EngineUnreachable, NodeNotFound
from imgload.integrations.arguments import quoted
from imgload.integrations.tool import Request
from imgload.nodes.node import Node
from imgload.parallel import in_parallel

_ORDER: tuple[EngineKind, ...] = ("docker", "podman")
"""In which kind looks for engines."""


Nodes = tuple[Engine, list[Container]]


def select(reachable: Sequence[Engine], request: Request, cluster: str) -> Sequence[Node]:
    """Return a cluster's nodes; see `imgload.integrations.kind.Kind.select`."""
    engines = [e for e in reachable if request.engine in {None, e.name}]
    if not engines:
        raise EngineUnreachable(
            f"KIND_EXPERIMENTAL_PROVIDER is {request.engine}, and no {request.engine} answers",
            hint="start it, or say where it is with DOCKER_HOST or CONTAINER_HOST",
        )
    there = [(e, nodes[cluster]) for e, nodes in _clusters(engines) if cluster in nodes]
    nodes = [Node(c.name, e, c) for e, cs in _nearest(cluster, there) for c in cs]
    if not nodes:
        raise _no_cluster(cluster, engines, _clusters(reachable))
    return _named(nodes, request.nodes)


def _clusters(engines: Sequence[Engine]) -> list[tuple[Engine, dict[str, list[Container]]]]:
    answers = in_parallel([partial(kind_nodes, engine) for engine in engines])
    return list(zip(engines, answers, strict=True))


def _nearest(cluster: str, there: Sequence[Nodes]) -> Sequence[Nodes]:
    """Return the one engine that runs a cluster, of the kind that kind would ask first."""
    for kind in _ORDER:
        fitting = [each for each in there if each[0].name == kind]
        if len(fitting) > 1:
            listed = " and ".join(str(engine.endpoint) for engine, _ in fitting)
            raise ClusterAmbiguous(
                f"there are two clusters {quoted(cluster)}: on {listed}",
                hint="say which engine is meant with DOCKER_HOST or CONTAINER_HOST",
            )
        if fitting:
            return fitting
    return ()


def _no_cluster(
    cluster: str,
    asked: Sequence[Engine],
    clusters: Sequence[tuple[Engine, Mapping[str, object]]],
) -> ClusterNotFound:
    listed = ", ".join(f"{name} ({engine.name})" for engine, names in clusters for name in names)
    places = " and ".join(str(engine.endpoint) for engine in asked)
    elsewhere = any(cluster in names for _, names in clusters)
    other = "unset KIND_EXPERIMENTAL_PROVIDER" if elsewhere else "name one of those with --name"
    return ClusterNotFound(
        f"no nodes found for cluster {quoted(cluster)} on {places}; there: {listed or 'none'}",
        hint=other if listed else "kind create cluster",
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
