"""Clusters made by k3d: k3s in containers (k3d, pkg/types/types.go)."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence

from imgload.clusters.nodes.runtime import K3S
from imgload.clusters.provider import ClusterProvider, NodeContainer
from imgload.engines.base import Container

_ROLES = {"server", "agent"}
_CLUSTER = re.compile(r"(?a)[A-Za-z0-9][\w.-]*")
_NAME = re.compile(r"(?a)k3d-[\w.-]+-\d+")


class K3d(ClusterProvider):
    name = "k3d"
    label = "app=k3d"
    context_prefix = "k3d-"
    runtime = K3S

    def nodes(self, containers: Sequence[Container]) -> Iterator[NodeContainer]:
        """Yield containers named ``k3d-CLUSTER-ROLE-N``, or ``k3d-NAME-N``.

        The latter are made by ``k3d node create NAME`` (k3d, cmd/node/nodeCreate.go). Load
        balancers, registries and tools have other roles.
        """
        for container in containers:
            cluster, role = (container.labels.get(f"k3d.{key}", "") for key in ("cluster", "role"))
            if role in _ROLES and _CLUSTER.fullmatch(cluster) and _NAME.fullmatch(container.name):
                yield NodeContainer(cluster, role, container)


K3D = K3d()
