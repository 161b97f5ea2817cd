"""Which containers are nodes of k3d's and minikube's clusters."""

from pathlib import Path

import pytest

from imgload.clusters.k3d import K3D
from imgload.clusters.minikube import MINIKUBE, is_profile
from imgload.clusters.tool import Tool
from imgload.engines.base import Container
from imgload.nodes.runtime import CONTAINERD, K3S
from tests.unit.fakes import LocalEngine


def k3d(name: str, cluster: str = "dev", role: str = "server") -> Container:
    labels = {"app": "k3d", "k3d.cluster": cluster, "k3d.role": role, "k3d.version": "v5.8.3"}
    return Container(f"id-of-{name}", name, "running", labels)


def minikube(name: str, role: str = "control-plane", created: str = "true") -> Container:
    host = "minikube.sigs.k8s.io"
    labels = {f"created_by.{host}": created, f"name.{host}": name, f"mode.{host}": name}
    if role:
        labels[f"role.{host}"] = role
    return Container(f"id-of-{name}", name, "running", labels)


def found(tool: Tool, folder: Path, *containers: Container) -> dict[str, list[tuple[str, str]]]:
    clusters = tool.find(LocalEngine(folder, containers=containers))
    return {name: [(m.container.name, m.role) for m in ms] for name, ms in clusters.items()}


def test_k3ds_servers_and_agents_are_nodes(tmp_path: Path) -> None:
    """Its load balancer, registry and tools are containers of the cluster, and no nodes."""
    others = [k3d(f"k3d-dev-{r}", role=r) for r in ("loadbalancer", "registry", "noRole", "")]
    nodes = [k3d("k3d-dev-server-0"), k3d("k3d-dev-agent-0", role="agent")]
    assert found(K3D, tmp_path, *others, *nodes, k3d("k3d-b-server-0", "b")) == {
        "b": [("k3d-b-server-0", "server")],
        "dev": [("k3d-dev-agent-0", "agent"), ("k3d-dev-server-0", "server")],
    }


def test_a_label_alone_makes_no_k3d(tmp_path: Path) -> None:
    """`app=k3d` may be anybody's."""
    stray = Container("id", "stray", "running", {"app": "k3d"})
    other = Container("id", "other", "running", {"app": "web", "k3d.cluster": "x"})
    unnamed = Container("id", "unnamed", "running", {"app": "k3d", "k3d.role": "server"})
    assert found(K3D, tmp_path, stray, other, unnamed) == {}


def test_minikubes_further_nodes_belong_to_its_profile(tmp_path: Path) -> None:
    """The second node's labels name itself only: dev-m02 (pkg/drivers/kic/kic.go)."""
    nodes = [minikube("dev"), minikube("dev-m02", "worker"), minikube("dev-m03", "worker")]
    assert found(MINIKUBE, tmp_path, *nodes, minikube("minikube")) == {
        "dev": [("dev", "control-plane"), ("dev-m02", "worker"), ("dev-m03", "worker")],
        "minikube": [("minikube", "control-plane")],
    }


@pytest.mark.parametrize("name", ["a-m02", "a-mx", "a-m2", "-m02"])
def test_a_profile_may_be_called_like_a_further_node(tmp_path: Path, name: str) -> None:
    """Without the first node beside it, it is a cluster of its own."""
    assert list(found(MINIKUBE, tmp_path, minikube(name))) == [name]


def test_what_only_fills_minikubes_volume_is_no_node(tmp_path: Path) -> None:
    """It has the labels, and no role (pkg/drivers/kic/oci/volumes.go)."""
    assert found(MINIKUBE, tmp_path, minikube("dev-preload-sidecar", role="")) == {}
    assert found(MINIKUBE, tmp_path, minikube("dev", created="false")) == {}


def test_only_k3ds_nodes_have_their_containerd_elsewhere() -> None:
    """minikube's is where kind's is."""
    assert (K3D.runtime, MINIKUBE.runtime) == (K3S, CONTAINERD)


def profile(folder: Path, name: str) -> None:
    (folder / ".minikube/profiles" / name).mkdir(parents=True)
    (folder / ".minikube/profiles" / name / "config.json").write_text("{}")


def test_a_profile_is_known_by_its_folder(tmp_path: Path) -> None:
    """Whatever its driver; MINIKUBE_HOME is the folder, or the one above."""
    profile(tmp_path, "dev")
    for variables in (
        {"HOME": str(tmp_path)},
        {"HOME": "/nonexistent", "MINIKUBE_HOME": str(tmp_path)},
        {"MINIKUBE_HOME": str(tmp_path / ".minikube")},
    ):
        assert is_profile("dev", variables)
        assert not is_profile("other", variables)
    assert is_profile("minikube", {"HOME": "/nonexistent"})


@pytest.mark.parametrize("context", ["../../dev", "dev/../dev", "/etc", "", ".", "..", "a\0b"])
def test_a_contexts_name_leads_out_of_no_folder(tmp_path: Path, context: str) -> None:
    """It comes out of a kubeconfig."""
    profile(tmp_path, "dev")
    (tmp_path / ".minikube/profiles/config.json").write_text("{}")
    assert not is_profile(context, {"HOME": str(tmp_path)})
