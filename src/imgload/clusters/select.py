"""Which nodes are meant: by name, by the kube context, or because there is only one cluster."""

from __future__ import annotations

import os
import shlex
from collections.abc import Sequence
from functools import partial

import attrs

from imgload.clusters.k3d import K3D
from imgload.clusters.kind import KIND
from imgload.clusters.kubeconfig import current_context
from imgload.clusters.minikube import MINIKUBE, is_profile
from imgload.clusters.nodes.node import Node
from imgload.clusters.provider import Member, Tool
from imgload.core.errors import ClusterAmbiguous, ClusterNotFound, NodeNotFound
from imgload.core.parallel import in_parallel
from imgload.engines.base import Engine
from imgload.oci.reference import string_or_none, strings

TOOLS = (KIND, K3D, MINIKUBE)
_ONE_ENGINE = "leave one engine out: set DOCKER_HOST or CONTAINER_HOST to the other"


@attrs.frozen
class Cluster:
    """A cluster, its nodes, the engine that runs them, and the tool that made it."""

    name: str
    engine: Engine
    nodes: tuple[Node, ...]
    tool: Tool = KIND

    @property
    def context(self) -> str:
        """What its tool calls it in a kubeconfig."""
        return f"{self.tool.context_prefix}{self.name}"

    def __str__(self) -> str:
        return f"{self.name} ({self.engine.name})"


def find_clusters(engines: Sequence[Engine], tools: Sequence[Tool] = TOOLS) -> list[Cluster]:
    """Return every cluster on every engine, or those of some tools."""
    pairs = [(engine, tool) for engine in engines for tool in tools]
    answers = in_parallel([partial(tool.find, engine) for engine, tool in pairs])
    return [
        Cluster(name, engine, tuple(_node(engine, tool, m) for m in members), tool)
        for (engine, tool), clusters in zip(pairs, answers, strict=True)
        for name, members in clusters.items()
    ]


def _node(engine: Engine, tool: Tool, member: Member) -> Node:
    container = member.container
    return Node(container.name, engine, container, tool.runtime, member.role)


def select_nodes(
    engines: Sequence[Engine], cluster: str | None, names: Sequence[str], *, guess: bool = True
) -> tuple[Node, ...]:
    """Return the nodes to load into.

    Args:
        engines: where to look.
        cluster: its name; None for the kube context's, or else the only one.
        names: only these nodes; empty for all.
        guess: whether the only cluster there is will do where the kube context names none.

    Raises:
        ClusterNotFound: when no engine runs it.
        ClusterAmbiguous: when several fit and none was named.
        NodeNotFound: when the cluster lacks a node named.

    """
    names = strings(names, "nodes")
    if names and cluster is None:
        return _named_anywhere(find_clusters(engines), names, engines)
    if cluster is None and not guess:
        _require_context()
    nodes = select_cluster(engines, cluster).nodes
    return _named(nodes, names) if names else nodes


def select_cluster(engines: Sequence[Engine], cluster: str | None) -> Cluster:
    """Return the cluster meant, as `select_nodes` does."""
    name = string_or_none(cluster, "cluster")
    return _of_context(engines) if name is None else _of_name(name, engines)


def _of_name(name: str, engines: Sequence[Engine]) -> Cluster:
    clusters = find_clusters(engines)
    return _only(_called(clusters, name), clusters, engines, name)


def _of_context(engines: Sequence[Engine]) -> Cluster:
    """Return the kube context's cluster; only its tool's are listed, unless it is not there."""
    context = current_context() or ""
    tool = tool_of(context)
    fitting = [c for c in find_clusters(engines, [tool]) if c.context == context] if tool else []
    if len(fitting) == 1:
        return fitting[0]
    clusters = find_clusters(engines)
    fitting = [cluster for cluster in clusters if cluster.context == context]
    if not fitting and tool is None:
        return _only(clusters, clusters, engines, None)
    wanted = context.removeprefix(tool.context_prefix if tool else "")
    return _only(fitting, clusters, engines, wanted, context)


def _require_context() -> None:
    context = current_context()
    if context is None or tool_of(context) is None:
        there = f"{context!r} names none" if context else "none is set"
        raise ClusterNotFound(
            f"the kube context says no local cluster to load into: {there}",
            hint="kubectl config use-context kind-NAME; or say which cluster with --cluster NAME",
        )


def _called(clusters: Sequence[Cluster], name: str) -> list[Cluster]:
    exact = [cluster for cluster in clusters if cluster.name == name]
    return exact or [cluster for cluster in clusters if cluster.context == name]


def tool_of(context: str) -> Tool | None:
    """Return the tool whose clusters have such kube contexts, or None."""
    named = [tool for tool in TOOLS if tool.context_prefix]
    found = next((tool for tool in named if context.startswith(tool.context_prefix)), None)
    return found or (MINIKUBE if context and is_profile(context) else None)


def _only(
    fitting: Sequence[Cluster],
    clusters: Sequence[Cluster],
    engines: Sequence[Engine],
    name: str | None,
    context: str | None = None,
) -> Cluster:
    if len(fitting) == 1:
        return fitting[0]
    if fitting:
        raise _ambiguous(fitting, name)
    listed = ", ".join(map(str, clusters)) or "none"
    places = " and ".join(str(engine.endpoint) for engine in engines)
    tools = f"{', '.join(tool.name for tool in TOOLS[:-1])} or {TOOLS[-1].name}"
    wanted = f"no cluster {name!r}" if name else f"no {tools} cluster"
    why = f", which the kube context {context!r} names," if context else ""
    raise ClusterNotFound(
        f"{wanted}{why} on {places}; there: {listed}", hint=_make_or_choose(clusters, context)
    )


def _ambiguous(fitting: Sequence[Cluster], name: str | None) -> ClusterAmbiguous:
    contexts = [cluster.context for cluster in fitting]
    apart = len(set(contexts)) == len(contexts)
    if name is None:
        what, hint = "clusters", "say which one with --cluster NAME"
    elif apart:
        what, hint = (
            f"clusters named {name!r}",
            f"say which one: --cluster {shlex.quote(contexts[0])}",
        )
    else:
        what, hint = f"clusters named {name!r}", _ONE_ENGINE
    shown = [f"{c.context} ({c.engine.name})" if name and apart else str(c) for c in fitting]
    return ClusterAmbiguous(f"there are several {what}: {', '.join(shown)}", hint=hint)


def _make_or_choose(clusters: Sequence[Cluster], context: str | None) -> str:
    if context and tool_of(context) is MINIKUBE:
        return (
            "with a driver other than docker or podman its nodes are no containers:"
            f" minikube -p {shlex.quote(context)} image load IMAGE"
        )
    provider = os.environ.get("KIND_EXPERIMENTAL_PROVIDER", "")
    if provider and provider not in {"docker", "podman"}:
        return f"kind's nodes in {provider} cannot be reached: kind load image-archive FILE"
    return "choose one with --cluster NAME" if clusters else "make one with: kind create cluster"


def _named(nodes: Sequence[Node], names: Sequence[str]) -> tuple[Node, ...]:
    by_name = {node.name: node for node in nodes}
    missing = [name for name in names if name not in by_name]
    if missing:
        there = ", ".join(by_name) or "none"
        choose, look = "choose one of those with --node", "see what there is with: imgload clusters"
        raise NodeNotFound(
            f"no node {', '.join(missing)}; there: {there}", hint=choose if by_name else look
        )
    return tuple(by_name[name] for name in dict.fromkeys(names))


def _named_anywhere(
    clusters: Sequence[Cluster], names: Sequence[str], engines: Sequence[Engine]
) -> tuple[Node, ...]:
    known = [node for cluster in clusters for node in cluster.nodes]
    others = {name for name in names if name not in {node.name for node in known}}
    everything = [*known, *(n for name in sorted(others) for n in _containers(name, engines))]
    nodes = _named(everything, names)
    for name in names:
        if sum(node.name == name for node in everything) > 1:
            raise ClusterAmbiguous(f"two engines have a node {name}", hint=_ONE_ENGINE)
    return nodes


def _containers(name: str, engines: Sequence[Engine]) -> list[Node]:
    """Return the containers of a name, which may run a containerd without being in a cluster."""
    answers = in_parallel([partial(engine.container, name) for engine in engines])
    found = zip(engines, answers, strict=True)
    return [Node(name, engine, container, None) for engine, container in found if container]
