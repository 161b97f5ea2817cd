"""Clusters that kind made: containers with kind's labels, on any engine."""

from __future__ import annotations

from imgload.engines.base import Container, Engine

CLUSTER_LABEL = "io.x-k8s.kind.cluster"
ROLE_LABEL = "io.x-k8s.kind.role"
LOAD_BALANCER = "external-load-balancer"
CONTEXT_PREFIX = "kind-"


def kind_nodes(engine: Engine) -> dict[str, list[Container]]:
    """Return the nodes of each kind cluster that an engine runs, stopped ones too.

    A load balancer has the cluster's label and is no node (kind, nodeutils.InternalNodes).
    """
    clusters: dict[str, list[Container]] = {}
    for container in sorted(engine.containers(CLUSTER_LABEL), key=lambda c: c.name):
        if container.labels.get(ROLE_LABEL) != LOAD_BALANCER:
            clusters.setdefault(container.labels[CLUSTER_LABEL], []).append(container)
    return clusters
