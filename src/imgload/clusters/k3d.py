"""Clusters that k3d made: k3s in containers (k3d, pkg/types/types.go)."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence

from imgload.clusters.nodes.runtime import K3S
from imgload.clusters.provider import Member, Tool
from imgload.engines.base import Container

LABEL = "app=k3d"
CLUSTER_LABEL = "k3d.cluster"
ROLE_LABEL = "k3d.role"
_ROLES = {"server", "agent"}
_CLUSTER = re.compile(r"(?a)[A-Za-z0-9][\w.-]*")
_NAME = re.compile(r"(?a)k3d-[\w.-]+-\d+")


def _members(containers: Sequence[Container]) -> Iterator[Member]:
    """Yield the nodes.

    Load balancers, registries and tools have other roles. A container inherits its image's labels,
    and an image cannot choose its container's name: k3d's is ``k3d-CLUSTER-ROLE-N``, or
    ``k3d-NAME-N`` after ``k3d node create NAME`` (k3d, cmd/node/nodeCreate.go).
    """
    for container in containers:
        cluster, role = (container.labels.get(key, "") for key in (CLUSTER_LABEL, ROLE_LABEL))
        if role in _ROLES and _CLUSTER.fullmatch(cluster) and _NAME.fullmatch(container.name):
            yield Member(cluster, role, container)


K3D = Tool("k3d", LABEL, "k3d-", _members, K3S)
