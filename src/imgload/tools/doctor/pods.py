"""Find pods that wait for an image, if kubectl and the cluster answer."""

from __future__ import annotations

import json
import shlex
import shutil
import subprocess
from collections.abc import Iterator
from contextlib import suppress
from typing import Any

from imgload.core.errors import ReferenceInvalid
from imgload.oci.reference import Reference
from imgload.tools.doctor.finding import Finding

_SECONDS = 2.0
_REASONS = {"ErrImagePull", "ImagePullBackOff", "ErrImageNeverPull", "InvalidImageName"}
_MOST = 5


def check_pods(name: str, context: str) -> Iterator[Finding]:
    """Yield the pods that wait for an image; nothing if no cluster answers within 2 seconds."""
    findings = [finding for pod in _pods(context) for finding in _findings(pod, name)]
    yield from findings[:_MOST]
    if len(findings) > _MOST:
        yield Finding("pods", "info", f"{len(findings) - _MOST} more pods wait for {name}")


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


def _findings(pod: Any, name: str) -> Iterator[Finding]:
    with suppress(KeyError, TypeError, AttributeError):
        status, spec, metadata = pod["status"], pod["spec"], pod["metadata"]
        reasons = {
            state["name"]: ((state.get("state") or {}).get("waiting") or {}).get("reason")
            for kind in ("containerStatuses", "initContainerStatuses")
            for state in status.get(kind) or ()
        }
        namespace, pod_name = str(metadata["namespace"]), str(metadata["name"])
        restart = f"kubectl -n {shlex.quote(namespace)} delete pod {shlex.quote(pod_name)}"
        load = f"imgload load {shlex.quote(name)}, then: {restart}"
        for container in [*spec["containers"], *(spec.get("initContainers") or ())]:
            reason = reasons.get(container["name"])
            if reason in _REASONS and _is_called(container["image"], name):
                policy = container.get("imagePullPolicy")
                where = f"pod {namespace}/{pod_name} on {spec.get('nodeName') or 'its node'}"
                what = f"{where}: {reason}, with imagePullPolicy {policy}"
                fix = "set imagePullPolicy: IfNotPresent to use the image on the node; "
                yield Finding("pods", "problem", what, fix + load if policy == "Always" else load)


def _is_called(text: str, name: str) -> bool:
    with suppress(ReferenceInvalid):
        return Reference.parse(text).record == name
    return False
