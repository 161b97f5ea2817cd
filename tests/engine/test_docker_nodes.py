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
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

import pytest

import imgload
from imgload.core.errors import NodeError, NodeFull, NodeUnusable, NotVerified
from imgload.oci.digest import Digest
from imgload.sources.base import TransportOption
from tests.engine.aftermath import until
from tests.engine.conftest import Images, unique
from tests.engine.findings import messages
from tests.engine.kinds import Made, layer, oci, old
from tests.engine.relay import Fault, relay
from tests.engine.test_errors import run
from tests.lab import Cluster, Lab, Node
from tests.lab.shape import ContainerdStoreInMinikube, DockerInMinikube
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


@pytest.fixture(scope="module", params=["docker-20.10", "containerd store"])
def faulty(request: pytest.FixtureRequest, lab: Lab) -> Iterator[Node]:
    """A node on the engine whose connections the tests cut, and which they stop."""
    is_moby = request.param == "containerd store"
    version = "docker-newest" if is_moby else request.param
    shape = ContainerdStoreInMinikube() if is_moby else SHAPE
    made = lab.make_cluster(engine="docker", name="lab-mx", containerd=version, shape=shape)
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


def loaded_id(node: Node, name: str) -> str | None:
    """Return the image ID for a name, also if the node's Docker reports that of the manifest."""
    reported = stored(node, name)
    try:
        text = node.exec("ctr", "-n", "moby", "content", "get", reported or "")
    except CommandError:
        return reported
    return str(json.loads(text)["config"]["digest"])


def failure(check: Callable[[], object], kind: type[NodeError]) -> NodeError:
    """Return the error of a check of one image on one node, which must be of a kind."""
    with pytest.raises(imgload.LoadFailed) as caught:
        check()
    error = caught.value.report.images[0].nodes[0].error
    assert isinstance(error, kind)
    return error


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


def test_an_emulated_image_is_loaded_strictly(
    tmp_path: Path, node: Node, loong64: dict[str, str]
) -> None:
    """The default in CI."""
    image, archive = Made(unique(), platform=loong64), tmp_path / "image.tar"
    archive.write_bytes(pack(oci([image])))
    assert imgload.load([], cluster="lab-md", source=archive, strict_platform=True).ok
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


def test_layers_are_verified_by_their_hashes(lab: Lab, images: Images, node: Node) -> None:
    """Docker recreates them from their files; the image is loaded without a pin, which it lacks."""
    tag = unique()
    images.build(lab.docker, tag, os.urandom(9))
    report = imgload.load(tag, nodes=[node.name], source="docker", pin=True, verify="deep")
    assert [note for note in report.notes if "images in Docker cannot be pinned" in note]
    assert report.images[0].nodes[0].proof
    assert report.images[0].nodes[0].proof.content
    verify = partial(imgload.verify, tag, nodes=[node.name], source="docker")
    assert "imgload verify --deep" in failure(partial(verify, files=True), NodeUnusable).hint
    format_ = "--format={{.GraphDriver.Data.UpperDir}}"
    folder = node.exec("docker", "image", "inspect", format_, tag).strip()
    node.exec("sh", "-c", 'for file in "$1"/*; do echo damaged >"$file"; done', "sh", folder)
    damaged = failure(partial(verify, deep=True), NotVerified)
    assert "file integrity checksum failed" in damaged.message
    assert f"docker image rm docker.io/library/{tag}, and load it again" in damaged.hint
    node.exec("docker", "image", "rm", tag)
    assert imgload.load(tag, nodes=[node.name], source="docker", verify="deep").ok


def test_serve_ends_if_no_node_can_pull(node: Node) -> None:
    done = run("serve", "-c", "lab-md")
    assert done.returncode == 1
    assert f"none runs containerd: {node.name}" in done.stderr
    assert "imgload watch -c lab-md '*'" in done.stderr


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
    command = [sys.executable, "-m", "imgload", "load", tag, "-c", "lab-mx", "--transport=import"]
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
    assert loaded_id(faulty, tag) == image_id


@long
def test_a_cut_connection_loads_nothing(
    lab: Lab, images: Images, tmp_path: Path, faulty: Node, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A name keeps its image."""
    tag = unique()
    before = images.build(lab.docker, tag)
    assert imgload.load(tag, cluster="lab-mx", source="docker").ok
    images.build(lab.docker, tag, os.urandom(8 * MIB))
    surveys = 1 if stored(faulty, tag) == before else 0  # that of a containerd is cached
    fault = Fault("POST .*/exec/.*/start", "cut", after=3 * MIB, skip=1 + surveys)
    with relay(lab.docker, tmp_path, fault) as proxy:
        monkeypatch.setenv("DOCKER_HOST", proxy.url)
        with pytest.raises(imgload.LoadFailed, match="connection"):
            imgload.load(tag, cluster="lab-mx", source="docker", transport="import")
    settled(faulty)
    assert loaded_id(faulty, tag) == before


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


CRICTL = """\
#!/bin/sh
case $5 in
inspecti) exec docker image inspect --format '{"status": {"id": "{{.Id}}"}}' "$6" ;;
*) echo '{"containers": []}' ;;
esac
"""
"""Answers as cri-dockerd does (core/image.go, ImageStatus), and lists no containers."""


@pytest.fixture(scope="module")
def moby(lab: Lab) -> Iterator[Node]:
    """A node whose Docker keeps its images in containerd."""
    options = {"name": "lab-mc", "containerd": "docker-newest"}
    made = lab.make_cluster(engine="docker", shape=ContainerdStoreInMinikube(), **options)
    [node], script = made.nodes, 'cat >"$1" && chmod +x "$1"'
    node.exec("sh", "-c", script, "sh", "/usr/local/bin/crictl", stdin=CRICTL.encode())
    yield node
    made.remove()


@pytest.mark.parametrize("transport", ["pull", pytest.param("import", marks=long)])
def test_images_in_the_containerd_of_docker_are_loaded_verified_and_pruned(
    lab: Lab, images: Images, moby: Node, transport: TransportOption
) -> None:
    """Docker and cri-dockerd have them; a build that has lost its name stays, as for Docker."""
    base, tag = unique("base"), unique()
    images.build(lab.docker, base, os.urandom(200_000))
    load = partial(imgload.load, tag, cluster="lab-mc", source="docker", transport=transport)
    ids = []
    for action in ("full", "delta"):
        ids.append(images.build(lab.docker, tag, action.encode(), base=base))
        [result] = load(verify="deep").images[0].nodes
        assert (result.action, result.transport, result.content) == (action, transport, "complete")
        assert (result.proof and result.proof.cri, loaded_id(moby, tag)) == (True, ids[-1])
    [tagged] = load(tag=f"{tag}-again").images[0].nodes
    assert (tagged.action, loaded_id(moby, f"{tag}-again")) == ("tagged", ids[-1])
    pruned = imgload.prune(cluster="lab-mc")
    assert [str(image.image_id) for image in pruned.nodes[0].removed] == ids[:1]
    assert "dangling" not in moby.exec("ctr", "-n", "moby", "images", "ls", "-q")


@long
def test_a_container_keeps_its_image_in_the_containerd_of_docker(
    lab: Lab, images: Images, moby: Node
) -> None:
    """Also a stopped one, which containerd does not have."""
    tag = unique()
    first = images.build(lab.docker, tag)
    imgload.load(tag, cluster="lab-mc", source="docker")
    moby.exec("docker", "create", "--name=user", tag, "/app")
    images.build(lab.docker, tag, b"next")
    imgload.load(tag, cluster="lab-mc", source="docker")
    kept = imgload.prune(cluster="lab-mc", keep=0).nodes[0].kept
    assert [str(k.image.image_id) for k in kept] == [first]
    moby.exec("docker", "rm", "user")
    imgload.prune(cluster="lab-mc", keep=0)
    assert moby.exec("docker", "image", "ls", "--all", "--quiet").split() == []


@long
def test_containerd_of_docker_is_not_configured(lab: Lab, images: Images, moby: Node) -> None:
    """Pods do not pull with it; and Docker has no pins."""
    tag = unique()
    images.build(lab.docker, tag)
    report = imgload.load(tag, nodes=[moby.name], source="docker", pin=True)
    assert [note for note in report.notes if "images in Docker cannot be pinned" in note]
    assert imgload.verify(tag, nodes=[moby.name], source="docker", files=True).ok
    with pytest.raises(NodeUnusable, match="does not run containerd"):
        imgload.connect_registry("http://registry:5000", nodes=[moby.name])
    assert "Docker's containerd" in messages(imgload.diagnose(cluster="lab-mc"), "nodes", "ok")


@long
def test_an_image_in_the_containerd_of_docker_keeps_its_manifest(
    tmp_path: Path, moby: Node
) -> None:
    """It can have a name with its digest."""
    image, archive = Made(unique(), compression="gzip"), tmp_path / "image.tar"
    archive.write_bytes(pack(oci([image])))
    digest = Digest.of(image.manifest)
    name = f"{image.name.partition(':')[0]}@{digest}"
    assert imgload.load(name, cluster="lab-mc", source=archive).ok
    assert stored(moby, name) == str(digest)


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
