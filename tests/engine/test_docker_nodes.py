"""Nodes whose pods run on Docker, as minikube's do by default.

The images are those that the node's own ``docker`` reports. cri-dockerd is in no Debian package, so
no node has a CRI to ask.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import pytest

import imgload
from imgload.core.errors import NodeFull, NodeUnusable
from imgload.oci.digest import Digest
from tests.engine.aftermath import until
from tests.engine.conftest import Images, unique
from tests.engine.findings import messages
from tests.engine.kinds import Made, layer, oci, old
from tests.engine.relay import Fault, relay
from tests.lab import Cluster, Lab, Node
from tests.lab.shape import DockerInMinikube
from tests.lab.shell import CommandError
from tests.unit.archives import encode, pack

MIB = 1 << 20
SHAPE = DockerInMinikube()
LABELS = "/var/lib/imgload/loaded"
long = pytest.mark.long


class Untimed(Made):
    """An image whose config has no time of creation."""

    @property
    def config(self) -> bytes:
        return encode({**json.loads(super().config), "created": None})


@pytest.fixture(
    scope="module",
    params=[
        "docker docker-20.10",
        pytest.param("docker docker-newest", marks=long),
        pytest.param("podman docker-newest", marks=long),
    ],
)
def cluster(request: pytest.FixtureRequest, lab: Lab) -> Iterator[Cluster]:
    """One node on an engine, with a version of Docker."""
    engine, version = request.param.split()
    made = lab.make_cluster(name="lab-md", engine=engine, containerd=version, shape=SHAPE)
    yield made
    made.remove()


@pytest.fixture(scope="module")
def faulty(lab: Lab) -> Iterator[Node]:
    """A node on the engine whose connections the tests cut, and which they stop."""
    options = {"name": "lab-mx", "containerd": "docker-20.10", "shape": SHAPE}
    made = lab.make_cluster(engine="docker", **options)
    yield made.nodes[0]
    made.remove()


@pytest.fixture
def node(cluster: Cluster) -> Node:
    return cluster.nodes[0]


def stored(node: Node, name: str) -> str | None:
    """Return the image ID that the node's Docker reports for a name."""
    try:
        return node.exec("docker", "image", "inspect", "--format", "{{.Id}}", name).strip()
    except CommandError:
        return None


def settled(node: Node) -> None:
    """Wait until the node has nothing of an interrupted load, and check that it has no folder."""
    leftovers = "ls /var/lib/docker/tmp; ps -o args | grep 'dial-stdi[o]'; true"
    until(lambda: not node.exec("sh", "-c", leftovers).strip())
    assert "imgload-" not in node.exec("ls", "/var/lib", "/tmp")


def test_an_image_is_loaded_rebuilt_tagged_and_pruned(lab: Lab, images: Images, node: Node) -> None:
    """The node's Docker has the same image ID, and gets only the layers that it lacks."""
    base, tag, other = unique("base"), unique(), unique("other")
    images.build(lab.docker, base, os.urandom(200_000))
    first = images.build(lab.docker, tag, b"one", base=base)
    [cold] = imgload.load(tag, cluster="lab-md", source="docker").images[0].nodes
    assert (cold.action, cold.transport, stored(node, tag)) == ("full", "import", first)
    assert cold.proof
    assert (cold.proof.ok, cold.proof.cri, cold.content) == (True, None, "complete")

    second = images.build(lab.docker, tag, b"two", base=base)
    [again] = imgload.load(tag, cluster="lab-md", source="docker").images[0].nodes
    assert (again.action, stored(node, tag)) == ("delta", second)
    assert again.bytes_sent < 100_000
    assert str(again.replaced) == first
    [present] = imgload.load(tag, cluster="lab-md", source="docker").images[0].nodes
    [tagged] = imgload.load(tag, cluster="lab-md", source="docker", tag=other).images[0].nodes
    assert (present.action, tagged.action, stored(node, other)) == ("present", "tagged", second)
    assert imgload.verify(tag, cluster="lab-md", source="docker").ok

    names = {str(i.image_id): i for i in imgload.images(cluster="lab-md").images if i.loaded_as}
    assert (names[first].name, set(names)) == (None, {first, second})
    report = imgload.prune(cluster="lab-md")
    assert [str(image.image_id) for image in report.nodes[0].removed] == [first]
    assert (stored(node, first), stored(node, tag)) == (None, second)
    assert node.exec("ls", LABELS).split() == [second.removeprefix("sha256:")]


@long
def test_prune_keeps_an_image_that_a_container_uses(lab: Lab, images: Images, node: Node) -> None:
    """Docker also refuses to remove it."""
    tag = unique()
    image_id = images.build(lab.docker, tag)
    imgload.load(tag, cluster="lab-md", source="docker")
    node.exec("docker", "create", "--name=user", tag, "/app")
    try:
        kept = imgload.prune(cluster="lab-md", keep=0).nodes[0].kept
        assert [k.reason for k in kept if str(k.image.image_id) == image_id] == [
            "in use by a container"
        ]
        assert stored(node, tag) == image_id
    finally:
        node.exec("docker", "rm", "user")


def test_a_manifest_cannot_be_kept(tmp_path: Path, node: Node) -> None:
    """Docker stores none; layers in zstd, which Docker 20.10 lacks, are decompressed."""
    image = Made(unique("zstd"), compression="zstd")
    archive = tmp_path / "image.tar"
    archive.write_bytes(pack(oci([image])))
    load = partial(imgload.load, cluster="lab-md", source=archive)
    with pytest.raises(imgload.LoadFailed, match="cannot keep the manifest"):
        load(image.name, keep_manifest=True)
    with pytest.raises(imgload.LoadFailed, match="cannot keep the manifest"):
        load(f"{image.name.partition(':')[0]}@{Digest.of(image.manifest)}")
    assert stored(node, image.name) is None
    assert load(image.name).ok
    assert stored(node, image.name) == image.image_id


def test_an_image_without_a_time_of_creation_is_loaded(tmp_path: Path, node: Node) -> None:
    """As BuildKit makes one from scratch without layers; Docker 28 omits the time."""
    image = Untimed(unique())
    archive = tmp_path / "image.tar"
    archive.write_bytes(pack(old([image])))
    assert imgload.load(image.name, cluster="lab-md", source=archive).ok
    assert stored(node, image.name) == image.image_id
    assert len(imgload.images(image.name, cluster="lab-md").images) == 1


@long
def test_an_image_with_too_many_layers_does_not_stop_others(tmp_path: Path, node: Node) -> None:
    """Docker's overlay2 has at most 125 layers."""
    flat, deep = Made(unique()), Made(unique("deep"), tuple(layer(f"f{n}") for n in range(127)))
    archive = tmp_path / "images.tar"
    archive.write_bytes(pack(old([deep, flat])))
    with pytest.raises(imgload.LoadFailed) as caught:
        imgload.load([], cluster="lab-md", source=archive)
    results = {image.reference: image.nodes[0] for image in caught.value.report.images}
    error = results[f"docker.io/library/{deep.name}"].error
    assert error
    assert "max depth exceeded" in error.message
    assert (stored(node, flat.name), stored(node, deep.name)) == (flat.image_id, None)


def test_files_and_blobs_cannot_be_verified(lab: Lab, images: Images, node: Node) -> None:
    """Docker stores no blobs; the image is loaded without a pin, which Docker lacks."""
    tag = unique()
    images.build(lab.docker, tag)
    report = imgload.load(tag, nodes=[node.name], source="docker", pin=True)
    assert [note for note in report.notes if "images in Docker cannot be pinned" in note]
    verify = partial(imgload.verify, tag, nodes=[node.name], source="docker")
    for check in (partial(verify, deep=True), partial(verify, files=True)):
        with pytest.raises(imgload.LoadFailed) as caught:
            check()
        error = caught.value.report.images[0].nodes[0].error
        assert isinstance(error, NodeUnusable)
        assert "--verify cri" in error.hint


def test_doctor_describes_a_node_with_docker(node: Node) -> None:
    text = messages(imgload.diagnose(cluster="lab-md"), "nodes", "ok")
    assert f"{node.name}: Docker " in text
    assert "overlay2" in text


def _stop(node: Node) -> None:
    node.exec("sh", "-c", "touch /run/stay-down; kill $(pidof dockerd)")
    until(lambda: not node.exec("sh", "-c", "pidof dockerd || true").strip())


def _start(node: Node) -> None:
    node.exec("rm", "/run/stay-down")
    node.wait()


@long
def test_a_node_whose_docker_does_not_answer_is_reported(
    lab: Lab, images: Images, node: Node
) -> None:
    tag = unique()
    images.build(lab.docker, tag)
    _stop(node)
    try:
        with pytest.raises(imgload.LoadFailed, match="Docker does not answer") as caught:
            imgload.load(tag, cluster="lab-md", source="docker")
        error = caught.value.report.images[0].nodes[0].error
        assert error
        assert "journalctl -u docker" in error.hint
        assert "Docker does not answer" in messages(
            imgload.diagnose(cluster="lab-md"), "nodes", "problem"
        )
    finally:
        _start(node)
    assert imgload.load(tag, cluster="lab-md", source="docker").ok


@long
def test_a_stopped_node_is_reported(lab: Lab, images: Images, faulty: Node) -> None:
    tag = unique()
    images.build(lab.docker, tag)
    faulty.engine.cli("stop", "--time=1", faulty.name)
    try:
        with pytest.raises(imgload.LoadFailed) as caught:
            imgload.load(tag, cluster="lab-mx", source="docker")
        error = caught.value.report.images[0].nodes[0].error
        assert error
        assert f"start {faulty.name}" in error.hint
    finally:
        faulty.engine.cli("start", faulty.name)
        faulty.wait()


@long
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGKILL])
def test_a_killed_load_leaves_nothing(
    lab: Lab, images: Images, tmp_path: Path, faulty: Node, number: signal.Signals
) -> None:
    """The request to the node's Docker is incomplete, so that it loads nothing; then it works."""
    tag = unique()
    image_id = images.build(lab.docker, tag, os.urandom(8 * MIB))
    fault = Fault("POST .*/exec/.*/start", "hold", after=3 * MIB, skip=2)
    command = [sys.executable, "-m", "imgload", "load", tag, "-c", "lab-mx"]
    with relay(lab.docker, tmp_path, fault) as proxy:
        environ = {**os.environ, "DOCKER_HOST": proxy.url, "CONTAINER_HOST": proxy.url}
        with subprocess.Popen(command, env=environ, stderr=subprocess.PIPE, text=True) as process:
            reached = fault.reached.wait(30)
            process.send_signal(number)
            start = time.monotonic()
            try:
                process.wait(30)
            finally:
                process.kill()
            stderr = process.stderr.read() if process.stderr else ""
        assert reached, proxy.requests
        assert time.monotonic() - start < 5
        assert "Traceback" not in stderr
        fault.release.set()
    settled(faulty)
    assert stored(faulty, tag) is None
    assert imgload.load(tag, cluster="lab-mx", source="docker").ok
    assert stored(faulty, tag) == image_id


@long
def test_a_cut_connection_loads_nothing(
    lab: Lab, images: Images, tmp_path: Path, faulty: Node, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A name keeps its image."""
    tag = unique()
    before = images.build(lab.docker, tag)
    assert imgload.load(tag, cluster="lab-mx", source="docker").ok
    images.build(lab.docker, tag, os.urandom(8 * MIB))
    fault = Fault("POST .*/exec/.*/start", "cut", after=3 * MIB, skip=2)
    with relay(lab.docker, tmp_path, fault) as proxy:
        monkeypatch.setenv("DOCKER_HOST", proxy.url)
        with pytest.raises(imgload.LoadFailed, match="connection"):
            imgload.load(tag, cluster="lab-mx", source="docker")
    settled(faulty)
    assert stored(faulty, tag) == before


@long
def test_a_full_disk_is_reported(lab: Lab, images: Images) -> None:
    """Docker unpacks an archive to its folder before it loads the layers."""
    options = {"name": "lab-mf", "containerd": "docker-20.10", "shape": SHAPE, "var_size": "40m"}
    made = lab.make_cluster(engine="docker", **options)
    small, large = unique("small"), unique("large")
    try:
        image_id = images.build(lab.docker, small)
        images.build(lab.docker, large, os.urandom(30 * MIB))
        assert imgload.load(small, cluster="lab-mf", source="docker").ok
        with pytest.raises(imgload.LoadFailed) as caught:
            imgload.load(large, cluster="lab-mf", source="docker")
        assert isinstance(caught.value.report.images[0].nodes[0].error, NodeFull)
        settled(made.nodes[0])
        assert (stored(made.nodes[0], small), stored(made.nodes[0], large)) == (image_id, None)
    finally:
        made.remove()


@long
def test_the_containerd_image_store_is_refused(lab: Lab, images: Images) -> None:
    """Image IDs are digests of manifests there."""
    options = {"name": "lab-mc", "containerd": "docker-newest", "shape": SHAPE}
    made = lab.make_cluster(engine="docker", **options)
    [node], tag = made.nodes, unique()
    images.build(lab.docker, tag)
    try:
        _stop(node)
        text = json.dumps({"features": {"containerd-snapshotter": True}})
        node.exec("sh", "-c", f"mkdir -p /etc/docker; echo '{text}' >/etc/docker/daemon.json")
        _start(node)
        with pytest.raises(imgload.LoadFailed, match="containerd image store"):
            imgload.load(tag, cluster="lab-mc", source="docker")
    finally:
        made.remove()


@long
def test_docker_may_have_another_folder(lab: Lab, images: Images) -> None:
    """As with ``data-root`` in its settings."""
    options = {"name": "lab-mr", "containerd": "docker-20.10", "shape": SHAPE}
    made = lab.make_cluster(engine="docker", **options)
    [node], tag = made.nodes, unique()
    image_id = images.build(lab.docker, tag)
    try:
        _stop(node)
        node.exec("sh", "-c", "echo --data-root=/var/elsewhere >/etc/dockerd-options")
        _start(node)
        assert imgload.load(tag, cluster="lab-mr", source="docker").ok
        [image] = imgload.images(cluster="lab-mr").images
        assert (str(image.image_id), image.nodes[node.name].size > 0) == (image_id, True)
    finally:
        made.remove()


@long
def test_the_kube_contexts_nodes_are_loaded(
    lab: Lab, images: Images, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """minikube calls the second one of a profile ``NAME-m02``."""
    roles = ("control-plane", "worker")
    options = {"name": "lab-m2", "containerd": "docker-20.10", "shape": SHAPE, "roles": roles}
    made = lab.make_cluster(engine="docker", **options)
    (tmp_path / "config").write_text("current-context: lab-m2\n")
    profile = tmp_path / ".minikube/profiles/lab-m2"
    profile.mkdir(parents=True)
    (profile / "config.json").write_text('{"Name": "lab-m2", "Driver": "docker"}')
    monkeypatch.setenv("KUBECONFIG", str(tmp_path / "config"))
    monkeypatch.setenv("MINIKUBE_HOME", str(tmp_path))
    tag = unique()
    image_id = images.build(lab.docker, tag)
    try:
        results = imgload.load(tag, source="docker").images[0].nodes
        assert [r.node for r in results] == ["lab-m2", "lab-m2-m02"]
        assert [stored(n, tag) for n in made.nodes] == [image_id] * 2
    finally:
        made.remove()


@long
def test_an_engine_with_tls_copies_the_archive(
    lab: Lab, images: Images, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A command gets no input over TLS."""
    engine = lab.docker28
    options = {"name": "lab-mt", "containerd": "docker-20.10", "shape": SHAPE}
    made = lab.make_cluster(engine="docker28", **options)
    tag, [node] = unique(), made.nodes
    images.build(engine, tag, os.urandom(MIB))
    monkeypatch.setenv("DOCKER_HOST", engine.tls_url)
    monkeypatch.setenv("DOCKER_TLS_VERIFY", "1")
    monkeypatch.setenv("DOCKER_CERT_PATH", str(engine.certificates))
    try:
        assert imgload.load(tag, cluster="lab-mt", source="docker").ok
        assert stored(node, tag)
        settled(node)
    finally:
        made.remove()
