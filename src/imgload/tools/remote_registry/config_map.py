"""The ConfigMap that tells other tools about a cluster's registry (KEP-1755).

kubectl writes it, because kubectl knows how to reach the cluster.
"""

from __future__ import annotations

import json
import subprocess
from collections.abc import Sequence
from typing import Any

import attrs

from imgload.core.errors import reason
from imgload.oci.document import load_json
from imgload.tools.remote_registry.url import RegistryUrl

_NAME = "local-registry-hosting"
_NAMESPACE = "kube-public"
_LABELS = {"app.kubernetes.io/managed-by": "imgload"}
_HELP = "https://kind.sigs.k8s.io/docs/user/local-registry/"
_TIMEOUT_SECONDS = 10.0


class _KubectlFailed(Exception):
    """kubectl is not installed, or does not reach the cluster."""


@attrs.frozen
class Hosting:
    """Whether imgload wrote the cluster's ConfigMap; `note` is the reason if it did not."""

    written: bool
    note: str = ""

    def to_json(self) -> dict[str, Any]:
        """Return the ConfigMap's part of the document."""
        return {"written": self.written, "note": self.note or None}


def publish(context: str, url: RegistryUrl, names: Sequence[str]) -> Hosting:
    """Write the ConfigMap with kubectl's context, unless somebody else wrote one."""
    try:
        current = _get(context)
        if current and not _is_ours(current):
            note = f"{_NAMESPACE}/{_NAME} was not written by imgload and is kept"
            return Hosting(written=False, note=note)
        verb = "replace" if current else "create"
        document = json.dumps(_config_map(url, names))
        _kubectl(context, verb, "--validate=false", "-f", "-", stdin=document)
    except _KubectlFailed as error:
        return Hosting(written=False, note=f"{_NAMESPACE}/{_NAME} is not written: {error}")
    return Hosting(written=True)


def remove(context: str, url: RegistryUrl | None) -> Hosting:
    """Delete the ConfigMap if imgload wrote it for this registry; None for any registry."""
    try:
        current = _get(context)
        if current and _is_ours(current):
            registry = _metadata(current, "annotations").get("imgload/registry")
            if url is None or registry == str(url):
                _kubectl(
                    context, "delete", "configmap", _NAME, "--ignore-not-found", "--wait=false"
                )
    except _KubectlFailed as error:
        return Hosting(written=False, note=f"{_NAMESPACE}/{_NAME} is not deleted: {error}")
    return Hosting(written=False)


def _config_map(url: RegistryUrl, names: Sequence[str]) -> dict[str, Any]:
    local_name = next((n for n in names if RegistryUrl("http", n).is_loopback), url.host)
    data = {"host": local_name, "hostFromClusterNetwork": url.host, "help": _HELP}
    lines = "".join(f"{key}: {json.dumps(value)}\n" for key, value in data.items())
    return {
        "apiVersion": "v1",
        "kind": "ConfigMap",
        "metadata": {
            "name": _NAME,
            "namespace": _NAMESPACE,
            "labels": _LABELS,
            "annotations": {"imgload/registry": str(url)},
        },
        "data": {"localRegistryHosting.v1": lines},
    }


def _get(context: str) -> dict[str, Any] | None:
    text = _kubectl(context, "get", "configmap", _NAME, "--ignore-not-found", "-o", "json")
    try:
        config_map = load_json(text) if text.strip() else None
    except ValueError as error:
        raise _KubectlFailed(f"kubectl's output is not valid JSON: {error}") from error
    return config_map if isinstance(config_map, dict) else None


def _metadata(config_map: dict[str, Any], key: str) -> dict[str, Any]:
    value = (config_map.get("metadata") or {}).get(key)
    return value if isinstance(value, dict) else {}


def _is_ours(config_map: dict[str, Any]) -> bool:
    return _LABELS.items() <= _metadata(config_map, "labels").items()


def _kubectl(context: str, *arguments: str, stdin: str = "") -> str:
    command = ["kubectl", "--context", context, "-n", _NAMESPACE, "--request-timeout=5s"]
    try:
        result = subprocess.run(  # noqa: S603 - a list of arguments, no shell
            [*command, *arguments],
            input=stdin,
            capture_output=True,
            text=True,
            timeout=_TIMEOUT_SECONDS,
            check=False,
        )
    except FileNotFoundError as error:
        raise _KubectlFailed("kubectl is not installed") from error
    except (OSError, subprocess.TimeoutExpired) as error:
        raise _KubectlFailed(f"kubectl failed: {error}") from error
    if result.returncode:
        raise _KubectlFailed(f"kubectl: {reason(result.stderr) or 'failed'}")
    return result.stdout
