"""Clusters that minikube made with its docker or podman driver (pkg/drivers/kic/oci/types.go)."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

from imgload.clusters.tool import Member, Tool
from imgload.engines.base import Container

LABEL = "created_by.minikube.sigs.k8s.io=true"
NAME_LABEL = "name.minikube.sigs.k8s.io"
ROLE_LABEL = "role.minikube.sigs.k8s.io"
_FURTHER = r"(.+)-m\d{2,}"
_PROFILE = r"(?a)[A-Za-z0-9][\w.-]*"
_DEFAULT = "minikube"


def _members(containers: Sequence[Container]) -> Iterator[Member]:
    """Yield the nodes; the second one of ``dev`` is labelled ``dev-m02`` (pkg/drivers/kic/kic.go).

    A container that only fills a volume has no role.
    """
    nodes = [c for c in containers if c.labels.get(ROLE_LABEL) and c.labels.get(NAME_LABEL)]
    names = {container.labels[NAME_LABEL] for container in nodes}
    for container in nodes:
        name = container.labels[NAME_LABEL]
        further = re.fullmatch(_FURTHER, name)
        cluster = further.group(1) if further and further.group(1) in names else name
        yield Member(cluster, container.labels[ROLE_LABEL], container)


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
