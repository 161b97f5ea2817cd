"""Check the kube context, which clusters exist, and which nodes are selected."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from pathlib import Path

import attrs

from imgload.clusters.kubeconfig import current_context, invalid
from imgload.clusters.nodes.node import Node
from imgload.clusters.select import Cluster, find_clusters, node_info, provider_of, select_nodes
from imgload.core.errors import ClusterAmbiguous, ClusterError, ClusterNotFound, ImgloadError
from imgload.engines.base import Engine
from imgload.tools.doctor.finding import Finding
from imgload.tools.doctor.timeouts import call_each

_SECONDS = 5.0


@attrs.frozen
class Selection:
    """The clusters on the engines that answered, and the selected nodes; all if that fails."""

    engines: tuple[Engine, ...]
    clusters: tuple[Cluster, ...]
    nodes: tuple[Node, ...]
    findings: tuple[Finding, ...]


def select(engines: Sequence[Engine], cluster: str | None, names: Sequence[str]) -> Selection:
    """List the clusters on all engines, and select nodes; see `select_nodes`."""
    findings: list[Finding] = []
    clusters: dict[Engine, list[Cluster]] = {}
    for engine, result in call_each(lambda engine: find_clusters([engine]), engines, _SECONDS):
        if isinstance(result, ImgloadError):
            named = str(engine.endpoint) in result.message
            where = "" if named else f"{engine.endpoint}: listing clusters: "
            findings.append(Finding("clusters", "problem", where + result.message, result.hint))
        else:
            clusters[engine] = result
    every = tuple(item for listed in clusters.values() for item in listed)
    try:
        nodes = select_nodes(tuple(clusters), cluster, names) if clusters else ()
        findings += _clusters(every, nodes)
    except ClusterError as error:
        nodes = tuple(node for item in every for node in item.nodes)
        if cluster is not None or names:
            finding = Finding.of("clusters", error)
            findings.append(attrs.evolve(finding, exit_status=error.exit_status))
        elif not every or not isinstance(error, ClusterNotFound):  # else `check_context` reports it
            ambiguous = isinstance(error, ClusterAmbiguous)
            findings.append(Finding.of("clusters", error, "warning" if ambiguous else "problem"))
    return Selection(tuple(clusters), every, nodes, tuple(findings))


def _clusters(clusters: Sequence[Cluster], nodes: Sequence[Node]) -> Iterator[Finding]:
    selected = {(node.engine.endpoint, node.name) for node in nodes}
    for cluster in clusters:
        text = f"{cluster.name} ({cluster.tool.name}, {cluster.engine.endpoint})"
        if selected & {(node.engine.endpoint, node.name) for node in cluster.nodes}:
            count = len(cluster.nodes)
            yield Finding("clusters", "ok", f"{text}: {count} node{'s' if count > 1 else ''}")
        else:
            states = ", ".join(f"{n.name} {n.state}" for n in map(node_info, cluster.nodes))
            yield Finding("clusters", "info", f"{text} is not selected: {states}")


def check_context(
    engines: Sequence[Engine], clusters: Sequence[Cluster], *, decides: bool
) -> Iterator[Finding]:
    """Yield whether the current context leads to a cluster.

    Without one it is a problem if the context `decides`, since no cluster or node was named.
    """
    yield from _files()
    context = current_context()
    if context is None:
        yield Finding("context", "info", "no kube context is set")
        return
    exists = any(cluster.context == context for cluster in clusters)
    if not exists and provider_of(context) is None:
        what = f"the kube context {context!r} is not of a kind, k3d or minikube cluster"
        yield Finding("context", "info", f"{what}: name one with --cluster")
        return
    try:
        if not exists:
            select_nodes(engines, context, ())
        yield Finding("context", "ok", f"the kube context {context!r} leads to a cluster here")
    except ClusterNotFound as error:
        what = f"the kube context {context!r} names a missing cluster: {error.message}"
        switch = "kubectl config get-contexts, then: kubectl config use-context NAME"
        hint = f"{switch}; or {error.hint}"
        yield Finding("context", "problem" if decides else "warning", what, hint)
    except ClusterError as error:
        yield Finding.of("context", error)


def _files() -> Iterator[Finding]:
    paths = [Path(part) for part in os.environ.get("KUBECONFIG", "").split(os.pathsep) if part]
    for path in paths:
        if not os.path.lexists(path):
            what = f"KUBECONFIG names {path}, which does not exist"
            yield Finding("context", "warning", what, "unset KUBECONFIG; or correct it")
    for path in paths or [Path.home() / ".kube" / "config"]:
        if why := invalid(path):
            what = f"kubectl cannot use {path}: {why}"
            yield Finding("context", "problem", what, "correct it; or unset KUBECONFIG")
