"""Check the kube context, the clusters, the selected nodes, and how Skaffold loads into them.

For the kube context of a kind or k3d cluster Skaffold runs the program of that name to load.
"""

from __future__ import annotations

import os
import shlex
import shutil
from collections.abc import Iterator, Sequence
from pathlib import Path

from imgload.clusters.cluster import Cluster, find_clusters
from imgload.clusters.kubeconfig import current_context, invalid_files
from imgload.clusters.nodes.base import NodeRuntime
from imgload.clusters.provider import provider_of
from imgload.clusters.select import select_nodes
from imgload.core.errors import ClusterAmbiguous, ClusterError, ClusterNotFound, ImgloadError
from imgload.core.parallel import call_each
from imgload.engines.base import Engine
from imgload.engines.discovery.discover import Discovery
from imgload.tools.doctor.finding import Finding
from imgload.tools.dropins.install import find_real, is_drop_in, on_path
from imgload.tools.skaffold.request import docker_client

_SECONDS = 5.0
_LOADERS = ("kind", "k3d")


def select_for_checks(
    engines: Sequence[Engine],
    wanted: Sequence[str],
    names: Sequence[str],
    address: str | None = None,
) -> tuple[list[Finding], list[Cluster], Sequence[NodeRuntime]]:
    """Return the findings, the clusters, and the nodes of the wanted ones as in `select_nodes`.

    If nothing was named and several clusters match, the nodes are those of all clusters.
    """
    is_named = bool(wanted or names)
    findings: list[Finding] = []
    answering: list[Engine] = []
    clusters: list[Cluster] = []
    for hosts, result in call_each(find_clusters, [[e] for e in engines] or [[]], _SECONDS):
        if isinstance(result, ImgloadError):
            what, endpoint = result.message, str(hosts[0].endpoint) if hosts else "machines"
            if endpoint not in what:
                what = f"{endpoint}: listing clusters: {what}"
            findings.append(Finding("clusters", "problem", what, result.hint))
        else:
            answering += hosts
            known = {cluster.engine for cluster in clusters}  # machines are in each result
            clusters += [cluster for cluster in result if cluster.engine not in known]
    findings[:0] = _context(answering, clusters, decides=not is_named)
    try:
        nodes = (
            select_nodes(answering, wanted, names, address=address)
            if answering or clusters or names
            else ()
        )
        findings += _clusters(clusters, nodes)
    except ClusterError as error:
        nodes = () if is_named else tuple(node for item in clusters for node in item.nodes)
        if is_named:
            status = error.exit_status
            findings.append(Finding("clusters", "problem", error.message, error.hint, status))
        elif not clusters or not isinstance(error, ClusterNotFound):  # else `_context` reports it
            ambiguous = isinstance(error, ClusterAmbiguous)
            findings.append(Finding.of("clusters", error, "warning" if ambiguous else "problem"))
    return findings, clusters, nodes


def _clusters(clusters: Sequence[Cluster], nodes: Sequence[NodeRuntime]) -> Iterator[Finding]:
    selected = {(node.engine.endpoint, node.name) for node in nodes}
    others: list[str] = []
    for cluster in clusters:
        members = {(member.engine.endpoint, member.name) for member in cluster.members}
        if selected & members:
            text = f"{cluster.name} ({cluster.tool.name}, {cluster.engine.endpoint})"
            count = len(members)
            yield Finding("clusters", "ok", f"{text}: {count} node{'s' if count > 1 else ''}")
        else:
            others.append(cluster.name)
    if others:
        yield Finding("clusters", "info", f"other clusters: {', '.join(others)}")


def _context(
    engines: Sequence[Engine], clusters: Sequence[Cluster], *, decides: bool
) -> Iterator[Finding]:
    """Yield whether the kubeconfig files are valid, and the current context leads to a cluster.

    If not, it is a problem if the context `decides`, since no cluster or node was named.
    """
    paths = [Path(part) for part in os.environ.get("KUBECONFIG", "").split(os.pathsep) if part]
    for path in paths:
        if not os.path.lexists(path):
            what = f"KUBECONFIG names {path}, which does not exist"
            yield Finding("context", "warning", what, "unset KUBECONFIG; or correct it")
    for what, hint in invalid_files():
        yield Finding("context", "problem", what, hint)
    context = current_context()
    exists = any(cluster.context == context for cluster in clusters)
    if context is None:
        yield Finding("context", "info", "no kube context is set")
    elif not exists and provider_of(context) is None:
        what = f"the kube context {context!r} does not name a local cluster"
        hint = "name the cluster with --cluster; prune and CI jobs require it"
        yield Finding("context", "warning" if decides else "info", what, hint)
    else:
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


def check_skaffold(discovery: Discovery) -> Iterator[Finding]:
    """Yield the drop-ins on PATH and, if Skaffold is installed, its engine, builder and loader."""
    for name in _LOADERS:
        yield from _drop_in(name)
    if not shutil.which("skaffold"):
        yield Finding("skaffold", "info", "skaffold is not on PATH")
        return
    url, origin, endpoint = docker_client(discovery)
    if endpoint:
        kind = f" (Podman's Docker API, by {origin})" if endpoint.kind == "podman" else ""
        yield Finding("skaffold", "ok", f"Skaffold builds with {endpoint}{kind}")
    else:
        what = f"Skaffold builds with {url} ({origin}), where no engine answers"
        urls = [endpoint.url for endpoint in discovery.endpoints]
        hint = f"export DOCKER_HOST={shlex.quote(urls[0])}" if urls else ""
        yield Finding("skaffold", "warning", what, hint)
    if not shutil.which("imgload"):
        what = "imgload is not on PATH, where Skaffold looks for the builder `imgload skaffold`"
        hint = "pipx install imgload-k8s; or use its full path in skaffold.yaml"
        yield Finding("skaffold", "warning", what, hint)
    context = current_context() or ""
    for tool in _LOADERS:
        if context.startswith(f"{tool}-") and not any(True for _ in on_path(tool)):
            what = f"{tool} is not on PATH, and Skaffold needs it to load images into {context}"
            yield Finding("skaffold", "warning", what, f"imgload {tool} --install ~/.local/bin")


def _drop_in(name: str) -> Iterator[Finding]:
    """Yield whether imgload's drop-in, if it is installed, comes first on PATH."""
    programs = list(on_path(name))
    drop_in = next(filter(is_drop_in, programs), None)
    if drop_in is None:
        return
    if programs[0] == drop_in:
        real = find_real(name)
        rest = f"forwards other commands to {real}" if real else f"finds no {name} to forward to"
        yield Finding("skaffold", "ok", f"`{name}` is imgload's ({drop_in}), and {rest}")
    else:
        what = f"`{name}` is {programs[0]}; imgload's, {drop_in}, comes after it on PATH"
        first = f"put it first: export PATH={shlex.quote(str(drop_in.parent))}:$PATH"
        yield Finding("skaffold", "warning", what, first)
