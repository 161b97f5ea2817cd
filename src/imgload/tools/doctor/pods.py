"""Find pods that wait for an image, if kubectl and the cluster answer."""

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

_SECONDS = 2.0
_REASONS = {"ErrImagePull", "ImagePullBackOff", "ErrImageNeverPull", "InvalidImageName"}
_MOST = 5


def check_pods(name: str, context: str) -> Iterator[Finding]:
    """Yield the pods that wait for an image; nothing if no cluster answers within 2 seconds.

    Args:
        name: of the image, as the kubelet resolves it.
        context: the kube context of the cluster.

    """
    waiting = list(_waiting(_pods(context), name))
    for pod, container, reason in waiting[:_MOST]:
        yield _finding(pod, container, reason, name)
    if len(waiting) > _MOST:
        yield Finding("pods", "info", f"{len(waiting) - _MOST} more pods wait for {name}")


def _pods(context: str) -> list[Any]:
    kubectl = shutil.which("kubectl")
    if kubectl is None:
        return []
    query = f"get pods --all-namespaces --output=json --request-timeout={_SECONDS:.0f}s"
    try:
        done = subprocess.run(  # noqa: S603 - kubectl from PATH, no shell
            [kubectl, f"--context={context}", *query.split()],
            capture_output=True,
            check=True,
            stdin=subprocess.DEVNULL,
            timeout=_SECONDS,
        )
        items = json.loads(done.stdout)["items"]
    except (OSError, subprocess.SubprocessError, ValueError, KeyError, TypeError, RecursionError):
        return []
    return items if isinstance(items, list) else []


def _waiting(pods: list[Any], name: str) -> Iterator[tuple[Any, Any, str]]:
    """Yield pod, container and reason for each container that waits for the image."""
    for pod in pods:
        try:
            status, spec = pod["status"], pod["spec"]
            reasons = {
                state["name"]: ((state.get("state") or {}).get("waiting") or {}).get("reason")
                for kind in ("containerStatuses", "initContainerStatuses")
                for state in status.get(kind) or ()
            }
            for container in [*spec["containers"], *(spec.get("initContainers") or ())]:
                reason = reasons.get(container["name"])
                if reason in _REASONS and _resolved(container["image"]) == name:
                    yield pod, container, reason
        except (KeyError, TypeError, AttributeError):
            continue


def _resolved(name: str) -> str:
    try:
        return Reference.parse(name).record
    except ReferenceInvalid:
        return ""


def _finding(pod: Any, container: Any, reason: str, name: str) -> Finding:
    namespace, pod_name = (str(pod["metadata"].get(key)) for key in ("namespace", "name"))
    policy = str(container.get("imagePullPolicy"))
    node = str(pod["spec"].get("nodeName") or "its node")
    what = f"pod {namespace}/{pod_name} on {node}: {reason}, with imagePullPolicy {policy}"
    restart = f"kubectl -n {shlex.quote(namespace)} delete pod {shlex.quote(pod_name)}"
    hint = f"imgload load {shlex.quote(name)}, then: {restart}"
    if policy == "Always":
        hint = f"set imagePullPolicy: IfNotPresent to use the image on the node; {hint}"
    return Finding("pods", "problem", what, hint)
