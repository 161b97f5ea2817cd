"""Clusters that minikube made with its docker or podman driver (pkg/drivers/kic/oci/types.go)."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

from imgload.clusters.provider import Member, Tool
from imgload.engines.base import Container

LABEL = "created_by.minikube.sigs.k8s.io=true"
NAME_LABEL = "name.minikube.sigs.k8s.io"
ROLE_LABEL = "role.minikube.sigs.k8s.io"
_FURTHER = r"(.+)-m\d{2,}"
_PROFILE = r"(?a)[A-Za-z0-9][\w.-]*"
_DEFAULT = "minikube"
_ROLES = {"", "control-plane", "worker"}


def _members(containers: Sequence[Container]) -> Iterator[Member]:
    """Yield the nodes; the second one of ``dev`` is called ``dev-m02`` (pkg/drivers/kic/kic.go).

    A container inherits its image's labels, and an image cannot choose its container's name: a
    node's is the one in its label. A container that only fills a volume has no label for a role.
    minikube leaves that label empty: its kic driver sets no role.
    """
    nodes = {
        container.name: container
        for container in containers
        if container.labels.get(NAME_LABEL) == container.name and _role(container) in _ROLES
    }
    for name, container in nodes.items():
        further = re.fullmatch(_FURTHER, name)
        cluster = further.group(1) if further and further.group(1) in nodes else name
        yield Member(cluster, _role(container) or "node", container)


def _role(container: Container) -> str | None:
    return container.labels.get(ROLE_LABEL)


MINIKUBE = Tool("minikube", LABEL, "", _members)


def is_profile(context: str, environ: Mapping[str, str] | None = None) -> bool:
    """Whether a kube context is a cluster of minikube's, whatever its driver."""
    if context == _DEFAULT:
        return True
    variables = os.environ if environ is None else environ
    folder = Path(variables.get("MINIKUBE_HOME") or variables.get("HOME") or Path.home())
    if folder.name != ".minikube":
        folder /= ".minikube"
    named = re.fullmatch(_PROFILE, context)
    return bool(named) and (folder / "profiles" / context / "config.json").exists()
