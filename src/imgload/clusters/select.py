"""Selects clusters by name or kube context, and their nodes."""

from __future__ import annotations

import re
import shlex
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from fnmatch import fnmatchcase
from functools import partial

import attrs

from imgload.clusters.cluster import Candidate, Cluster, find_clusters
from imgload.clusters.kubeconfig import current_context, invalid_files
from imgload.clusters.nodes.base import NodeRuntime
from imgload.clusters.nodes.containerd import require_socket
from imgload.clusters.nodes.detect import detect
from imgload.clusters.provider import provider_of, providers
from imgload.core import trace
from imgload.core.arguments import require_strings
from imgload.core.environment import in_ci
from imgload.core.errors import (
    ClusterAmbiguous,
    ClusterNotFound,
    NodeNotFound,
    UsageError,
)
from imgload.core.parallel import in_parallel
from imgload.engines.base import ContainerHost

_ONE_ENGINE = "leave one engine out: set DOCKER_HOST or CONTAINER_HOST to the other"
_WILDCARD = re.compile(r"[*?\[]")
_CONTAINER = re.compile(r"[A-Za-z0-9][\w.-]*", re.ASCII)


@attrs.frozen
class Selection:
    """The nodes to load into.

    Args:
        nodes: the nodes, whose names all differ.
        clusters: the selected clusters, or those of the named nodes.
        notes: lines of information about the selection for the user.

    """

    nodes: tuple[NodeRuntime, ...]
    clusters: tuple[Cluster, ...] = ()
    notes: tuple[str, ...] = ()


def select_nodes(
    engines: Sequence[ContainerHost],
    cluster: str | Sequence[str] | None,
    names: str | Sequence[str],
    *,
    guess: bool = True,
    address: str | None = None,
) -> tuple[NodeRuntime, ...]:
    """Return the nodes to load into, of the named clusters, the kube context's, or the only one.

    Args:
        engines: the engines that may run the nodes, such as `imgload.Docker()`.
        cluster: the cluster's name, or several; None for the kube context's, or else the only one.
        names: names of nodes, or the addresses of machines as ``ssh://user@host``; empty for all
            nodes of the clusters. Without `cluster`, a full name may be that of any container. A
            pattern with ``*`` or ``?`` selects nodes of the clusters, also by the ends of their
            names, and so does such an end: ``worker2`` is ``kind-worker2``.
        guess: whether the only cluster may be selected without a name or a kube context.
        address: the path of containerd's socket on these nodes; None to find it.

    Raises:
        ClusterError: if there is no such cluster or node, or several clusters match; in CI also if
            the kube context is set and no local cluster has it.
        EngineError: if an engine does not list its containers.
        UsageError: if `address` is no absolute path of letters, digits and ``/._-``.

    """
    return select(engines, cluster, names, guess=guess, address=address).nodes


def select(  # noqa: PLR0913 - options
    engines: Sequence[ContainerHost],
    cluster: str | Sequence[str] | None,
    names: str | Sequence[str],
    *,
    guess: bool = True,
    ignores_context: bool = True,
    address: str | None = None,
    again: Sequence[Cluster] = (),
) -> Selection:
    """Return the selected nodes and clusters; arguments and errors as for `select_nodes`.

    Unless it `ignores_context`, and in CI, a kube context that no local cluster has is an error,
    even if there is only one cluster. `again` are clusters that were selected before, in place of
    `cluster`.
    """
    names = require_strings(names, "nodes")
    socket = require_socket(address) if address is not None else ""
    wanted = () if cluster is None else require_strings(cluster, "cluster")
    if "" in wanted:
        hint = "omit --cluster, or check the variable that it is set from"
        raise UsageError("the name of the cluster is empty", hint=hint)
    addresses = [name for name in names if "://" in name]
    others = [name for name in names if name not in addresses]
    if others or not addresses:
        find_own = partial(
            _select_clusters, engines, wanted, guess=guess, ignores_context=ignores_context
        )
        if again:
            wanted = tuple(chosen.name for chosen in again)
            find_own = partial(_select_again, engines, again)
        selection = _select_in_clusters(engines, wanted, others, find_own)
    else:
        selection = Selection(())
    nodes = selection.nodes
    if socket:
        at_socket = [partial(detect, n.name, n.engine, n.container, n.role, socket) for n in nodes]
        nodes = tuple(in_parallel(at_socket))
    machines = _open_machines(addresses, socket) if addresses else ()
    return attrs.evolve(selection, nodes=(*machines, *nodes))


def _open_machines(addresses: Sequence[str], socket: str) -> list[NodeRuntime]:
    from imgload.engines.machine import parse_machine  # noqa: PLC0415 - start-up

    machines = dict.fromkeys(map(parse_machine, addresses))
    return in_parallel([partial(detect, m.node.name, m, m.node, "", socket) for m in machines])


def _select_in_clusters(
    engines: Sequence[ContainerHost],
    wanted: Sequence[str],
    names: Sequence[str],
    find_own: Callable[[], Selection],
) -> Selection:
    """Return the named nodes, or all of the clusters that `find_own` returns without nodes."""
    if names and not wanted:
        return _select_anywhere(engines, names, find_own)
    own = find_own()
    candidates = [node for chosen in own.clusters for node in chosen.candidates]
    for name, count in Counter(name for name, _ in candidates).items():
        if count > 1:
            owners = [c for c in own.clusters if name in {member.name for member in c.members}]
            message = f"{' and '.join(map(str, owners))} both have a node {name}"
            raise ClusterAmbiguous(message, hint="use one command for each cluster")
    if names:
        nodes = _pick(candidates, names, candidates, own.clusters)
    else:
        nodes = tuple(node for chosen in own.clusters for node in chosen.nodes)
    return attrs.evolve(own, nodes=nodes)


def _select_clusters(
    engines: Sequence[ContainerHost],
    wanted: Sequence[str],
    *,
    guess: bool,
    ignores_context: bool,
) -> Selection:
    """Return the named clusters, the kube context's, or the only one, without their nodes."""
    context = "" if wanted else current_context() or ""
    if not wanted and not guess and provider_of(context) is None:
        unset = "no kube context is set, so there is no cluster to load into"
        raise ClusterNotFound(
            _ignored(context) if context else unset,
            hint="kubectl config use-context kind-NAME; or name the cluster with --cluster NAME",
        )
    clusters = _named(engines, wanted) if wanted else (_of_context(engines, context),)
    is_of_context = context in clusters[0].tool.contexts(clusters[0].name)
    why = f"kube context {context!r}" if is_of_context else "the only one"
    trace.log(f"clusters: {', '.join(map(str, clusters))} ({'--cluster' if wanted else why})")
    ignored = "" if wanted or is_of_context else _ignored(context)
    if not ignored:
        return Selection((), clusters)
    if in_ci() or not ignores_context:
        hint = f"confirm the cluster: --cluster {shlex.quote(clusters[0].name)}"
        raise ClusterNotFound(f"no cluster selected: {ignored}", hint=hint)
    return Selection((), clusters, (f"{ignored}; selected the only cluster, {clusters[0]}",))


def _select_again(engines: Sequence[ContainerHost], clusters: Sequence[Cluster]) -> Selection:
    present = {cluster.identity: cluster for cluster in find_clusters(engines)}
    for cluster in clusters:
        if cluster.identity not in present:
            raise _not_found([*present.values()], engines, cluster.name, "")
    return Selection((), tuple(present[cluster.identity] for cluster in clusters))


def _ignored(context: str) -> str:
    """Return why the kube context selects no cluster; empty if none is set."""
    if context:
        return f"the current kube context {context!r} does not name a local cluster"
    return next((message for message, _ in invalid_files()), "")


def _select_anywhere(
    engines: Sequence[ContainerHost], names: Sequence[str], find_own: Callable[[], Selection]
) -> Selection:
    """Return nodes by name; a container may run a containerd without being in a cluster."""
    clusters = find_clusters(engines)
    candidates = [node for cluster in clusters for node in cluster.candidates]
    others = sorted(set(names) - {name for name, _ in candidates})
    for name in filter(_CONTAINER.fullmatch, others):
        containers = in_parallel([partial(engine.container, name) for engine in engines])
        pairs = zip(engines, containers, strict=True)
        candidates += [(name, partial(detect, name, host, box)) for host, box in pairs if box]
    own = Selection(())
    available = [name for name, _ in candidates]
    if any(_matching(name, available) for name in set(others).difference(available)):
        own = find_own()
    for name in names:
        if sum(candidate == name for candidate, _ in candidates) > 1:
            raise ClusterAmbiguous(f"two engines have a node {name}", hint=_ONE_ENGINE)
    in_own = [node for cluster in own.clusters for node in cluster.candidates]
    nodes = _pick(candidates, names, in_own, clusters)
    picked = {(node.engine, node.name) for node in nodes}
    owners = [c for c in clusters if any((m.engine, m.name) in picked for m in c.members)]
    return Selection(nodes, tuple(owners), own.notes)


def _pick(
    candidates: Sequence[Candidate],
    names: Sequence[str],
    own: Sequence[Candidate],
    clusters: Sequence[Cluster],
) -> tuple[NodeRuntime, ...]:
    """Return the named nodes, each once.

    Patterns and the ends of names select only nodes of `own`. `clusters` are those whose names a
    user may have taken for a node's.
    """
    by_name = dict((*candidates, *own))
    picked: list[str] = []
    missing: list[str] = []
    for name in names:
        matching = [name] if name in by_name else _matching(name, [name for name, _ in own])
        if len(matching) > 1 and not _WILDCARD.search(name):
            hint = f"choose one with its full name; or all: --node {shlex.quote(f'*{name}')}"
            message = f"{name!r} is the end of several names: {', '.join(matching)}"
            raise NodeNotFound(message, hint=hint, node=name)
        picked += matching
        missing += [] if matching else [name]
    if mistaken := {cluster.name for cluster in clusters}.intersection(missing):
        name = min(mistaken)  # kind's -n is the cluster
        hint = f"name it with --cluster {shlex.quote(name)}"
        raise NodeNotFound(f"{name} is a cluster, not a node", hint=hint, node=name)
    if missing:
        raise NodeNotFound(
            f"no node {', '.join(missing)}; available: {', '.join(by_name) or 'none'}",
            hint=_missing_hint(missing[0], list(by_name)),
            node=missing[0],
        )
    return tuple(in_parallel([by_name[name] for name in dict.fromkeys(picked)]))


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
    if not is_local and (ignored := _ignored(context)):
        raise ClusterAmbiguous(f"{error.message}; {ignored}", hint=error.hint)
    raise error


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
