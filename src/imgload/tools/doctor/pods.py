"""Pods that wait for an image, where kubectl and the cluster answer."""

from __future__ import annotations

import json
import shlex
import shutil
import subprocess
from collections.abc import Iterator
from typing import Any

from imgload.core.errors import ReferenceInvalid
from imgload.oci.reference import Reference
from imgload.tools.doctor.finding import Finding

SECONDS = 2.0
_REASONS = {"ErrImagePull", "ImagePullBackOff", "ErrImageNeverPull", "InvalidImageName"}
_MOST = 5


def check_pods(name: str, context: str | None) -> Iterator[Finding]:
    """Yield the pods that wait for an image; nothing where no cluster answers within 2 seconds.

    Args:
        name: the image's, as the kubelet resolves it.
        context: the kube context to ask; None for the current one.

    """
    waiting = list(_waiting(_pods(context), name))
    for pod, container, reason in waiting[:_MOST]:
        yield _finding(pod, container, reason, name)
    if len(waiting) > _MOST:
        yield Finding("pods", "info", f"{len(waiting) - _MOST} more pods wait for {name}")


def _pods(context: str | None) -> list[Any]:
    kubectl = shutil.which("kubectl")
    if kubectl is None:
        return []
    which = [f"--context={context}"] if context else []
    asked = [
        "get",
        "pods",
        "--all-namespaces",
        "--output=json",
        f"--request-timeout={SECONDS:.0f}s",
    ]
    try:
        done = subprocess.run(  # noqa: S603 - kubectl as it is on PATH, no shell
            [kubectl, *which, *asked],
            capture_output=True,
            check=True,
            stdin=subprocess.DEVNULL,
            timeout=SECONDS,
        )
        items = json.loads(done.stdout)["items"]
    except (OSError, subprocess.SubprocessError, ValueError, KeyError, TypeError, RecursionError):
        return []
    return items if isinstance(items, list) else []


def _waiting(pods: list[Any], name: str) -> Iterator[tuple[Any, Any, str]]:
    """Yield pod, container and reason for each container that waits for the image."""
    for pod in pods:
        try:
            reasons = dict(_reasons(pod["status"]))
            spec = pod["spec"]
            containers = [*spec["containers"], *(spec.get("initContainers") or ())]
            for container in containers:
                reason = reasons.get(container["name"])
                if reason in _REASONS and _means(container["image"], name):
                    yield pod, container, reason
        except (KeyError, TypeError, AttributeError):
            continue


def _reasons(status: Any) -> Iterator[tuple[str, str]]:
    for kind in ("containerStatuses", "initContainerStatuses"):
        for each in status.get(kind) or ():
            waiting = (each.get("state") or {}).get("waiting") or {}
            yield each["name"], str(waiting.get("reason"))


def _means(written: str, name: str) -> bool:
    try:
        return Reference.parse(written).record == name
    except ReferenceInvalid:
        return False


def _finding(pod: Any, container: Any, reason: str, name: str) -> Finding:
    space, called = (str(pod["metadata"].get(key)) for key in ("namespace", "name"))
    policy = str(container.get("imagePullPolicy"))
    node = str(pod["spec"].get("nodeName") or "its node")
    what = f"pod {space}/{called} on {node}: {reason}, with imagePullPolicy {policy}"
    again = f"kubectl -n {shlex.quote(space)} delete pod {shlex.quote(called)}"
    load = f"imgload load {shlex.quote(name)}, then: {again}"
    hints = {
        "Always": f"set imagePullPolicy: IfNotPresent, so that the node's image is taken; {load}",
        "Never": load,
    }
    return Finding("pods", "problem", what, hints.get(policy, load))
