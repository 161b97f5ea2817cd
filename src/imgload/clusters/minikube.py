"""Clusters made by minikube's docker or podman driver (pkg/drivers/kic/oci/types.go)."""

from __future__ import annotations

import os
import re
import shlex
from collections.abc import Iterator, Sequence
from pathlib import Path

from imgload.clusters.provider import ClusterProvider, NodeContainer
from imgload.engines.base import Container

_NAME_LABEL = "name.minikube.sigs.k8s.io"
_ROLE_LABEL = "role.minikube.sigs.k8s.io"
_ROLES = {"", "control-plane", "worker"}
_LATER_NODE = r"(.+)-m\d{2,}"
_PROFILE = r"(?a)[A-Za-z0-9][\w.-]*"
_DEFAULT_PROFILE = "minikube"


class Minikube(ClusterProvider):
    """minikube; a cluster and its kube context are called like its profile."""

    name = "minikube"
    label = "created_by.minikube.sigs.k8s.io=true"

    def nodes(self, containers: Sequence[Container]) -> Iterator[NodeContainer]:
        """Yield containers named as in their label.

        The second node of ``dev`` is ``dev-m02`` (pkg/drivers/kic/kic.go). The kic driver leaves
        the role's label empty; a container that only fills a volume lacks it.
        """
        nodes = {
            container.name: container
            for container in containers
            if container.labels.get(_NAME_LABEL) == container.name
            and container.labels.get(_ROLE_LABEL) in _ROLES
        }
        for name, container in nodes.items():
            later = re.fullmatch(_LATER_NODE, name)
            cluster = later.group(1) if later and later.group(1) in nodes else name
            yield NodeContainer(cluster, container.labels[_ROLE_LABEL] or "node", container)

    def owns_context(self, context: str) -> bool:
        """Return whether minikube has a profile of that name, with whichever driver."""
        if context == _DEFAULT_PROFILE:
            return True
        home = Path(os.environ.get("MINIKUBE_HOME") or os.environ.get("HOME") or Path.home())
        folder = home if home.name == ".minikube" else home / ".minikube"
        is_name = re.fullmatch(_PROFILE, context) is not None
        return is_name and (folder / "profiles" / context / "config.json").exists()

    def absence_hint(self, context: str | None) -> str:
        if not context or not self.owns_context(context):
            return ""
        return (
            "with a driver other than docker or podman its nodes are not containers:"
            f" minikube -p {shlex.quote(context)} image load IMAGE"
        )


MINIKUBE = Minikube()
