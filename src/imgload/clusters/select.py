"""Clusters: finds, lists and selects them, and their nodes."""

from __future__ import annotations

import shlex
from collections import Counter
from collections.abc import Sequence
from functools import partial
from typing import Any

import attrs

from imgload.clusters.kubeconfig import current_context
from imgload.clusters.nodes.base import NodeRuntime
from imgload.clusters.nodes.node import Node
from imgload.clusters.provider import ClusterProvider, providers
from imgload.core import trace
from imgload.core.arguments import require_strings
from imgload.core.environment import in_ci
from imgload.core.errors import (
    JSON_VERSION,
    ClusterAmbiguous,
    ClusterNotFound,
    EngineError,
    NodeNotFound,
    UsageError,
    error_json,
)
from imgload.core.parallel import in_parallel
from imgload.engines.base import ContainerHost

_ONE_ENGINE = "leave one engine out: set DOCKER_HOST or CONTAINER_HOST to the other"
_STOPPED = {"exited", "created", "configured", "dead", "stopped"}
"""The states of a container that does not run and can be started, in Docker and Podman."""


@attrs.frozen
class EngineInfo:
    """A container engine.

    Args:
        kind: ``docker`` or ``podman``.
        url: its address.
        origin: where the address was found, such as ``DOCKER_HOST`` or ``Colima``.

    """

    kind: str
    url: str
    origin: str

    def __str__(self) -> str:
        return f"{self.kind} at {self.url}"


@attrs.frozen
class NodeInfo:
    """A node.

    Args:
        name: its container's name.
        role: its role in the cluster, such as ``control-plane`` or ``agent``.
        state: ``running``, ``paused``, ``stopped``, or another state that the engine reports.

    """

    name: str
    role: str
    state: str


@attrs.frozen
class ClusterInfo:
    """A cluster.

    Args:
        name: its name.
        tool: the program that made it: ``kind``, ``k3d`` or ``minikube``.
        context: its kube context.
        current: whether that is the current kube context.
        engine: the engine that runs its nodes.
        nodes: its nodes.

    """

    name: str
    tool: str
    context: str
    current: bool
    engine: EngineInfo
    nodes: tuple[NodeInfo, ...]


@attrs.frozen
class ClusterList:
    """The clusters on all engines.

    Args:
        clusters: on the engines that answered.
        engines: those that answered.
        errors: of the engines that did not.

    """

    clusters: tuple[ClusterInfo, ...]
    engines: tuple[EngineInfo, ...]
    errors: tuple[EngineError, ...] = ()

    def to_json(self) -> dict[str, Any]:
        """Return the document that ``imgload clusters --output json`` prints."""
        return {
            "version": JSON_VERSION,
            "clusters": [attrs.asdict(cluster) for cluster in self.clusters],
            "engines": [attrs.asdict(engine) for engine in self.engines],
            "errors": [error_json(error) for error in self.errors],
            "ok": True,
        }


@attrs.frozen
class Cluster:
    """A cluster, the engine that runs its nodes, and the provider that made it."""

    name: str
    engine: ContainerHost
    nodes: tuple[NodeRuntime, ...]
    tool: ClusterProvider

    @property
    def context(self) -> str:
        """The cluster's kube context; the current one if it may have several."""
        contexts = self.tool.contexts(self.name)
        current = current_context() if len(contexts) > 1 else None
        return current if current in contexts else contexts[0]

    def __str__(self) -> str:
        return f"{self.name} ({self.engine.name})"


def find_clusters(
    engines: Sequence[ContainerHost], of: Sequence[ClusterProvider] | None = None
) -> list[Cluster]:
    """Return every cluster on some engines, made by some providers (default: all)."""
    pairs = [(engine, provider) for engine in engines for provider in of or providers()]
    answers = in_parallel([partial(provider.find, engine) for engine, provider in pairs])
    return [
        Cluster(
            name,
            engine,
            tuple(tool.runtime_of(node, engine) for node in nodes),
            tool,
        )
        for (engine, tool), clusters in zip(pairs, answers, strict=True)
        for name, nodes in clusters.items()
    ]


def list_clusters(
    engines: Sequence[ContainerHost], errors: Sequence[EngineError] = ()
) -> ClusterList:
    """Return every cluster on some engines, with the errors of others."""
    context = current_context()
    clusters = tuple(
        ClusterInfo(
            name=cluster.name,
            tool=cluster.tool.name,
            context=cluster.context,
            current=cluster.context == context,
            engine=_engine_info(cluster.engine),
            nodes=tuple(map(node_info, cluster.nodes)),
        )
        for cluster in find_clusters(engines)
    )
    return ClusterList(clusters, tuple(map(_engine_info, engines)), tuple(errors))


def _engine_info(engine: ContainerHost) -> EngineInfo:
    return EngineInfo(engine.endpoint.kind, engine.endpoint.url, engine.endpoint.origin)


def node_info(node: NodeRuntime) -> NodeInfo:
    """Return a node's name, role and state."""
    state = node.container.state
    return NodeInfo(node.name, node.role, "stopped" if state in _STOPPED else state)


@attrs.frozen
class Selection:
    """The nodes to load into.

    Args:
        nodes: the nodes, whose names all differ.
        clusters: the selected clusters; empty if nodes of any cluster were named.
        ignored_context: the current kube context, if no local cluster has it and nothing was named.

    """

    nodes: tuple[NodeRuntime, ...]
    clusters: tuple[Cluster, ...] = ()
    ignored_context: str = ""

    @property
    def notes(self) -> tuple[str, ...]:
        """Lines of information about the selection for the user."""
        if not self.ignored_context:
            return ()
        return (f"{_ignored(self.ignored_context)}; selected the only cluster, {self.clusters[0]}",)


def select_nodes(
    engines: Sequence[ContainerHost],
    cluster: str | Sequence[str] | None,
    names: Sequence[str],
    *,
    guess: bool = True,
) -> tuple[NodeRuntime, ...]:
    """Return the nodes to load into, of the named clusters, the kube context's, or the only one.

    Args:
        engines: the engines that may run the nodes, such as `imgload.Docker()`.
        cluster: the cluster's name, or several; None for the kube context's, or else the only one.
        names: names of nodes; empty for all of the clusters.
        guess: whether the only cluster may be selected without a name or a kube context.

    Raises:
        ClusterError: if there is no such cluster or node, or several clusters match; in CI also if
            the kube context is set and no local cluster has it.
        EngineError: if an engine does not list its containers.

    """
    return select(engines, cluster, names, guess=guess).nodes


def select(
    engines: Sequence[ContainerHost],
    cluster: str | Sequence[str] | None,
    names: Sequence[str],
    *,
    guess: bool = True,
    ignores_context: bool = True,
) -> Selection:
    """Return the selected nodes and clusters; arguments and errors as for `select_nodes`.

    Unless it `ignores_context`, and in CI, a kube context that no local cluster has is an error,
    even if there is only one cluster.
    """
    names = require_strings(names, "nodes")
    wanted = () if cluster is None else require_strings(cluster, "cluster")
    if "" in wanted:
        hint = "omit --cluster, or check the variable that it is set from"
        raise UsageError("the name of the cluster is empty", hint=hint)
    if names and not wanted:
        return Selection(_nodes_of_any_cluster(names, engines))
    context = "" if wanted else current_context() or ""
    if not wanted and not guess and provider_of(context) is None:
        why = f"{context!r} names none" if context else "none is set"
        raise ClusterNotFound(
            f"the kube context says no local cluster to load into: {why}",
            hint="kubectl config use-context kind-NAME; or name the cluster with --cluster NAME",
        )
    clusters = _named(engines, wanted) if wanted else (_of_context(engines, context),)
    nodes = tuple(node for chosen in clusters for node in chosen.nodes)
    for name, count in Counter(node.name for node in nodes).items():
        if count > 1:
            owners = [c for c in clusters if name in {node.name for node in c.nodes}]
            message = f"{' and '.join(map(str, owners))} both have a node {name}"
            raise ClusterAmbiguous(message, hint="use one command for each cluster")
    nodes = _pick(nodes, names, clusters) if names else nodes
    why = "--cluster" if wanted else f"kube context {context!r}" if context else "the only one"
    trace.log(f"clusters: {', '.join(map(str, clusters))} ({why})")
    if not context or context in clusters[0].tool.contexts(clusters[0].name):
        return Selection(nodes, clusters)
    if in_ci() or not ignores_context:
        hint = f"confirm the cluster: --cluster {shlex.quote(clusters[0].name)}"
        raise ClusterNotFound(_ignored(context), hint=hint)
    return Selection(nodes, clusters, context)


def _ignored(context: str) -> str:
    names = [provider.name for provider in providers()]
    listed = f"{', '.join(names[:-1])} or {names[-1]}"
    return f"the current kube context {context!r} is not a {listed} cluster"


def _nodes_of_any_cluster(
    names: Sequence[str], engines: Sequence[ContainerHost]
) -> tuple[NodeRuntime, ...]:
    """Return nodes by name; a container may run a containerd without being in a cluster."""
    clusters = find_clusters(engines)
    nodes = [node for cluster in clusters for node in cluster.nodes]
    for name in sorted(set(names) - {node.name for node in nodes}):
        containers = in_parallel([partial(engine.container, name) for engine in engines])
        pairs = zip(engines, containers, strict=True)
        nodes += [Node(name, host, box, runtime=None) for host, box in pairs if box]
    picked = _pick(nodes, names, clusters)
    for name in names:
        if sum(node.name == name for node in nodes) > 1:
            raise ClusterAmbiguous(f"two engines have a node {name}", hint=_ONE_ENGINE)
    return picked


def _pick(
    nodes: Sequence[NodeRuntime], names: Sequence[str], clusters: Sequence[Cluster]
) -> tuple[NodeRuntime, ...]:
    by_name = {node.name: node for node in nodes}
    if missing := [name for name in names if name not in by_name]:
        if mistaken := {cluster.name for cluster in clusters}.intersection(missing):
            name = min(mistaken)  # kind's -n is the cluster
            hint = f"name it with --cluster {shlex.quote(name)}"
            raise NodeNotFound(f"{name} is a cluster, not a node", hint=hint, node=name)
        raise NodeNotFound(
            f"no node {', '.join(missing)}; available: {', '.join(by_name) or 'none'}",
            hint="choose one with --node" if nodes else "list all nodes with: imgload clusters",
            node=missing[0],
        )
    return tuple(by_name[name] for name in dict.fromkeys(names))


def _named(engines: Sequence[ContainerHost], names: Sequence[str]) -> tuple[Cluster, ...]:
    """Return clusters by name or kube context, each once."""
    clusters = find_clusters(engines)
    selected: list[Cluster] = []
    for name in names:
        matching = [c for c in clusters if c.name == name]
        matching = matching or [c for c in clusters if name in c.tool.contexts(c.name)]
        if not matching:
            raise _not_found(clusters, engines, name, "")
        if len(matching) > 1:
            raise _ambiguous(matching, name)
        selected += [c for c in matching if c not in selected]
    return tuple(selected)


def _of_context(engines: Sequence[ContainerHost], context: str) -> Cluster:
    """Return the kube context's cluster; the only one if no local cluster has such a context."""
    provider = provider_of(context)
    if provider:  # one query for each engine, as long as the cluster exists
        clusters = [c for c in find_clusters(engines, [provider]) if c.context == context]
        if len(clusters) == 1:
            return clusters[0]
    clusters = find_clusters(engines)
    matching = [c for c in clusters if context in c.tool.contexts(c.name)]
    is_local = bool(matching or provider)
    matching = matching if is_local else clusters
    if len(matching) == 1:
        return matching[0]
    name = context.removeprefix(provider.context_prefix if provider else "") if is_local else None
    if not matching:
        raise _not_found(clusters, engines, name, context if is_local else "")
    error = _ambiguous(matching, name)
    if context and not is_local:
        raise ClusterAmbiguous(f"{error.message}; {_ignored(context)}", hint=error.hint)
    raise error


def provider_of(context: str) -> ClusterProvider | None:
    """Return the provider whose clusters have such kube contexts, or None."""
    return next((provider for provider in providers() if provider.owns_context(context)), None)


def _not_found(
    clusters: Sequence[Cluster], engines: Sequence[ContainerHost], name: str | None, context: str
) -> ClusterNotFound:
    owner = provider_of(context)
    hints = (p.absence_hint(context or None) for p in (owner, *providers()) if p)
    choose = "choose one with --cluster NAME" if clusters else "make one: kind create cluster"
    hint = next(filter(None, hints), choose)
    *others, last = (provider.name for provider in providers())
    missing = f"no cluster {name!r}" if name else f"no {', '.join(others)} or {last} cluster"
    origin = f" (from the kube context {context!r})" if context else ""
    addresses = " and ".join(str(engine.endpoint) for engine in engines)
    listed = ", ".join(map(str, clusters)) or "none"
    return ClusterNotFound(f"{missing}{origin} on {addresses}; available: {listed}", hint=hint)


def _ambiguous(clusters: Sequence[Cluster], name: str | None) -> ClusterAmbiguous:
    contexts = [cluster.context for cluster in clusters]
    title = "clusters" if name is None else f"clusters named {name!r}"
    labels = list(map(str, clusters))
    if name is None:
        hint = "choose one with --cluster NAME"
    elif len(set(contexts)) < len(contexts):
        hint = _ONE_ENGINE
    else:
        hint = f"choose one: --cluster {shlex.quote(contexts[0])}"
        labels = [f"{cluster.context} ({cluster.engine.name})" for cluster in clusters]
    return ClusterAmbiguous(f"there are several {title}: {', '.join(labels)}", hint=hint)
