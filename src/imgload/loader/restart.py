"""Restarts the workloads whose pods use a changed image, with the user's kubectl."""

from __future__ import annotations

import shlex
from collections.abc import Collection, Iterator, Mapping
from functools import partial
from typing import Any

from imgload.clusters.kubectl import run_kubectl
from imgload.core.errors import ClusterError, ImgloadError
from imgload.core.parallel import in_parallel, result_or_error
from imgload.loader.manifests import image_names
from imgload.loader.report import Restart, Workload
from imgload.oci.document import dig, load_json, text_at
from imgload.oci.reference import Reference

_KINDS = ("deployment", "statefulset", "daemonset")
_SECONDS = 30


def restart_workloads(changed: Mapping[str, Collection[str]], *, dry_run: bool) -> Restart:
    """Restart the workloads that name a changed image.

    Args:
        changed: by kube context, the names of the images that changed on a node, as on the node.
        dry_run: only list them.

    """
    restarted: list[Workload] = []
    errors: list[ImgloadError] = []
    for context, names in changed.items():
        try:
            workloads = _find(context, names)
        except ClusterError as error:
            errors.append(error)
            continue
        if dry_run:
            restarted += workloads
            continue
        calls = [partial(result_or_error, partial(_restart, workload)) for workload in workloads]
        for result in in_parallel(calls):
            if isinstance(result, Workload):
                restarted.append(result)
            else:
                errors.append(result)
    failed = "\n".join(failure.message for failure in errors)
    return Restart(tuple(restarted), ClusterError(failed, hint=errors[0].hint) if errors else None)


def _find(context: str, names: Collection[str]) -> list[Workload]:
    query = ("get", ",".join(f"{kind}s" for kind in _KINDS), "--all-namespaces", "-o", "json")
    try:
        document = load_json(run_kubectl(context, *query, seconds=_SECONDS), most=None)
    except (ClusterError, ValueError) as error:
        message = error.message if isinstance(error, ClusterError) else f"kubectl: {error}"
        hint = f"check with: {shlex.join(['kubectl', f'--context={context}', *query[:3]])}"
        raise ClusterError(
            f"cannot list the workloads of {context}: {message}", hint=hint
        ) from error
    items = dig(document, "items")
    return [
        Workload(context, text_at(item, "metadata", "namespace"), kind, name)
        for item in (items if isinstance(items, list) else ())
        if (kind := text_at(item, "kind").lower()) in _KINDS
        and (name := text_at(item, "metadata", "name"))
        and not {*_images(item)}.isdisjoint(names)
    ]


def _images(workload: Any) -> Iterator[str]:
    """Yield the images of a pod template, as a node names them."""
    for name in image_names(workload):
        try:
            yield Reference.parse(name).record
        except ImgloadError:  # the kubelet refuses it, too
            continue


def _restart(workload: Workload) -> Workload:
    target = f"{workload.kind}/{workload.name}"
    command = (f"--namespace={workload.namespace}", "rollout", "restart", target)
    try:
        run_kubectl(workload.context, *command, seconds=_SECONDS)
    except ClusterError as error:
        hint = shlex.join(["kubectl", f"--context={workload.context}", *command])
        raise ClusterError(f"cannot restart {workload}: {error.message}", hint=hint) from error
    return workload
