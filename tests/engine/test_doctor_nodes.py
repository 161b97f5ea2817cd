"""`imgload doctor` on a node with several faults."""

from __future__ import annotations

import hashlib
import json
import shlex
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial

import pytest

import imgload
from tests.engine.conftest import Images, unique
from tests.engine.findings import messages, problems
from tests.lab import Cluster, Lab, Node
from tests.lab.nodeimage import CONFIGS

KUBELET_CONFIG = "/var/lib/kubelet/config.yaml"
PULLED = "/var/lib/kubelet/image_manager/pulled"
_MIRROR = '[host."http://registry:5000"]\n'


@pytest.fixture(scope="module")
def faulty(lab: Lab) -> Iterator[Cluster]:
    """A node with little disk space, a proxy, and a snapshotter that is not ctr's default."""
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


def test_doctor_reports_disk_proxy_and_snapshotter(faulty: Cluster) -> None:
    """The proxy is shown without its password."""
    diagnosis = imgload.diagnose(cluster="lab-sick")
    name = faulty.nodes[0].name
    assert f"{name} has " in problems(diagnosis, "nodes")
    assert "of 90 MiB left for images" in problems(diagnosis, "nodes")
    warned = messages(diagnosis, "nodes", "warning")
    assert "uses a proxy (HTTP_PROXY=http://proxy.example:3128)" in warned
    assert "add registry to NO_PROXY" in warned
    assert "unpacks with native, but ctr defaults to overlayfs" in messages(
        diagnosis, "nodes", "info"
    )
    assert "secret" not in str(diagnosis)


def test_doctor_reports_layers_in_another_snapshotter(
    lab: Lab, images: Images, faulty: Cluster
) -> None:
    """As after `kind load`; and an image that CRI does not know (containerd #9039)."""
    tag = unique()
    images.build(lab.docker, tag)
    [node], archive = faulty.nodes, lab.docker.raw("save", tag)
    node.ctr("images", "import", "-", stdin=archive)
    problem_text = problems(imgload.diagnose(tag, cluster="lab-sick"), "image")
    assert "not unpacked in CRI's snapshotter, native; they are in overlayfs" in problem_text
    imgload.load(tag, cluster="lab-sick")
    node.ctr("images", "tag", f"docker.io/library/{tag}", f"localhost/{tag}")
    node.ctr("images", "rm", f"docker.io/library/{tag}")
    node.ctr("images", "import", "--local=false", "--no-unpack", "-", stdin=archive)
    problem_text = problems(imgload.diagnose(tag, cluster="lab-sick"), "image")
    assert "CRI does not report it" in problem_text
    node.exec("rm", "/usr/local/bin/crictl")
    problem_text = problems(imgload.diagnose(tag, cluster="lab-sick"), "image")
    assert "CRI does not report it" in problem_text


def put(node: Node, path: str, text: str) -> None:
    node.exec("sh", "-c", 'mkdir -p "${0%/*}"; cat >"$0"', path, stdin=text.encode())


def reported(call: Callable[[], imgload.Report]) -> str:
    """Return the notes of a report, which are the same as the events."""
    return "\n".join(call().to_json()["notes"])


def test_a_load_reports_that_the_kubelet_removes_images(
    lab: Lab, images: Images, faulty: Cluster
) -> None:
    """Also after a rebuild, which costs one exec; the commands of the hint show what to remove."""
    tag, [node] = unique(), faulty.nodes
    load = partial(imgload.load, tag, cluster="lab-sick")
    put(node, KUBELET_CONFIG, "imageGCHighThresholdPercent: 80\n")
    images.build(lab.docker, tag)
    assert "kubelet" not in reported(load)
    used = int(node.exec("sh", "-c", "df -Pm /var | tail -n 1").split()[2])
    node.exec("dd", "if=/dev/zero", "of=/var/junk", "bs=1M", f"count={75 - used}")
    images.build(lab.docker, tag)
    [note] = load().notes
    assert f"the disk of {node.name} is 8" in note
    assert "from 80 %" in note
    assert note in reported(partial(imgload.verify, tag, cluster="lab-sick"))
    assert "from 80 %" in messages(imgload.diagnose(cluster="lab-sick"), "nodes", "warning")
    assert f"imgload prune --node {node.name}" in note
    command = shlex.split(note.rpartition("largest folders: ")[2])
    assert "/var\n" in lab.docker.cli(*command[1:])
    put(node, KUBELET_CONFIG, "imageGCHighThresholdPercent: 100\n")
    assert "kubelet" not in reported(partial(imgload.verify, tag, cluster="lab-sick"))
    node.exec("rm", "/var/junk", KUBELET_CONFIG)


def test_a_load_reports_a_pull_record_of_the_same_image(
    lab: Lab, images: Images, faulty: Cluster
) -> None:
    """It makes the kubelet require credentials (kubernetes #138175), until it is removed."""
    tag, [node] = unique(), faulty.nodes
    image_id = images.build(lab.docker, tag)
    file = f"{PULLED}/sha256-{hashlib.sha256(image_id.encode()).hexdigest()}"
    mapping = {"ghcr.io/me/app": {"nodePodsAccessible": True}}
    record = {"kind": "ImagePulledRecord", "imageRef": image_id, "credentialMapping": mapping}
    put(node, KUBELET_CONFIG, "kind: KubeletConfiguration\n")
    put(node, file, json.dumps(record) + "\n")
    [note] = imgload.load(tag, cluster="lab-sick").notes
    assert "ghcr.io/me/app" in note
    verify = partial(imgload.verify, tag, cluster="lab-sick")
    assert reported(verify) == note
    warned = messages(imgload.diagnose(tag, cluster="lab-sick"), "image", "warning")
    assert "ghcr.io/me/app" in warned
    put(node, "/usr/local/bin/systemctl", '#!/bin/sh\necho "$@" >/var/systemctl\n')
    node.exec("chmod", "+x", "/usr/local/bin/systemctl")
    command = shlex.split(note[note.index("docker exec") :])
    lab.docker.cli(*command[1:])
    assert node.exec("cat", "/var/systemctl") == "restart kubelet\n"
    assert reported(verify) == ""
    node.exec("rm", "/usr/local/bin/systemctl", KUBELET_CONFIG)


@contextmanager
def signalled(node: Node, signal: str) -> Iterator[None]:
    """Send a signal to containerd, and continue it at the end."""
    node.exec("sh", "-c", f"kill -{signal} $(pidof containerd)")
    yield
    node.exec("sh", "-c", "kill -CONT $(pidof containerd)")


@contextmanager
def without_cri(node: Node) -> Iterator[None]:
    """Restart containerd without CRI, as some distributions configure it."""
    file, off = "/etc/containerd/config.toml", 'disabled_plugins = ["io.containerd.grpc.v1.cri"]'
    again = "kill $(pidof containerd); sleep 0.5; until ctr version; do sleep 0.1; done"
    node.exec("sh", "-c", f"sed -i '2i{off}' {file}; {again}")
    yield
    node.exec("sh", "-c", f"sed -i 2d {file}; {again}")


@contextmanager
def engine_command(lab: Lab, node: Node, command: str, back: str) -> Iterator[None]:
    """Run an engine's command on the node's container, and another one to revert it."""
    lab.docker.cli(command, node.name)
    yield
    lab.docker.cli(back, node.name)


def test_doctor_explains_a_node_that_does_not_answer(lab: Lab, faulty: Cluster) -> None:
    """No crictl, no CRI, containerd hanging, paused, stopped: each with a hint."""
    [node] = faulty.nodes
    node.exec("rm", "-f", "/usr/local/bin/crictl")
    assert "has no crictl" in messages(imgload.diagnose(cluster="lab-sick"), "nodes", "info")
    with without_cri(node):
        problem_text = problems(imgload.diagnose(cluster="lab-sick"), "nodes")
    assert f"{node.name}: CRI is missing in containerd" in problem_text
    with signalled(node, "STOP"):
        problem_text = problems(imgload.diagnose(cluster="lab-sick"), "nodes")
    assert f"{node.name}: containerd does not answer: docker exec" in problem_text
    with engine_command(lab, node, "pause", "unpause"):
        problem_text = problems(imgload.diagnose(nodes=[node.name]), "nodes")
    assert f"{node.name} is paused: docker unpause {node.name}" in problem_text
    lab.docker.cli("stop", "--time=0", node.name)
    problem_text = problems(imgload.diagnose(cluster="lab-sick"), "nodes")
    assert f"{node.name} is not running (exited): docker start {node.name}" in problem_text
