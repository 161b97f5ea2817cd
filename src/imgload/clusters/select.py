"""Which nodes are meant: by name, by the kube context, or because there is only one cluster."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial

import attrs

from imgload.clusters.kind import CONTEXT_PREFIX, kind_nodes
from imgload.clusters.kubeconfig import current_context
from imgload.engines.base import Engine
from imgload.errors import ClusterAmbiguous, ClusterNotFound, NodeNotFound
from imgload.nodes.node import Node
from imgload.parallel import in_parallel

_ONE_ENGINE = "leave one engine out: set DOCKER_HOST or CONTAINER_HOST to the other"


@attrs.frozen
class Cluster:
    """A cluster, its nodes, and the engine that runs them."""

    name: str
    engine: Engine
    nodes: tuple[Node, ...]

    def __str__(self) -> str:
        return f"{self.name} ({self.engine.name})"


def find_clusters(engines: Sequence[Engine]) -> list[Cluster]:
    """Return every cluster on every engine."""
    answers = in_parallel([partial(kind_nodes, engine) for engine in engines])
    return [
        Cluster(name, engine, tuple(Node(c.name, engine, c) for c in containers))
        for engine, clusters in zip(engines, answers, strict=True)
        for name, containers in clusters.items()
    ]


def select_nodes(
    engines: Sequence[Engine], cluster: str | None, names: Sequence[str]
) -> tuple[Node, ...]:
    """Return the nodes to load into.

    Args:
        engines: where to look.
        cluster: its name; None for the kube context's, or else the only one.
        names: only these nodes; empty for all.

    Raises:
        ClusterNotFound: when no engine runs it.
        ClusterAmbiguous: when several fit and none was named.
        NodeNotFound: when the cluster lacks a node named.

    """
    clusters = find_clusters(engines)
    if names and cluster is None:
        return _named_anywhere(clusters, names)
    nodes = _select(clusters, cluster, engines).nodes
    return _named(nodes, names) if names else nodes


def select_cluster(engines: Sequence[Engine], cluster: str | None) -> Cluster:
    """Return the cluster meant, as `select_nodes` does."""
    return _select(find_clusters(engines), cluster, engines)


def _select(clusters: Sequence[Cluster], name: str | None, engines: Sequence[Engine]) -> Cluster:
    if name is not None:
        return _only(_called(clusters, name), clusters, engines, name)
    context = current_context() or ""
    if context.startswith(CONTEXT_PREFIX):
        wanted = context.removeprefix(CONTEXT_PREFIX)
        fitting = [c for c in clusters if c.name == wanted]
        return _only(fitting, clusters, engines, wanted, context)
    return _only(clusters, clusters, engines, None)


def _called(clusters: Sequence[Cluster], name: str) -> list[Cluster]:
    exact = [c for c in clusters if c.name == name]
    return exact or [c for c in clusters if c.name == name.removeprefix(CONTEXT_PREFIX)]


def _only(
    fitting: Sequence[Cluster],
    clusters: Sequence[Cluster],
    engines: Sequence[Engine],
    name: str | None,
    context: str | None = None,
) -> Cluster:
    if len(fitting) == 1:
        return fitting[0]
    listed = ", ".join(map(str, fitting or clusters)) or "none"
    if fitting:
        what = f"clusters named {name!r}" if name else "clusters"
        hint = _ONE_ENGINE if name else "say which one with --cluster NAME"
        raise ClusterAmbiguous(f"there are several {what}: {listed}", hint=hint)
    places = " and ".join(str(engine.endpoint) for engine in engines)
    wanted = f"no cluster {name!r}" if name else "no kind cluster"
    why = f", which the kube context {context!r} names," if context else ""
    raise ClusterNotFound(
        f"{wanted}{why} on {places}; there: {listed}",
        hint="choose one with --cluster NAME" if clusters else "make one with: kind create cluster",
    )


def _named(nodes: Sequence[Node], names: Sequence[str]) -> tuple[Node, ...]:
    by_name = {node.name: node for node in nodes}
    missing = [name for name in names if name not in by_name]
    if missing:
        there = ", ".join(by_name) or "none"
        raise NodeNotFound(
            f"no node {', '.join(missing)}; there: {there}", hint="choose one of those with --node"
        )
    return tuple(by_name[name] for name in dict.fromkeys(names))


def _named_anywhere(clusters: Sequence[Cluster], names: Sequence[str]) -> tuple[Node, ...]:
    everything = [node for cluster in clusters for node in cluster.nodes]
    nodes = _named(everything, names)
    for name in names:
        if sum(node.name == name for node in everything) > 1:
            raise ClusterAmbiguous(
                f"two engines have a node {name}",
                hint=_ONE_ENGINE,
            )
    return nodes
