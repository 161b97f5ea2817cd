"""A minimal Kubernetes API server that stores config maps and workloads for kubectl."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import attrs

_VERBS = ["create", "delete", "get", "list", "patch", "update"]
_RESOURCE = {"name": "configmaps", "namespaced": True, "kind": "ConfigMap", "verbs": _VERBS}
_APPS = "/apis/apps/v1"
_WORKLOADS = {"deployments": "Deployment", "statefulsets": "StatefulSet", "daemonsets": "DaemonSet"}
_APPS_RESOURCES = [
    {"name": name, "singularName": kind.lower(), "namespaced": True, "kind": kind, "verbs": _VERBS}
    for name, kind in _WORKLOADS.items()
]
_VERSION = {"groupVersion": "apps/v1", "version": "v1"}
_DISCOVERY: dict[str, Any] = {
    "/api": {"kind": "APIVersions", "versions": ["v1"]},
    "/apis": {
        "kind": "APIGroupList",
        "apiVersion": "v1",
        "groups": [{"name": "apps", "versions": [_VERSION], "preferredVersion": _VERSION}],
    },
    "/api/v1": {"kind": "APIResourceList", "groupVersion": "v1", "resources": [_RESOURCE]},
    _APPS: {"kind": "APIResourceList", "groupVersion": "apps/v1", "resources": _APPS_RESOURCES},
}
_FOLDER = "/api/v1/namespaces/kube-public/configmaps"


@attrs.frozen
class ApiServer:
    """A server with its config maps by name, its workloads, and the paths that were patched."""

    config_maps: dict[str, Any] = attrs.field(factory=dict)
    workloads: list[Any] = attrs.field(factory=list)
    patched: list[str] = attrs.field(factory=list)

    def add_workload(self, kind: str, namespace: str, name: str, image: str) -> None:
        spec = {"containers": [{"name": "app", "image": image}]}
        labels = {"app": name}
        template = {"metadata": {"labels": labels}, "spec": spec}
        metadata = {"name": name, "namespace": namespace}
        body = {"selector": {"matchLabels": labels}, "template": template}
        workload = {"apiVersion": "apps/v1", "kind": kind, "metadata": metadata, "spec": body}
        self.workloads.append(workload)

    def answer(self, method: str, path: str, body: Any) -> tuple[int, Any]:
        if path in _DISCOVERY:
            return 200, _DISCOVERY[path]
        kind = _WORKLOADS.get(path.removeprefix(f"{_APPS}/"))
        if kind:
            items = [workload for workload in self.workloads if workload["kind"] == kind]
            return 200, {"apiVersion": "apps/v1", "kind": f"{kind}List", "items": items}
        for workload in self.workloads:
            metadata = workload["metadata"]
            folder = f"{_APPS}/namespaces/{metadata['namespace']}/{workload['kind'].lower()}s"
            if path == f"{folder}/{metadata['name']}":
                if method == "PATCH":
                    self.patched.append(path.removeprefix(f"{_APPS}/namespaces/"))
                return 200, workload
        name = path.removeprefix(f"{_FOLDER}/") if path.startswith(f"{_FOLDER}/") else ""
        if method == "POST" and path == _FOLDER:
            return 201, self.config_maps.setdefault(body["metadata"]["name"], body)
        if name not in self.config_maps:
            status = {"kind": "Status", "apiVersion": "v1", "status": "Failure", "code": 404}
            return 404, {**status, "reason": "NotFound", "message": f"{path} not found"}
        if method == "PUT":
            self.config_maps[name] = body
        return 200, self.config_maps.pop(name) if method == "DELETE" else self.config_maps[name]

    @contextmanager
    def listening(self, kubeconfig: Path, context: str) -> Iterator[None]:
        """Serve, and write a kubeconfig for this server."""
        api = self

        class Handler(BaseHTTPRequestHandler):
            def _serve(self) -> None:
                length = int(self.headers.get("Content-Length") or 0)
                body = json.loads(self.rfile.read(length)) if length else None
                path = self.path.partition("?")[0]
                status, value = api.answer(self.command, path, body)
                data = json.dumps(value).encode()
                self.send_response(status)
                self.send_header("Content-Type", "application/json")
                self.send_header("Content-Length", str(len(data)))
                self.end_headers()
                self.wfile.write(data)

            do_GET = do_POST = do_PUT = do_PATCH = do_DELETE = _serve  # noqa: N815

            def log_message(self, *_: object) -> None:
                pass

        with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
            threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True).start()
            url = f"http://127.0.0.1:{server.server_address[1]}"
            kubeconfig.write_text(json.dumps(_kubeconfig(url, context)))
            yield
            server.shutdown()


def _kubeconfig(url: str, context: str) -> dict[str, Any]:
    return {
        "apiVersion": "v1",
        "kind": "Config",
        "clusters": [{"name": "it", "cluster": {"server": url}}],
        "users": [{"name": "me", "user": {}}],
        "contexts": [{"name": context, "context": {"cluster": "it", "user": "me"}}],
    }
