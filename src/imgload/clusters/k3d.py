"""Clusters that k3d made: k3s in containers (k3d, pkg/types/types.go)."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from imgload.clusters.tool import Member, Tool
from imgload.engines.base import Container
from imgload.nodes.runtime import K3S

LABEL = "app=k3d"
CLUSTER_LABEL = "k3d.cluster"
ROLE_LABEL = "k3d.role"
_NODES = {"server", "agent"}


def _members(containers: Sequence[Container]) -> Iterator[Member]:
    """Yield the nodes; load balancers, registries and tools are labelled like them."""
    for container in containers:
        role = container.labels.get(ROLE_LABEL, "")
        if role in _NODES and CLUSTER_LABEL in container.labels:
            yield Member(container.labels[CLUSTER_LABEL], role, container)


K3D = Tool("k3d", LABEL, "k3d-", _members, K3S)
