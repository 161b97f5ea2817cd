"""Clusters: finds, lists and selects them, and their nodes."""

from __future__ import annotations

import re
import shlex
from collections.abc import Callable, Collection, Iterator, Sequence
from fnmatch import fnmatchcase
from functools import cached_property, partial
from typing import Any

import attrs

from imgload.clusters.kubeconfig import current_context
from imgload.clusters.nodes.base import NodeRuntime
from imgload.clusters.nodes.containerd import require_socket
from imgload.clusters.nodes.detect import detect
from imgload.clusters.provider import ClusterProvider, NodeContainer, providers
from imgload.core.arguments import optional_string, require_strings
from imgload.core.errors import (
    JSON_VERSION,
    ClusterAmbiguous,
    ClusterNotFound,
    EngineError,
    NodeNotFound,
    error_json,
)
from imgload.core.parallel import in_parallel
from imgload.engines.base import Container, ContainerHost

_ONE_ENGINE = "leave one engine out: set DOCKER_HOST or CONTAINER_HOST to the other"
_WILDCARD = re.compile(r"[*?\[]")
_CONTAINER = re.compile(r"[A-Za-z0-9][\w.-]*", re.ASCII)
_STOPPED = {"exited", "created", "configured", "dead", "stopped"}
"""The states of a container that does not run and can be started, in Docker and Podman."""
_Candidate = tuple[str, Callable[[], NodeRuntime]]


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
        return self.url if self.kind == "ssh" else f"{self.kind} at {self.url}"


@attrs.frozen
class NodeInfo:
    """A node.

    Args:
        name: the name of its container or machine; for one named by its address, the address.
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
        tool: the program that made it, such as ``kind`` or ``colima``.
        context: its kube context.
        current: whether that is the current kube context.
        engine: the engine that runs its nodes; of a cluster of machines, the first machine, with
            the kind ``ssh``.
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
    def candidates(self) -> list[_Candidate]:
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
            # the machines of one cluster are hosts of their own
            key = (name, tool, host.endpoint.kind == "ssh" or host)
            first = clusters.setdefault(key, Cluster(name, host, (), tool))
            clusters[key] = attrs.evolve(first, members=(*first.members, *members))
    return list(clusters.values())


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
            nodes=tuple(node_info(member.node) for member in cluster.members),
        )
        for cluster in find_clusters(engines)
    )
    return ClusterList(clusters, tuple(map(_engine_info, engines)), tuple(errors))


def _engine_info(engine: ContainerHost) -> EngineInfo:
    return EngineInfo(engine.endpoint.kind, engine.endpoint.url, engine.endpoint.origin)


def node_info(node: NodeContainer) -> NodeInfo:
    """Return a node's name, role and state."""
    state = node.container.state
    return NodeInfo(node.container.name, node.role, "stopped" if state in _STOPPED else state)


def select_nodes(
    engines: Sequence[ContainerHost],
    cluster: str | None,
    names: Sequence[str],
    *,
    guess: bool = True,
    address: str | None = None,
) -> tuple[NodeRuntime, ...]:
    """Return the nodes to load into, of the named cluster, the kube context's, or the only one.

    Args:
        engines: the engines that may run the nodes, such as `imgload.Docker()`.
        cluster: the cluster's name; None for the kube context's, or else the only one.
        names: names of nodes, or the addresses of machines as ``ssh://user@host``; empty for all
            nodes of the cluster. Without `cluster`, a full name may be that of any container. A
            pattern with ``*`` or ``?`` selects nodes of the cluster, also by the ends of their
            names, and so does such an end: ``worker2`` is ``kind-worker2``.
        guess: whether the only cluster may be selected without a name or a kube context.
        address: the path of containerd's socket on these nodes; None to find it.

    Raises:
        ClusterError: if there is no such cluster or node, or several clusters match.
        EngineError: if an engine does not list its containers.
        UsageError: if `address` is no absolute path of letters, digits and ``/._-``.

    """
    names = require_strings(names, "nodes")
    socket = require_socket(address) if address is not None else ""
    if addresses := [name for name in names if "://" in name]:
        from imgload.engines.machine import parse_machine  # noqa: PLC0415 - start-up

        machines = dict.fromkeys(map(parse_machine, addresses))
        opening = [partial(detect, m.node.name, m, m.node, "", socket) for m in machines]
        by_ssh = in_parallel(opening)
        others = [name for name in names if name not in addresses]
        if not others:
            return tuple(by_ssh)
        return (*by_ssh, *select_nodes(engines, cluster, others, guess=guess, address=address))
    if names and cluster is None:
        nodes = _nodes_of_any_cluster(names, engines, guess=guess)
    else:
        selected = _selected_cluster(engines, cluster, guess=guess)
        own = selected.candidates
        nodes = _pick(own, names, own) if names else selected.nodes
    if not socket:
        return nodes
    at_socket = [partial(detect, n.name, n.engine, n.container, n.role, socket) for n in nodes]
    return tuple(in_parallel(at_socket))


def _selected_cluster(
    engines: Sequence[ContainerHost], cluster: str | None, *, guess: bool
) -> Cluster:
    if cluster is None and not guess and provider_of(context := current_context() or "") is None:
        why = f"{context!r} names none" if context else "none is set"
        raise ClusterNotFound(
            f"the kube context says no local cluster to load into: {why}",
            hint="kubectl config use-context kind-NAME; or name the cluster with --cluster NAME",
        )
    return select_cluster(engines, cluster)


def _nodes_of_any_cluster(
    names: Sequence[str], engines: Sequence[ContainerHost], *, guess: bool
) -> tuple[NodeRuntime, ...]:
    """Return nodes by name; a container may run a containerd without being in a cluster."""
    candidates = [node for cluster in find_clusters(engines) for node in cluster.candidates]
    others = sorted(set(names) - {name for name, _ in candidates})
    for name in filter(_CONTAINER.fullmatch, others):
        containers = in_parallel([partial(engine.container, name) for engine in engines])
        pairs = zip(engines, containers, strict=True)
        candidates += [(name, partial(detect, name, host, box)) for host, box in pairs if box]
    own: Sequence[_Candidate] = ()
    available = [name for name, _ in candidates]
    if any(_matching(name, available) for name in set(others).difference(available)):
        own = _selected_cluster(engines, None, guess=guess).candidates
    for name in names:
        if sum(candidate == name for candidate, _ in candidates) > 1:
            raise ClusterAmbiguous(f"two engines have a node {name}", hint=_ONE_ENGINE)
    return _pick(candidates, names, own)


def _pick(
    candidates: Sequence[_Candidate], names: Sequence[str], own: Sequence[_Candidate]
) -> tuple[NodeRuntime, ...]:
    by_name = dict((*candidates, *own))
    full_names = _full_names(names, list(by_name), [name for name, _ in own])
    return tuple(in_parallel([by_name[name] for name in full_names]))


def _full_names(names: Sequence[str], available: Sequence[str], own: Sequence[str]) -> list[str]:
    """Return the full names of the selected nodes, each once.

    Patterns and the ends of names select only from the nodes of one cluster, `own`.
    """
    picked: list[str] = []
    missing: list[str] = []
    for name in names:
        matching = [name] if name in available else _matching(name, own)
        if len(matching) > 1 and not _WILDCARD.search(name):
            hint = f"choose one with its full name; or all: --node {shlex.quote(f'*{name}')}"
            message = f"{name!r} is the end of several names: {', '.join(matching)}"
            raise NodeNotFound(message, hint=hint, node=name)
        picked += matching
        missing += [] if matching else [name]
    if missing:
        raise NodeNotFound(
            f"no node {', '.join(missing)}; available: {', '.join(available) or 'none'}",
            hint=_missing_hint(missing[0], available),
            node=missing[0],
        )
    return list(dict.fromkeys(picked))


def _matching(text: str, names: Sequence[str]) -> list[str]:
    """Return the names that match a pattern, or whose ends behind a dash or dot match it."""
    return [name for name in names if any(fnmatchcase(end, text) for end in _ends(name))]


def _ends(name: str) -> Iterator[str]:
    yield name
    yield from (name[match.start() :] for match in re.finditer(r"(?<=[-.])(?!$)", name))


def _missing_hint(name: str, available: Sequence[str]) -> str:
    if not available:
        return "list all nodes with: imgload clusters"
    from difflib import get_close_matches  # noqa: PLC0415 - start-up

    ends = {end: full for full in reversed(available) for end in _ends(full)}
    close = get_close_matches(name, ends, 1)
    return (
        f"did you mean: --node {shlex.quote(ends[close[0]])}" if close else "choose one with --node"
    )


def select_cluster(engines: Sequence[ContainerHost], cluster: str | None) -> Cluster:
    """Return a cluster by name or kube context, or the only one; see `select_nodes`."""
    name = optional_string(cluster, "cluster")
    context = (current_context() or "") if name is None else ""
    provider = provider_of(context)
    if provider:  # one query for each engine, as long as the cluster exists
        clusters = [c for c in find_clusters(engines, [provider]) if c.context == context]
        if len(clusters) == 1:
            return clusters[0]
    clusters = find_clusters(engines)
    matching = [c for c in clusters if c.name == name]
    matching = matching or [c for c in clusters if (name or context) in c.tool.contexts(c.name)]
    if name is None and (matching or provider):
        name = context.removeprefix(provider.context_prefix if provider else "")
    elif name is None:
        matching, context = clusters, ""
    if len(matching) == 1:
        return matching[0]
    raise _ambiguous(matching, name) if matching else _not_found(clusters, engines, name, context)


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
    missing = f"no cluster {name!r}" if name else "no local cluster"
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
