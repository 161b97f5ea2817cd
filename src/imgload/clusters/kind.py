"""Clusters that kind made."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from imgload.clusters.tool import Member, Tool
from imgload.engines.base import Container

CLUSTER_LABEL = "io.x-k8s.kind.cluster"
ROLE_LABEL = "io.x-k8s.kind.role"
LOAD_BALANCER = "external-load-balancer"


def _members(containers: Sequence[Container]) -> Iterator[Member]:
    """Yield the nodes; a load balancer is labelled like them (kind, nodeutils.InternalNodes)."""
    for container in containers:
        role = container.labels.get(ROLE_LABEL, "")
        if role != LOAD_BALANCER:
            yield Member(container.labels[CLUSTER_LABEL], role, container)


KIND = Tool("kind", CLUSTER_LABEL, "kind-", _members)
