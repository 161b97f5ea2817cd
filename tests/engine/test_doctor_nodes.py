"""`imgload doctor` on a node with which much is wrong."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import pytest

import imgload
from tests.engine.conftest import Images, unique
from tests.engine.findings import problems, said
from tests.lab import Cluster, Lab, Node
from tests.lab.nodeimage import CONFIGS

_MIRROR = '[host."http://registry:5000"]\n'


@pytest.fixture(scope="module")
def sick(lab: Lab) -> Iterator[Cluster]:
    """A node with little room, a proxy, and a snapshotter that ctr does not take."""
    made = lab.make_cluster(
        name="lab-sick",
        engine="docker",
        containerd="1.7",
        crictl=True,
        var_size="90m",
        config=CONFIGS["1.7"].replace('"overlayfs"', '"native"'),
        run_args=("--env=HTTP_PROXY=http://me:secret@proxy.example:3128",),
    )
    [node] = made.nodes
    node.exec("mkdir", "-p", "/etc/containerd/certs.d/registry:5000")
    hosts = "/etc/containerd/certs.d/registry:5000/hosts.toml"
    node.exec("sh", "-c", f"cat > {hosts}", stdin=_MIRROR.encode())
    yield made
    made.remove()


def test_doctor_reports_disk_proxy_and_snapshotter(sick: Cluster) -> None:
    """Its disk, its proxy (without the password) and its snapshotter."""
    found = imgload.diagnose(cluster="lab-sick")
    name = sick.nodes[0].name
    assert f"{name} has " in problems(found, "nodes")
    assert "of 90 MiB left for images" in problems(found, "nodes")
    warned = said(found, "nodes", "warning")
    assert "uses a proxy (HTTP_PROXY=http://proxy.example:3128)" in warned
    assert "add registry to NO_PROXY" in warned
    assert "unpacks with native, but ctr defaults to overlayfs" in said(found, "nodes", "info")
    assert "secret" not in str(found)


def test_doctor_reports_layers_in_another_snapshotter(
    lab: Lab, images: Images, sick: Cluster
) -> None:
    """As `kind load` leaves them; and an image that CRI was not told of (containerd #9039)."""
    tag = unique()
    images.build(lab.docker, tag)
    [node], archive = sick.nodes, lab.docker.raw("save", tag)
    node.ctr("images", "import", "-", stdin=archive)
    found = problems(imgload.diagnose(tag, cluster="lab-sick"), "image")
    assert "not unpacked in CRI's snapshotter, native; they are in overlayfs" in found
    imgload.load(tag, cluster="lab-sick")
    node.ctr("images", "tag", f"docker.io/library/{tag}", f"localhost/{tag}")
    node.ctr("images", "rm", f"docker.io/library/{tag}")
    node.ctr("images", "import", "--local=false", "--no-unpack", "-", stdin=archive)
    found = problems(imgload.diagnose(tag, cluster="lab-sick"), "image")
    assert "its CRI does not know of it" in found
    node.exec("rm", "/usr/local/bin/crictl")
    found = problems(imgload.diagnose(tag, cluster="lab-sick"), "image")
    assert "its CRI does not know of it" in found


@contextmanager
def signalled(node: Node, signal: str) -> Iterator[None]:
    """Stop containerd, and let it go on."""
    node.exec("sh", "-c", f"kill -{signal} $(pidof containerd)")
    yield
    node.exec("sh", "-c", "kill -CONT $(pidof containerd)")


@contextmanager
def without_cri(node: Node) -> Iterator[None]:
    """Have containerd start again without CRI, as some distributions' settings have it."""
    file, off = "/etc/containerd/config.toml", 'disabled_plugins = ["io.containerd.grpc.v1.cri"]'
    again = "kill $(pidof containerd); sleep 0.5; until ctr version; do sleep 0.1; done"
    node.exec("sh", "-c", f"sed -i '2i{off}' {file}; {again}")
    yield
    node.exec("sh", "-c", f"sed -i 2d {file}; {again}")


@contextmanager
def done_to(lab: Lab, node: Node, command: str, back: str) -> Iterator[None]:
    """Do something to a node's container, and undo it."""
    lab.docker.cli(command, node.name)
    yield
    lab.docker.cli(back, node.name)


def test_doctor_explains_a_node_that_does_not_answer(lab: Lab, sick: Cluster) -> None:
    """Its crictl gone; CRI off; containerd silent; paused; stopped: each with a way back."""
    [node] = sick.nodes
    node.exec("rm", "-f", "/usr/local/bin/crictl")
    assert "has no crictl" in said(imgload.diagnose(cluster="lab-sick"), "nodes", "info")
    with without_cri(node):
        found = problems(imgload.diagnose(cluster="lab-sick"), "nodes")
    assert f"{node.name}: CRI is missing in containerd" in found
    with signalled(node, "STOP"):
        found = problems(imgload.diagnose(cluster="lab-sick"), "nodes")
    assert f"{node.name}: containerd does not answer: docker exec" in found
    with done_to(lab, node, "pause", "unpause"):
        found = problems(imgload.diagnose(nodes=[node.name]), "nodes")
    assert f"{node.name} is paused: docker unpause {node.name}" in found
    lab.docker.cli("stop", "--time=0", node.name)
    found = problems(imgload.diagnose(cluster="lab-sick"), "nodes")
    assert f"{node.name} is exited: docker start {node.name}" in found
