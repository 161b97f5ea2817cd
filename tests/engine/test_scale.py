"""Much of everything: 200 loads, 30 nodes, 2,000 images, 10 GB. Minutes each, hence ``long``."""

from __future__ import annotations

import gc
import os
import resource
from collections.abc import Iterator
from pathlib import Path

import pytest

import imgload
from tests.engine.conftest import Images, cri_id, forget, records, unique
from tests.lab import Cluster, Lab, Node
from tests.lab.engine import Engine

pytestmark = pytest.mark.long
MIB = 1 << 20
GIB = 1 << 30


def _descriptors() -> int:
    return len([*Path("/proc/self/fd").iterdir()])


def _resident() -> int:
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * resource.getpagesize()


def test_two_hundred_loads_in_a_loop(lab: Lab, images: Images) -> None:
    """Memory, descriptors and the node's records do not grow; each load is proven."""
    node, tag, base = lab.cluster("lab-d21").nodes[0], unique(), unique("base")
    images.build(lab.docker, base, b"x" * MIB)
    before = records(node)
    marks: list[tuple[int, int]] = []
    for number in range(200):
        images.build(lab.docker, tag, b"%d" % number, base=base)
        assert imgload.load(tag, cluster="lab-d21").ok
        if number in {49, 199}:
            gc.collect()
            marks.append((_resident(), _descriptors()))
    (memory, descriptors), (memory_after, descriptors_after) = marks
    assert memory_after < memory + 8 * MIB
    assert descriptors_after <= descriptors
    assert records(node) - before == {f"docker.io/library/{tag}"}
    assert "imgload" not in node.exec("ls", "/var/lib", "/tmp", "/run")
    forget(node, f"docker.io/library/{tag}")


@pytest.fixture
def many(lab: Lab) -> Iterator[Cluster]:
    """A cluster of thirty nodes."""
    roles = ("control-plane", *["worker"] * 29)
    made = lab.make_cluster(name="lab-30", engine="docker", roles=roles)
    yield made
    made.remove()


def test_thirty_nodes(lab: Lab, images: Images, many: Cluster) -> None:
    """All at once, all proven; the second build moves its own layer only."""
    tag, base = unique(), unique("base")
    images.build(lab.docker, base, os.urandom(20 * MIB))
    for _ in range(3):
        image = images.build(lab.docker, tag, base=base)
        report = imgload.load(tag, cluster="lab-30")
        assert {cri_id(node, f"docker.io/library/{tag}") for node in many.nodes} == {image}
    assert {node.action for node in report.images[0].nodes} == {"delta"}
    assert max(node.bytes_sent for node in report.images[0].nodes) < MIB


def test_a_store_of_two_thousand_images(lab: Lab, images: Images) -> None:
    """On the engine and on the node: a load asks for what it needs, and not for all."""
    node, tag = lab.cluster("lab-d21").nodes[0], unique()
    images.build(lab.docker, tag, b"x" * MIB)
    name = f"docker.io/library/{tag}"
    imgload.load(tag, cluster="lab-d21")
    names = [f"docker.io/many/app:{number}" for number in range(2000)]
    try:
        for start in range(0, 2000, 200):
            node.ctr("images", "tag", "--force", name, *names[start : start + 200])
            for many in names[start : start + 200]:
                lab.docker.cli("tag", tag, many.removeprefix("docker.io/"))
        report = imgload.load(tag, cluster="lab-d21")
        assert report.images[0].nodes[0].action == "present"
        images.build(lab.docker, tag, b"y")
        assert imgload.load(tag, cluster="lab-d21").ok
    finally:
        _remove(lab.docker, node, names)
    forget(node, name)


def _remove(engine: Engine, node: Node, names: list[str]) -> None:
    for start in range(0, len(names), 200):
        node.ctr("images", "rm", *names[start : start + 200])
        engine.cli("rmi", *(n.removeprefix("docker.io/") for n in names[start : start + 200]))


@pytest.mark.parametrize("source", ["docker", "podman"])
def test_ten_gigabytes(lab: Lab, images: Images, source: str) -> None:
    """Ten layers of 1 GiB; memory stays flat (minikube #17983)."""
    engine, tag = lab.engine(source), unique()
    node = lab.cluster("lab-d21").nodes[0]
    base = None
    for _ in range(10):
        image = images.build(engine, tag, bytes(GIB), base=base)
        base = tag
    before = _resident()
    assert imgload.load(tag, cluster="lab-d21", source=engine.url).ok
    assert _resident() - before < 80 * MIB
    assert cri_id(node, f"docker.io/library/{tag}") == image
    forget(node, f"docker.io/library/{tag}")
