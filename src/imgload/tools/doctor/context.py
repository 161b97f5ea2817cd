"""What kubectl's configuration says of the cluster that is meant."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

from imgload.clusters.kubeconfig import current_context, invalid
from imgload.clusters.select import Cluster, select_nodes, tool_of
from imgload.core.errors import ClusterError, ClusterNotFound
from imgload.engines.base import Engine
from imgload.tools.doctor.finding import Finding, Status


def check_context(
    engines: Sequence[Engine],
    clusters: Sequence[Cluster],
    environ: Mapping[str, str] | None = None,
    *,
    counts: bool,
) -> Iterator[Finding]:
    """Yield whether the current context leads to a cluster that is there.

    Args:
        engines: that were asked for clusters.
        clusters: that were found on them.
        environ: in place of the process's environment.
        counts: whether the context decides, since no cluster and no node was named.

    """
    variables = os.environ if environ is None else environ
    yield from _files(variables)
    context = current_context(variables)
    if context is None:
        yield Finding("context", "info", "no kube context is set")
    elif any(cluster.context == context for cluster in clusters):
        yield Finding("context", "ok", f"the kube context {context!r} leads to a cluster here")
    elif tool_of(context) is None:
        what = f"the kube context {context!r} is of no kind, k3d or minikube cluster"
        yield Finding("context", "info", f"{what}: name one with --cluster")
    else:
        yield _missing(context, engines, counts=counts)


def _missing(context: str, engines: Sequence[Engine], *, counts: bool) -> Finding:
    try:
        select_nodes(engines, context, ())
    except ClusterNotFound as error:
        what = f"the kube context {context!r} names a cluster that is not there: {error.message}"
        back = "kubectl config get-contexts, then: kubectl config use-context NAME"
        status: Status = "problem" if counts else "warning"
        return Finding("context", status, what, f"{back}; or {error.hint}")
    except ClusterError as error:
        return Finding.of("context", error)
    return Finding("context", "ok", f"the kube context {context!r} leads to a cluster here")


def _files(variables: Mapping[str, str]) -> Iterator[Finding]:
    listed = variables.get("KUBECONFIG")
    paths = [Path(part) for part in listed.split(os.pathsep) if part] if listed else []
    for path in paths:
        if not os.path.lexists(path):
            what = f"KUBECONFIG names {path}, which is not there"
            yield Finding("context", "warning", what, "unset KUBECONFIG; or correct it")
    for path in paths or [Path.home() / ".kube" / "config"]:
        if why := invalid(path):
            what = f"{path} cannot be used, and kubectl fails: {why}"
            yield Finding("context", "problem", what, "correct it; or unset KUBECONFIG")
