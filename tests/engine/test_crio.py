"""Nodes with CRI-O's store, into which a real Podman writes; no CRI-O is in Debian's packages."""

from __future__ import annotations

import os
import secrets
from collections.abc import Iterator

import pytest

import imgload
from imgload.loader.report import NodeResult
from tests.engine.conftest import Images, cases, unique
from tests.lab import Lab, Node, nodeimage
from tests.lab.shape import CrioInMinikube
from tests.lab.shell import CommandError

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
