"""The runtime of a node, from output of the command that looks for it."""

import json
import shlex
from pathlib import Path

import pytest

from imgload.clusters.nodes.containerd import CTR
from imgload.clusters.nodes.crio import CrioNode
from imgload.clusters.nodes.detect import UnusableNode, detect, endpoint_of
from imgload.clusters.nodes.docker import DockerNode
from imgload.clusters.nodes.moby import MobyNode
from imgload.clusters.nodes.node import Node, containerd_nodes
from imgload.clusters.nodes.survey import NOTHING
from imgload.core.errors import EngineFailed, NodeError, NodeNotRunning, NodeUnusable
from imgload.engines.base import Container
from tests.unit.bounds import within
from tests.unit.fakes import RUNNING, LocalEngine

CONTAINERD = "socket /run/containerd/containerd.sock\nprogram ctr\nconfig\n"


def node_that_prints(folder: Path, look: str, state: str = "running") -> object:
    engine = LocalEngine(folder, {"sh": f"printf %s {shlex.quote(look)}"})
    return detect("dev", engine, Container("c", "dev", state, {}), "worker")


@pytest.mark.parametrize(
    ("look", "endpoint"),
    [
        ("endpoint unix:///run/a.sock\nendpoint unix:///run/b.sock\n", "unix:///run/a.sock"),
        ("endpoint \nendpoint  'unix:///run/b.sock'\n", "unix:///run/b.sock"),
        ('endpoint "unix:///run/b.sock"\n', "unix:///run/b.sock"),
        (f"{CONTAINERD}endpoint unix:///run/b.sock\n", ""),
        ("endpoint\n" * 300_000, ""),
    ],
)
def test_the_first_endpoint_decides(look: str, endpoint: str) -> None:
    """One that is empty does not count, nor a line of containerd's configuration; quickly."""
    with within(2):
        assert endpoint_of(look) == endpoint


@pytest.mark.parametrize(
    "endpoint",
    [
        "",
        "endpoint unix:///run/containerd/containerd.sock\n",
        "endpoint unix:///run/docker/containerd.sock\n",
        "endpoint unix:///run/other.sock\n",
    ],
)
def test_a_node_runs_containerd_unless_its_kubelet_uses_another(
    tmp_path: Path, endpoint: str
) -> None:
    node = node_that_prints(tmp_path, endpoint + CONTAINERD)
    assert isinstance(node, Node)
    assert (node.name, node.role) == ("dev", "worker")


@pytest.mark.parametrize(
    ("socket", "runtime"),
    [
        ("cri-dockerd.sock", DockerNode),
        ("dockershim.sock", DockerNode),
        ("crio/crio.sock", CrioNode),
    ],
)
def test_a_node_has_the_runtime_that_its_kubelet_uses(
    tmp_path: Path, socket: str, runtime: type[DockerNode | CrioNode]
) -> None:
    """minikube with Docker, since its 1.24 and before, and with CRI-O; a containerd may run."""
    node = node_that_prints(tmp_path, f"endpoint /var/run/{socket}\n{CONTAINERD}")
    assert isinstance(node, runtime)
    assert node.endpoint == f"unix:///var/run/{socket}"
    assert node.resolve_command(["crictl", "info"])[-3:] == ("-i", node.endpoint, "info")
    with pytest.raises(NodeUnusable, match="does not run containerd"):
        containerd_nodes([node])


STORE = [["driver-type", "io.containerd.snapshotter.v1"]]
SOCKET = "/var/run/docker/containerd/containerd.sock"
OWN = {"Address": SOCKET, "Namespaces": {"Containers": "other"}}


@pytest.mark.parametrize(
    ("info", "expected"),
    [
        ({"Driver": "overlayfs", "DriverStatus": STORE}, "ctr -n moby images ls"),
        (
            {"Driver": "native", "DriverStatus": STORE, "Containerd": OWN},
            f"ctr --address {SOCKET} -n other images ls",
        ),
        ({"Driver": "overlay2", "DriverStatus": [["Backing Filesystem", "extfs"]]}, None),
        ({}, None),
    ],
)
def test_docker_may_keep_its_images_in_a_containerd(
    tmp_path: Path, info: object, expected: str | None
) -> None:
    """Docker reports where; CRI is still that for Docker, whose nodes pull with no containerd."""
    look = f"endpoint /var/run/cri-dockerd.sock\ndocker {json.dumps(info)}\n{CONTAINERD}"
    node = node_that_prints(tmp_path, look)
    if expected is None:
        assert isinstance(node, DockerNode)
        return
    assert isinstance(node, MobyNode)
    assert " ".join(node.resolve_command((*CTR, "images", "ls"))) == expected
    assert node.resolve_command(["crictl", "info"])[-2:] == (
        "unix:///var/run/cri-dockerd.sock",
        "info",
    )
    with pytest.raises(NodeUnusable, match="does not run containerd"):
        containerd_nodes([node])


@pytest.mark.parametrize("name", ["--help", "a b", "", {"a": "b"}, "x" * 300 + "\n"])
def test_names_in_dockers_answer_are_checked(tmp_path: Path, name: object) -> None:
    """They become words of commands."""
    info = json.dumps({"Driver": name, "DriverStatus": STORE})
    node = node_that_prints(tmp_path, f"endpoint /run/cri-dockerd.sock\ndocker {info}\n")
    assert isinstance(node, UnusableNode)
    with pytest.raises(NodeUnusable, match="names no usable snapshotter"):
        node.survey(NOTHING)


def test_a_stopped_node_is_not_asked(tmp_path: Path) -> None:
    node = node_that_prints(tmp_path, CONTAINERD, "exited")
    assert isinstance(node, UnusableNode)
    with pytest.raises(NodeNotRunning, match="exited"):
        node.images()


def test_a_node_whose_exec_fails_is_no_containerd(tmp_path: Path) -> None:
    """Its kubelet may use another runtime, although a containerd runs."""

    class Failing(LocalEngine):
        def exec(self, *_: object) -> None:  # type: ignore[override]
            raise EngineFailed("no")

    node = detect("dev", Failing(tmp_path), RUNNING)
    with pytest.raises(NodeError, match="dev: no"):
        node.survey(NOTHING)
