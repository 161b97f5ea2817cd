"""Telling other tools which registry a cluster has (KEP-1755, "local-registry-hosting").

The ConfigMap is written with kubectl, which knows how to reach the cluster.
"""

from __future__ import annotations

import json
import subprocess
from collections.abc import Sequence
from typing import Any

import attrs

from imgload.core.errors import reason
from imgload.oci.jsontext import load_json
from imgload.tools.remote_registry.url import RegistryUrl

_NAME = "local-registry-hosting"
_NAMESPACE = "kube-public"
_OURS = {"app.kubernetes.io/managed-by": "imgload"}
_HELP = "https://kind.sigs.k8s.io/docs/user/local-registry/"
_SECONDS = 10.0


class _Unreachable(Exception):
    """kubectl is not there, or does not reach the cluster."""


@attrs.frozen
class Hosting:
    """Whether the cluster's ConfigMap says what is so; `note` says why it does not."""

    written: bool
    note: str = ""

    def to_json(self) -> dict[str, Any]:
        """Return its part of the document."""
        return {"written": self.written, "note": self.note or None}


def announce(context: str, url: RegistryUrl, names: Sequence[str]) -> Hosting:
    """Write the ConfigMap, unless somebody else has.

    Args:
        context: kubectl's, of the cluster.
        url: where the nodes reach the registry.
        names: the registries' names, as in image names.

    """
    try:
        found = _found(context)
        if found and not _is_ours(found):
            return Hosting(written=False, note=f"{_NAMESPACE}/{_NAME} is somebody else's, and kept")
        verb = "replace" if found else "create"
        _kubectl(context, verb, "--validate=false", "-f", "-", stdin=_config_map(url, names))
    except _Unreachable as error:
        return Hosting(written=False, note=f"{_NAMESPACE}/{_NAME} is not written: {error}")
    return Hosting(written=True)


def withdraw(context: str, url: RegistryUrl | None) -> Hosting:
    """Delete the ConfigMap where it is ours, and about this registry; None for any."""
    try:
        found = _found(context)
        if found and _is_ours(found) and (url is None or _says(found) == str(url)):
            _kubectl(context, "delete", "configmap", _NAME, "--ignore-not-found", "--wait=false")
    except _Unreachable as error:
        return Hosting(written=False, note=f"{_NAMESPACE}/{_NAME} is not deleted: {error}")
    return Hosting(written=False)


def _config_map(url: RegistryUrl, names: Sequence[str]) -> str:
    """Return the ConfigMap; the host is the name that this machine pushes to."""
    pushed_to = next((n for n in names if RegistryUrl("http", n).is_loopback), url.host)
    data = {"host": pushed_to, "hostFromClusterNetwork": url.host, "help": _HELP}
    lines = "".join(f"{key}: {json.dumps(value)}\n" for key, value in data.items())
    metadata = {
        "name": _NAME,
        "namespace": _NAMESPACE,
        "labels": _OURS,
        "annotations": {"imgload/registry": str(url)},
    }
    return json.dumps(
        {
            "apiVersion": "v1",
            "kind": "ConfigMap",
            "metadata": metadata,
            "data": {"localRegistryHosting.v1": lines},
        }
    )


def _found(context: str) -> dict[str, Any] | None:
    options = ("--ignore-not-found", "-o", "json")
    text = _kubectl(context, "get", "configmap", _NAME, *options)
    try:
        found = load_json(text) if text.strip() else None
    except ValueError as error:
        raise _Unreachable(f"kubectl's answer is not valid JSON: {error}") from error
    return found if isinstance(found, dict) else None


def _metadata(found: dict[str, Any], part: str) -> dict[str, Any]:
    value = (found.get("metadata") or {}).get(part)
    return value if isinstance(value, dict) else {}


def _is_ours(found: dict[str, Any]) -> bool:
    return _OURS.items() <= _metadata(found, "labels").items()


def _says(found: dict[str, Any]) -> object:
    return _metadata(found, "annotations").get("imgload/registry")


def _kubectl(context: str, *arguments: str, stdin: str = "") -> str:
    command = ["kubectl", "--context", context, "-n", _NAMESPACE, "--request-timeout=5s"]
    try:
        done = subprocess.run(  # noqa: S603 - arguments only, and no shell
            [*command, *arguments],
            input=stdin,
            capture_output=True,
            text=True,
            timeout=_SECONDS,
            check=False,
        )
    except FileNotFoundError as error:
        raise _Unreachable("there is no kubectl") from error
    except (OSError, subprocess.TimeoutExpired) as error:
        raise _Unreachable(f"kubectl failed: {error}") from error
    if done.returncode:
        raise _Unreachable(f"kubectl: {reason(done.stderr) or 'failed'}")
    return done.stdout
