"""Nodes with CRI-O's store, into which a real Podman writes; no CRI-O is in Debian's packages."""

from __future__ import annotations

import os
import secrets
import signal as signals
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

import imgload
from imgload.clusters.nodes.base import PreviousNames
from imgload.clusters.nodes.proof import ExpectedImage
from imgload.clusters.nodes.survey import SurveyQuery
from imgload.loader.events import Note
from imgload.loader.report import NodeResult
from imgload.loader.session import Session
from imgload.oci.digest import Digest
from imgload.sources.base import TransportOption
from tests.engine.aftermath import until
from tests.engine.conftest import Images, cases, unique
from tests.engine.kinds import Made, oci
from tests.engine.test_errors import run
from tests.lab import Lab, Node, nodeimage
from tests.lab.shape import CrioInMinikube
from tests.lab.shell import CommandError
from tests.unit.archives import pack

VERSIONS = {version: version for version in nodeimage.CRIO}
OLDEST = next(iter(VERSIONS))


def make_node(lab: Lab, version: str = OLDEST, engine: str = "docker", **options: object) -> Node:
    """Create a node of a minikube cluster of its own."""
    name = f"lab-crio-{secrets.token_hex(3)}"
    shape = CrioInMinikube()
    return lab.make_cluster(
        name=name, engine=engine, containerd=version, shape=shape, **options
    ).nodes[0]


@pytest.fixture(scope="module")
def node(lab: Lab) -> Iterator[Node]:
    """A node with the oldest Podman."""
    made = make_node(lab)
    yield made
    made.engine.remove_containers(made.name)


def podman_id(node: Node, name: str) -> str | None:
    """Return the image ID that Podman finds for a name; None if it has no such image."""
    try:
        found = node.exec("podman", "image", "inspect", "--format", "{{.Id}}", name)
    except CommandError:
        return None
    return f"sha256:{found.strip()}"


def load(name: str, node: Node, **options: object) -> NodeResult:
    [image] = imgload.load(name, nodes=[node.name], **options).images  # type: ignore[arg-type]
    [result] = image.nodes
    assert result.ok
    assert result.proof
    assert result.proof.cri is None
    return result


def leftovers(node: Node) -> str:
    """Return the temporary files on a node."""
    return node.exec("sh", "-c", "ls -d /var/lib/imgload-* /var/tmp/* 2>/dev/null || :")


@pytest.mark.parametrize("transport", ["pull", "import"])
def test_an_image_its_rebuild_and_another_name_are_loaded(
    lab: Lab, images: Images, node: Node, transport: str
) -> None:
    """Podman finds the loaded image; a rebuild sends only the changed layer."""
    base, tag = unique("base"), unique()
    images.build(lab.docker, base, os.urandom(200_000))
    image_id = images.build(lab.docker, tag, b"one", base=base)
    first = load(tag, node, transport=transport)
    assert (first.action, first.transport, first.bytes_sent > 200_000) == ("full", transport, True)
    assert podman_id(node, f"docker.io/library/{tag}") == image_id
    rebuilt = images.build(lab.docker, tag, b"two", base=base)
    second = load(tag, node, transport=transport)
    assert (second.action, second.bytes_sent < 50_000) == ("delta", True)
    assert str(second.replaced) == image_id
    assert podman_id(node, f"docker.io/library/{tag}") == rebuilt
    assert load(tag, node, transport=transport).action == "present"
    assert load(tag, node, tag=f"{tag}-again").action == "tagged"
    assert podman_id(node, f"docker.io/library/{tag}-again") == rebuilt
    assert leftovers(node) == ""


@pytest.mark.parametrize("transport", ["pull", "import"])
def test_an_emulated_image_is_loaded_strictly(
    tmp_path: Path, node: Node, loong64: dict[str, str], transport: TransportOption
) -> None:
    """The default in CI."""
    image, archive = Made(unique(), platform=loong64), tmp_path / "image.tar"
    archive.write_bytes(pack(oci([image])))
    options = {"source": archive, "strict_platform": True, "transport": transport}
    load(image.name, node, **options)
    assert podman_id(node, image.name) == image.image_id


@pytest.mark.long
@pytest.mark.parametrize("version", VERSIONS)
def test_layers_are_verified_by_their_hashes(lab: Lab, images: Images, version: str) -> None:
    """Podman recreates them from their files."""
    tag, node = unique(), make_node(lab, version)
    images.build(lab.docker, tag, os.urandom(9))
    try:
        result = load(tag, node, verify="deep")
        assert result.proof
        assert result.proof.content
        files = "/var/lib/containers/storage/overlay/*/diff/*"
        node.exec("sh", "-c", f"for file in {files}; do echo damaged >$file; done")
        with pytest.raises(imgload.LoadFailed, match="file integrity checksum failed") as caught:
            imgload.verify(tag, nodes=[node.name], deep=True)
        error = caught.value.report.images[0].nodes[0].error
        assert error
        assert f"podman rmi docker.io/library/{tag}, and load it again" in error.hint
        assert leftovers(node) == ""
    finally:
        node.engine.remove_containers(node.name)


@pytest.mark.long
@pytest.mark.parametrize("version", cases(VERSIONS, ()))
@pytest.mark.parametrize("engine", ["docker", "docker28", "podman"])
def test_every_engine_loads_into_every_podman(
    lab: Lab, images: Images, version: str, engine: str
) -> None:
    """Several images, names with a port and with a digest, and an image without a name."""
    node, source = make_node(lab, version), lab.engine(engine)
    try:
        for transport in ("pull", "import"):
            tag = unique()
            names = [tag, f"localhost:5001/team/{tag}", f"registry.example/{tag}"]
            ids = [images.build(source, name, os.urandom(9), os.urandom(9)) for name in names]
            report = imgload.load(names, nodes=[node.name], source=source.url, transport=transport)
            assert report.ok
            full = [f"docker.io/library/{tag}", *names[1:]]
            found = [podman_id(node, name) for name in full]
            assert found == [str(image.image_id) for image in report.images]
            if not source.has_containerd_store:
                assert found == ids
            assert {n.transport for image in report.images for n in image.nodes} == {transport}
        assert leftovers(node) == ""
    finally:
        node.engine.remove_containers(node.name)


@pytest.fixture
def own_node(lab: Lab) -> Iterator[Node]:
    """A node whose settings a test may change; its /var is small."""
    made = make_node(lab, "crio-5.4", var_size="100m")
    yield made
    made.engine.remove_containers(made.name)


@pytest.mark.long
def test_builds_that_imgload_loaded_are_listed_and_pruned(
    lab: Lab, images: Images, own_node: Node
) -> None:
    """A build that a container uses, and an image that imgload did not load, stay."""
    name = unique().partition(":")[0]
    ids = [images.build(lab.docker, f"{name}:v{n}", os.urandom(9)) for n in range(4)]
    for n in range(4):
        load(f"{name}:v{n}", own_node)
    own_node.exec("podman", "create", "--network=host", f"{name}:v0", "/app")
    own_node.exec("podman", "tag", f"{name}:v1", "localhost/kept:v1")
    listed = imgload.images(nodes=[own_node.name])
    assert {i.name for i in listed.images} == {
        *(f"docker.io/library/{name}:v{n}" for n in range(4)),
        "localhost/kept:v1",
    }
    assert [str(i.image_id) for i in listed.images if i.in_use] == [ids[0]]
    [pruned] = imgload.prune(nodes=[own_node.name], keep=1).nodes
    assert [str(image.image_id) for image in pruned.removed] == [ids[2]]
    assert podman_id(own_node, f"{name}:v2") is None
    assert podman_id(own_node, f"{name}:v0") == ids[0]
    done = run("doctor", "--node", own_node.name)
    assert f"{own_node.name}: CRI-O's store, overlay" in done.stdout


@pytest.mark.long
@pytest.mark.parametrize("transport", ["pull", "import"])
def test_a_full_node_is_clean_afterwards(
    lab: Lab, images: Images, own_node: Node, transport: TransportOption
) -> None:
    tag = unique()
    images.build(lab.docker, tag, os.urandom(70 << 20))
    with pytest.raises(imgload.LoadFailed, match="disk space"):
        imgload.load(tag, nodes=[own_node.name], transport=transport)
    assert podman_id(own_node, tag) is None
    assert leftovers(own_node) == ""
    assert int(own_node.exec("du", "-sm", "/var").split()[0]) < 10


@pytest.mark.long
@pytest.mark.parametrize("signal", ["INT", "KILL"])
@pytest.mark.parametrize("transport", ["pull", "import"])
def test_a_killed_load_leaves_no_name_and_no_file(
    lab: Lab, images: Images, node: Node, signal: str, transport: TransportOption
) -> None:
    """It is killed while the node receives the image; the next run loads it."""
    tag = unique()
    image_id = images.build(lab.docker, tag, os.urandom(150 << 20))
    command = [sys.executable, "-m", "imgload", "load", tag, "--node", node.name]
    killed = subprocess.Popen([*command, "--transport", transport], stderr=subprocess.DEVNULL)
    until(lambda: leftovers(node) != "")
    killed.send_signal(getattr(signals, f"SIG{signal}"))
    killed.wait()
    until(lambda: leftovers(node) == "")
    assert podman_id(node, tag) is None
    load(tag, node)
    assert podman_id(node, tag) == image_id
    assert leftovers(node) == ""


@pytest.mark.long
def test_the_store_of_crio_may_differ_from_podmans(
    lab: Lab, images: Images, own_node: Node
) -> None:
    """CRI-O's settings name another folder and driver (crio.conf(5))."""
    write_file(
        own_node,
        "/etc/crio/crio.conf.d/10.conf",
        '[crio]\nroot = "/var/lib/other"\nrunroot = "/run/other"\nstorage_driver = "vfs"\n',
    )
    tag = unique()
    images.build(lab.docker, tag)
    for transport in ("pull", "import"):
        load(tag, own_node, transport=transport)
        assert podman_id(own_node, tag) is None
        own_node.exec("podman", "--root=/var/lib/other", "--storage-driver=vfs", "rmi", tag)


def write_file(node: Node, path: str, text: str) -> None:
    script = 'mkdir -p "${1%/*}" && cat >"$1"'
    node.exec("sh", "-c", script, "sh", path, stdin=text.encode())


@pytest.mark.long
def test_what_keeps_an_image_from_pods_is_named(lab: Lab, images: Images, own_node: Node) -> None:
    """A short name that CRI-O does not look for in Docker Hub, a policy, and no Podman."""
    tag = unique()
    images.build(lab.docker, tag)
    search = 'unqualified-search-registries = ["quay.io"]\n'
    write_file(own_node, "/etc/containers/registries.conf", search)
    notes: list[object] = []
    imgload.load(tag, nodes=[own_node.name], on_event=notes.append)
    [note] = [note.text for note in notes if isinstance(note, Note)]
    assert f"names the image {tag} gets no image" in note
    images.build(lab.docker, tag)
    write_file(own_node, "/etc/containers/policy.json", '{"default": [{"type": "reject"}]}')
    with pytest.raises(imgload.LoadFailed, match="rejected by policy"):
        imgload.load(tag, nodes=[own_node.name])
    own_node.exec("mv", "/usr/bin/podman", "/usr/bin/podman.off")
    with pytest.raises(imgload.LoadFailed, match="no podman"):
        imgload.load(tag, nodes=[own_node.name])


@pytest.mark.long
@pytest.mark.parametrize("known", [True, False])
def test_a_name_that_a_failed_load_moved_is_restored(
    lab: Lab, images: Images, own_node: Node, *, known: bool
) -> None:
    """The name gets the image that it had before; the new image is removed."""
    tag = unique()
    first = images.build(lab.docker, tag) if known else None
    if known:
        load(tag, own_node)
    with Session.open() as session:
        [runtime] = session.select(None, [own_node.name]).nodes
    surveyed = runtime.survey(SurveyQuery((), ()))
    second = Digest.parse(images.build(lab.docker, tag))
    load(tag, own_node)
    name = f"docker.io/library/{tag}"
    before = PreviousNames(surveyed.records)
    runtime.rollback(ExpectedImage(name, second, ()), surveyed, before=before)
    assert podman_id(own_node, name) == first
    assert podman_id(own_node, second.hex) is None
