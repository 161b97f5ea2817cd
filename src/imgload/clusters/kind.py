"""Clusters that kind made."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence

from imgload.clusters.provider import Member, Tool
from imgload.engines.base import Container

CLUSTER_LABEL = "io.x-k8s.kind.cluster"
ROLE_LABEL = "io.x-k8s.kind.role"
_ROLES = {"control-plane", "worker"}


def _members(containers: Sequence[Container]) -> Iterator[Member]:
    """Yield the nodes.

    A container inherits its image's labels, so labels alone prove nothing. An image cannot choose
    its container's name; kind's is ``CLUSTER-ROLE``, and a number from the second of a role on
    (kind, pkg/cluster/internal/providers/common/namer.go). Load balancers have another role.
    """
    for container in containers:
        cluster, role = (container.labels.get(key, "") for key in (CLUSTER_LABEL, ROLE_LABEL))
        named = rf"(?a){re.escape(cluster)}-{role}([2-9]|[1-9]\d+)?"
        if cluster and role in _ROLES and re.fullmatch(named, container.name):
            yield Member(cluster, role, container)


KIND = Tool("kind", CLUSTER_LABEL, "kind-", _members)
