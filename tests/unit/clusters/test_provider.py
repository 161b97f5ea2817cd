"""Which containers are nodes of kind, k3d, minikube, and a provider registered by a test."""

from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest

from imgload.clusters import provider
from imgload.clusters.nodes.containerd import CONTAINERD, K3S
from imgload.clusters.provider import (
    ClusterApi,
    ClusterProvider,
    K3d,
    Kind,
    Minikube,
    NodeContainer,
    VCluster,
    providers,
    register_provider,
)
from imgload.clusters.select import select_nodes
from imgload.core.errors import ClusterNotFound
from imgload.engines.base import Container
from tests.unit.fakes import LocalEngine

_KIND_CLUSTER, _KIND_ROLE = "io.x-k8s.kind.cluster", "io.x-k8s.kind.role"


def container(
    name: str, cluster: str = "kind", role: str = "worker", state: str = "running"
) -> Container:
    labels = {_KIND_CLUSTER: cluster, _KIND_ROLE: role}
    return Container(f"id-of-{name}", name, state, labels)


def kind_nodes(tmp_path: Path, *containers: Container) -> dict[str, list[str]]:
    found = Kind().find(LocalEngine(tmp_path, containers=containers))
    return {cluster: [m.container.name for m in members] for cluster, members in found.items()}


def test_nodes_are_grouped_by_cluster_and_sorted(tmp_path: Path) -> None:
    """The report has the same order."""
    found = kind_nodes(
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
    assert kind_nodes(tmp_path, balancer, container("kind-worker")) == {"kind": ["kind-worker"]}
    assert kind_nodes(tmp_path, balancer) == {}


def test_a_container_without_the_label_is_not_a_node(tmp_path: Path) -> None:
    """Such as a registry beside the cluster."""
    registry = Container("id", "kind-registry", "running", {"com.example": "kind"})
    assert kind_nodes(tmp_path, registry) == {}


def test_a_stopped_node_is_still_a_node(tmp_path: Path) -> None:
    """Without it the report would claim that every node has the image."""
    assert kind_nodes(tmp_path, container("kind-worker", state="exited")) == {
        "kind": ["kind-worker"]
    }


@pytest.mark.parametrize("role", ["", "external-etcd", "external-load-balancer", "Worker"])
def test_a_container_with_another_role_is_not_a_node(tmp_path: Path, role: str) -> None:
    """kind's roles are control-plane and worker; leftovers of old versions have others."""
    assert kind_nodes(tmp_path, container(f"kind-{role}", role=role)) == {}
    bare = Container("id", "kind-worker", "running", {_KIND_CLUSTER: "kind"})
    assert kind_nodes(tmp_path, bare) == {}


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
    assert kind_nodes(tmp_path, container(name, cluster, role)) == {}


def k3d(name: str, cluster: str = "dev", role: str = "server") -> Container:
    labels = {"app": "k3d", "k3d.cluster": cluster, "k3d.role": role, "k3d.version": "v5.8.3"}
    return Container(f"id-of-{name}", name, "running", labels)


def minikube(name: str, role: str | None = "", created: str = "true", label: str = "") -> Container:
    host, machine = "minikube.sigs.k8s.io", label or name
    labels = {f"created_by.{host}": created, f"name.{host}": machine, f"mode.{host}": machine}
    if role is not None:
        labels[f"role.{host}"] = role
    return Container(f"id-of-{name}", name, "running", labels)


def found(
    of: ClusterProvider, folder: Path, *containers: Container
) -> dict[str, list[tuple[str, str]]]:
    clusters = of.find(LocalEngine(folder, containers=containers))
    return {name: [(n.container.name, n.role) for n in nodes] for name, nodes in clusters.items()}


def test_k3ds_servers_and_agents_are_nodes(tmp_path: Path) -> None:
    """Load balancer, registry and tools of a cluster are not."""
    others = [k3d(f"k3d-dev-{r}", role=r) for r in ("loadbalancer", "registry", "noRole", "")]
    nodes = [k3d("k3d-dev-server-0"), k3d("k3d-dev-agent-0", role="agent")]
    assert found(K3d(), tmp_path, *others, *nodes, k3d("k3d-b-server-0", "b")) == {
        "b": [("k3d-b-server-0", "server")],
        "dev": [("k3d-dev-agent-0", "agent"), ("k3d-dev-server-0", "server")],
    }


def test_a_k3d_label_alone_makes_no_node(tmp_path: Path) -> None:
    """Any program may set `app=k3d`."""
    stray = Container("id", "stray", "running", {"app": "k3d"})
    other = Container("id", "other", "running", {"app": "web", "k3d.cluster": "x"})
    unnamed = Container("id", "unnamed", "running", {"app": "k3d", "k3d.role": "server"})
    assert found(K3d(), tmp_path, stray, other, unnamed) == {}


def test_a_node_added_to_a_k3d_cluster_is_a_node(tmp_path: Path) -> None:
    """`k3d node create extra` names its container k3d-extra-0 (cmd/node/nodeCreate.go)."""
    added = k3d("k3d-extra-0", role="agent")
    assert found(K3d(), tmp_path, added) == {"dev": [("k3d-extra-0", "agent")]}


@pytest.mark.parametrize(
    ("name", "cluster"),
    [
        ("gifted_wing", "dev"),
        ("k3d-dev-server", "dev"),
        ("my-k3d-dev-server-0", "dev"),
        ("k3d-dev-server-0", "dev\x1b[2J"),
        ("k3d-dev-server-0", ""),
    ],
)
def test_k3d_labels_with_another_name_make_no_node(tmp_path: Path, name: str, cluster: str) -> None:
    """A container inherits its image's labels; its name comes from the user or the engine."""
    assert found(K3d(), tmp_path, k3d(name, cluster)) == {}


@pytest.mark.parametrize("role", ["control-plane", "worker", ""])
def test_minikube_labels_with_another_name_make_no_node(tmp_path: Path, role: str) -> None:
    """A node's label has its container's name."""
    assert found(Minikube(), tmp_path, minikube("gifted_wing", role, label="minikube")) == {}
    assert found(Minikube(), tmp_path, minikube("minikube", "database")) == {}


def test_minikubes_later_nodes_belong_to_its_profile(tmp_path: Path) -> None:
    """Their labels have only their own name, and their role is empty (pkg/drivers/kic/kic.go)."""
    nodes = [minikube("dev"), minikube("dev-m02", "worker"), minikube("dev-m03")]
    assert found(Minikube(), tmp_path, *nodes, minikube("minikube")) == {
        "dev": [("dev", "node"), ("dev-m02", "worker"), ("dev-m03", "node")],
        "minikube": [("minikube", "node")],
    }


@pytest.mark.parametrize("name", ["a-m02", "a-mx", "a-m2", "-m02"])
def test_a_profile_may_be_named_like_a_later_node(tmp_path: Path, name: str) -> None:
    """Without the first node beside it, it is a cluster of its own."""
    assert list(found(Minikube(), tmp_path, minikube(name))) == [name]


def test_minikubes_preload_sidecar_is_not_a_node(tmp_path: Path) -> None:
    """It lacks the label for the role (pkg/drivers/kic/oci/volumes.go)."""
    sidecar = minikube("dev-preload-sidecar", role=None, label="dev")
    assert found(Minikube(), tmp_path, sidecar, minikube("dev", role=None)) == {}
    assert found(Minikube(), tmp_path, minikube("dev", created="false")) == {}


CAPD = [
    container("capi-86kkv-h9w7s", "capi", "control-plane"),
    container("capi-control-plane-x6k2b", "capi", "control-plane"),
    container("capi-md-0-6ctxz-4hz6b-2gsjh", "capi"),
    container("capi-worker-0a9zx1", "capi"),
]


def test_machines_of_cluster_api_are_nodes(tmp_path: Path) -> None:
    """They have kind's labels, and names that kind does not give."""
    others = [container("capi-lb", "capi", "external-load-balancer"), container("kind-worker2")]
    assert found(ClusterApi(), tmp_path, *CAPD, *others) == {
        "capi": [(node.name, node.labels[_KIND_ROLE]) for node in CAPD],
    }
    assert found(Kind(), tmp_path, *CAPD) == {}


@pytest.mark.parametrize(
    "name",
    [
        "gifted_wing",
        "capi-web-1",
        "capi-web-run-9f8a7b6c5d4e",
        "capi-worker",
        "md-0-x6k2b",
        "capi-",
    ],
)
def test_labels_with_another_name_make_no_machine(tmp_path: Path, name: str) -> None:
    """An image has the labels, and Docker, Compose or a user named its container."""
    assert found(ClusterApi(), tmp_path, container(name, "capi")) == {}


def test_cluster_api_owns_the_contexts_of_clusterctl() -> None:
    assert ClusterApi().owns_context("capi-admin@capi")
    for context in ("capi-admin@other", "kubernetes-admin@kubernetes", "-admin@", "kind-capi", ""):
        assert not ClusterApi().owns_context(context)


def test_vclusters_nodes_are_found_by_their_names(tmp_path: Path) -> None:
    """They have no labels; its load balancer is no node."""
    names = ["vcluster.cp.dev", "vcluster.node.dev.worker-1", "vcluster.cp.my-other"]
    others = ["vcluster.lb.dev.web", "my.vcluster.cp.dev", "vcluster.cp.a.b", "vcluster.node.dev"]
    containers = [Container(name, name, "running", {}) for name in (*names, *others)]
    assert found(VCluster(), tmp_path, *containers) == {
        "dev": [("vcluster.cp.dev", "control-plane"), ("vcluster.node.dev.worker-1", "worker")],
        "my-other": [("vcluster.cp.my-other", "control-plane")],
    }


def test_k3d_nodes_run_k3s() -> None:
    """minikube's containerd is where kind's is."""
    assert (K3d().runtime, Minikube().runtime) == (K3S, CONTAINERD)


def profile(folder: Path, name: str) -> None:
    (folder / ".minikube/profiles" / name).mkdir(parents=True)
    (folder / ".minikube/profiles" / name / "config.json").write_text("{}")


def test_owns_context_finds_the_profiles_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whatever its driver; MINIKUBE_HOME is the folder, or its parent."""
    profile(tmp_path, "dev")
    for home, minikube_home in (
        (str(tmp_path), ""),
        ("/nonexistent", str(tmp_path)),
        ("/nonexistent", str(tmp_path / ".minikube")),
    ):
        monkeypatch.setenv("HOME", home)
        monkeypatch.setenv("MINIKUBE_HOME", minikube_home)
        assert Minikube().owns_context("dev")
        assert not Minikube().owns_context("other")
    assert Minikube().owns_context("minikube")


@pytest.mark.parametrize("context", ["../../dev", "dev/../dev", "/etc", "", ".", "..", "a\0b"])
def test_owns_context_stays_in_the_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, context: str
) -> None:
    """The context's name comes from a kubeconfig."""
    profile(tmp_path, "dev")
    (tmp_path / ".minikube/profiles/config.json").write_text("{}")
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.delenv("MINIKUBE_HOME", raising=False)
    assert not Minikube().owns_context(context)


class Toy(ClusterProvider):
    """A provider whose nodes are all containers that have its label."""

    name = "toy"
    label = "toy"
    context_prefix = "toy-"

    def nodes(self, containers: Sequence[Container]) -> Iterator[NodeContainer]:
        return (NodeContainer(c.labels["toy"], "", c) for c in containers)


def test_a_registered_provider_is_selected_like_the_others(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """By its cluster's name and by its kube context; one call registers it."""
    monkeypatch.setattr(provider, "_PROVIDERS", list(providers()))
    register_provider(Toy())
    engine = LocalEngine(tmp_path, containers=[Container("id", "node", "running", {"toy": "dev"})])
    assert [node.name for node in select_nodes([engine], "dev", [])] == ["node"]
    (tmp_path / "kubeconfig").write_text("current-context: toy-dev\n")
    monkeypatch.setenv("KUBECONFIG", str(tmp_path / "kubeconfig"))
    assert [node.name for node in select_nodes([engine], None, [], guess=False)] == ["node"]
    with pytest.raises(ClusterNotFound, match="no cluster 'other'"):
        select_nodes([engine], "other", [])
