"""Which containers are nodes of kind's clusters."""

from pathlib import Path

import pytest

from imgload.clusters.kind import CLUSTER_LABEL, KIND, ROLE_LABEL
from imgload.engines.base import Container
from tests.unit.fakes import LocalEngine


def container(
    name: str, cluster: str = "kind", role: str = "worker", state: str = "running"
) -> Container:
    labels = {CLUSTER_LABEL: cluster, ROLE_LABEL: role}
    return Container(f"id-of-{name}", name, state, labels)


def nodes(tmp_path: Path, *containers: Container) -> dict[str, list[str]]:
    found = KIND.find(LocalEngine(tmp_path, containers=containers))
    return {cluster: [m.container.name for m in members] for cluster, members in found.items()}


def test_nodes_are_grouped_by_cluster_and_sorted(tmp_path: Path) -> None:
    """The report has the same order."""
    found = nodes(
        tmp_path,
        container("b-worker2", "b"),
        container("a-worker", "a"),
        container("b-control-plane", "b", "control-plane"),
        container("b-worker", "b"),
    )
    assert found == {"a": ["a-worker"], "b": ["b-control-plane", "b-worker", "b-worker2"]}


def test_a_load_balancer_is_not_a_node(tmp_path: Path) -> None:
    """It has the cluster's label, and no containerd (kind, nodeutils.InternalNodes)."""
    balancer = container("kind-external-load-balancer", role="external-load-balancer")
    assert nodes(tmp_path, balancer, container("kind-worker")) == {"kind": ["kind-worker"]}
    assert nodes(tmp_path, balancer) == {}


def test_a_container_without_the_label_is_not_a_node(tmp_path: Path) -> None:
    """Such as a registry beside the cluster."""
    registry = Container("id", "kind-registry", "running", {"com.example": "kind"})
    assert nodes(tmp_path, registry) == {}


def test_a_stopped_node_is_still_a_node(tmp_path: Path) -> None:
    """Without it the report would claim that every node has the image."""
    assert nodes(tmp_path, container("kind-worker", state="exited")) == {"kind": ["kind-worker"]}


@pytest.mark.parametrize("role", ["", "external-etcd", "external-load-balancer", "Worker"])
def test_a_container_with_another_role_is_not_a_node(tmp_path: Path, role: str) -> None:
    """kind's roles are control-plane and worker; leftovers of old versions have others."""
    assert nodes(tmp_path, container(f"kind-{role}", role=role)) == {}
    bare = Container("id", "kind-worker", "running", {CLUSTER_LABEL: "kind"})
    assert nodes(tmp_path, bare) == {}


@pytest.mark.parametrize(
    ("name", "cluster", "role"),
    [
        ("gifted_wing", "kind", "control-plane"),
        ("kind-worker", "kind", "control-plane"),
        ("kind-worker-1", "kind", "worker"),
        ("kind-worker0", "kind", "worker"),
        ("kind-worker1", "kind", "worker"),
        ("kind-worker02", "kind", "worker"),
        ("a-kind-worker", "kind", "worker"),
        ("kind-worker\n", "kind", "worker"),
        ("kind-worker\N{ARABIC-INDIC DIGIT TWO}", "kind", "worker"),
        ("kindXworker", ".*", "worker"),
        ("-worker", "", "worker"),
    ],
)
def test_a_container_with_another_name_is_not_a_node(
    tmp_path: Path, name: str, cluster: str, role: str
) -> None:
    """It inherits its image's labels; its name comes from the user or the engine."""
    assert nodes(tmp_path, container(name, cluster, role)) == {}
