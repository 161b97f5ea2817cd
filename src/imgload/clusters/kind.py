"""Clusters made by kind."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator, Sequence

from imgload.clusters.provider import ClusterProvider, NodeContainer
from imgload.engines.base import Container

CLUSTER_LABEL = "io.x-k8s.kind.cluster"
ROLE_LABEL = "io.x-k8s.kind.role"
_ROLES = {"control-plane", "worker"}


class Kind(ClusterProvider):
    name = "kind"
    label = CLUSTER_LABEL
    context_prefix = "kind-"

    def nodes(self, containers: Sequence[Container]) -> Iterator[NodeContainer]:
        """Yield containers named ``CLUSTER-ROLE``, with a number from the second of a role on.

        kind, pkg/cluster/internal/providers/common/namer.go. Load balancers have another role.
        """
        for container in containers:
            cluster, role = (container.labels.get(key, "") for key in (CLUSTER_LABEL, ROLE_LABEL))
            name = rf"(?a){re.escape(cluster)}-{role}([2-9]|[1-9]\d+)?"
            if cluster and role in _ROLES and re.fullmatch(name, container.name):
                yield NodeContainer(cluster, role, container)

    def absence_hint(self, context: str | None) -> str:  # noqa: ARG002
        engine = os.environ.get("KIND_EXPERIMENTAL_PROVIDER", "")
        if engine in {"", "docker", "podman"}:
            return ""
        return f"imgload cannot reach kind's nodes in {engine}: kind load image-archive FILE"


KIND = Kind()
