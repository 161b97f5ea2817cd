"""Which clusters are there, and which nodes are meant."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from functools import partial

import attrs

from imgload.clusters.list import node_info
from imgload.clusters.nodes.node import Node
from imgload.clusters.select import Cluster, find_clusters, select_nodes
from imgload.core.errors import ClusterAmbiguous, ClusterError, ClusterNotFound, ImgloadError
from imgload.engines.base import Engine
from imgload.tools.doctor.finding import Finding
from imgload.tools.doctor.timeouts import answers

_SECONDS = 5.0


@attrs.frozen
class Clusters:
    """What there is, and what is meant.

    Args:
        engines: that answered the question for clusters.
        found: all clusters on them.
        nodes: those meant; all that there are where that cannot be settled.
        findings: about that.

    """

    engines: tuple[Engine, ...]
    found: tuple[Cluster, ...]
    nodes: tuple[Node, ...]
    findings: tuple[Finding, ...]


def find(engines: Sequence[Engine], cluster: str | None, names: Sequence[str]) -> Clusters:
    """Look for clusters on all engines, and settle which nodes are meant.

    Args:
        engines: to ask.
        cluster: as the user named it; None for the kube context's, or the only one.
        names: of nodes; empty for all.

    """
    told = answers([partial(find_clusters, [engine]) for engine in engines], _SECONDS)
    pairs = list(zip(engines, told, strict=True))
    silent = [Finding.of("clusters", _on(e, t)) for e, t in pairs if isinstance(t, ImgloadError)]
    asked = tuple(engine for engine, t in pairs if not isinstance(t, ImgloadError))
    found = tuple(c for t in told if not isinstance(t, ImgloadError) for c in t)
    try:
        nodes = select_nodes(asked, cluster, names) if asked else ()
    except ClusterError as error:
        everything = tuple(node for each in found for node in each.nodes)
        named = cluster is not None or bool(names)
        unsettled = _unsettled(error, found, named=named)
        return Clusters(asked, found, everything, findings=(*silent, *unsettled))
    others = _others(found, nodes)
    return Clusters(asked, found, nodes, findings=(*silent, *others))


def _on(engine: Engine, error: ImgloadError) -> ImgloadError:
    if str(engine.endpoint) in error.message:
        return error
    return type(error)(f"{engine.endpoint}: listing clusters: {error.message}", hint=error.hint)


def _unsettled(error: ClusterError, found: Sequence[Cluster], *, named: bool) -> Iterator[Finding]:
    """Yield why the nodes are not settled; a kube context that leads nowhere is told elsewhere."""
    if named:
        told = Finding.of("clusters", error)
        yield attrs.evolve(told, exit_status=error.exit_status)
    elif not found:
        yield Finding.of("clusters", error)
    elif isinstance(error, ClusterAmbiguous):
        yield Finding.of("clusters", error, "warning")
    elif not isinstance(error, ClusterNotFound):
        yield Finding.of("clusters", error)


def _others(found: Sequence[Cluster], nodes: Sequence[Node]) -> Iterator[Finding]:
    """Yield the clusters: the one meant, and those left alone."""
    meant = {(node.engine.endpoint, node.name) for node in nodes}
    for cluster in found:
        states = ", ".join(f"{n.name} {n.state}" for n in map(node_info, cluster.nodes))
        text = f"{cluster.name} ({cluster.tool.name}, {cluster.engine.endpoint})"
        if meant & {(node.engine.endpoint, node.name) for node in cluster.nodes}:
            count = len(cluster.nodes)
            yield Finding("clusters", "ok", f"{text}: {count} node{'s' if count > 1 else ''}")
        else:
            yield Finding("clusters", "info", f"{text} is not the one meant: {states}")
