"""Load from each engine onto the nodes of each engine, with each containerd version."""

from __future__ import annotations

import json

import pytest

import imgload
from tests.engine.aftermath import leftover_tags
from tests.engine.conftest import Images, cri_id, forget, records, unique
from tests.lab import Lab
from tests.lab.engine import Engine

SINGLE_NODE_CLUSTERS = ["lab-d16", "lab-d17", "lab-d21", "lab-p16", "lab-p17", "lab-p21"]
THREE_NODE_CLUSTERS = ["lab-d3", "lab-p3"]


def config_digest(engine: Engine, name: str) -> str:
    """Return the image ID, which for the containerd store is only in the saved archive."""
    if not engine.has_containerd_store:
        return engine.image_id(name)
    import io  # noqa: PLC0415
    import tarfile  # noqa: PLC0415

    with tarfile.open(fileobj=io.BytesIO(engine.raw("save", name))) as archive:
        listed = archive.extractfile("manifest.json")
        assert listed is not None
        config = str(json.load(listed)[0]["Config"])
    return f"sha256:{config.removeprefix('blobs/sha256/').removesuffix('.json')}"


@pytest.mark.parametrize("cluster", SINGLE_NODE_CLUSTERS)
@pytest.mark.parametrize("source", ["docker", "podman", "docker28"])
def test_an_image_keeps_its_id_on_the_node(
    lab: Lab, images: Images, source: str, cluster: str
) -> None:
    """The ID on the node is the engine's (kind #2038, #2027, #2835).

    The second load sends nothing; kind sends everything again if the engine's ID is not a config
    digest, or has no ``sha256:``.
    """
    engine, node = lab.engine(source), lab.cluster(cluster).nodes[0]
    tag = unique()
    images.build(engine, tag, b"one", b"two" * 100_000)
    name = f"docker.io/library/{tag}"

    first = imgload.load(tag, cluster=cluster, source=engine.url)
    second = imgload.load(tag, cluster=cluster, source=engine.url)

    wanted = config_digest(engine, tag)
    assert first.images[0].reference == name
    assert str(first.images[0].image_id) == wanted
    assert cri_id(node, name) == wanted
    assert first.images[0].nodes[0].action == "full"
    assert first.images[0].nodes[0].bytes_sent > 0
    assert second.images[0].nodes[0].action == "present"
    assert second.images[0].nodes[0].bytes_sent == 0
    assert leftover_tags(engine) == []
    forget(node, name)


@pytest.mark.parametrize("cluster", ["lab-d21", "lab-p21"])
def test_crictl_confirms_the_image_if_the_node_has_it(
    lab: Lab, images: Images, cluster: str
) -> None:
    """`cri` in the proof is crictl's answer, and null without crictl."""
    nodes, tag = [lab.cluster(name).nodes[0] for name in (cluster, "lab-d17")], unique()
    images.build(lab.docker, tag)
    with_crictl = imgload.load(tag, cluster=cluster)
    without = imgload.load(tag, cluster="lab-d17")
    proofs = [report.images[0].to_json()["nodes"][0]["proof"] for report in (with_crictl, without)]
    read_back = {"name": True, "image_id": True, "diff_ids": True, "unpacked": True}
    assert proofs == [{**read_back, "cri": True}, {**read_back, "cri": None}]
    for node in nodes:
        forget(node, f"docker.io/library/{tag}")


@pytest.mark.parametrize("cluster", THREE_NODE_CLUSTERS)
@pytest.mark.parametrize("source", ["docker", "podman"])
def test_all_nodes_get_all_images(lab: Lab, images: Images, source: str, cluster: str) -> None:
    """Two images that share a layer, in one call, on three nodes."""
    engine = lab.engine(source)
    base, app, db = unique("base"), unique("app"), unique("db")
    nodes = lab.cluster(cluster).nodes
    images.build(engine, base, b"x" * 300_000)
    ids = [images.build(engine, tag, tag.encode(), base=base) for tag in (app, db)]
    report = imgload.load([app, db], cluster=cluster, source=source)
    assert [str(image.image_id) for image in report.images] == ids
    for node in nodes:
        assert [cri_id(node, f"docker.io/library/{tag}") for tag in (app, db)] == ids
    for result in report.images[1].nodes:
        assert 0 < result.bytes_sent < 300_000, "the shared layer was sent once"
    for node in nodes:
        forget(node, *(f"docker.io/library/{tag}" for tag in (app, db)))


def test_only_nodes_that_lack_an_image_get_it(lab: Lab, images: Images) -> None:
    """The plan is made for each image and node (report 9)."""
    nodes, first, second = lab.cluster("lab-d3").nodes, unique(), unique()
    for tag in (first, second):
        images.build(lab.docker, tag)
    imgload.load(first, cluster="lab-d3", nodes=["lab-d3-worker"])
    report = imgload.load([first, second], cluster="lab-d3")
    actions = {
        (number, result.node.removeprefix("lab-d3-")): result.action
        for number, image in enumerate(report.images)
        for result in image.nodes
    }
    assert actions == {
        (0, "control-plane"): "full",
        (0, "worker"): "present",
        (0, "worker2"): "full",
        (1, "control-plane"): "full",
        (1, "worker"): "full",
        (1, "worker2"): "full",
    }
    for node in nodes:
        forget(node, *(f"docker.io/library/{tag}" for tag in (first, second)))


def test_a_new_name_is_added_without_a_transfer(lab: Lab, images: Images) -> None:
    """An image that the node has under another name is not sent.

    Also after a rebuild: CRI creates no record by ID for an image to which a name has moved.
    """
    node, tag = lab.cluster("lab-d16").nodes[0], unique()
    for _ in range(2):
        images.build(lab.docker, tag)
        imgload.load(tag, cluster="lab-d16")
    report = imgload.load(tag, cluster="lab-d16", tag="ghcr.io/o/app:v1")
    result = report.images[0].nodes[0]
    assert (report.images[0].reference, result.action) == ("ghcr.io/o/app:v1", "tagged")
    assert result.bytes_sent == 0
    assert cri_id(node, "ghcr.io/o/app:v1") == str(report.images[0].image_id)
    forget(node, "ghcr.io/o/app:v1", f"docker.io/library/{tag}")


@pytest.mark.parametrize("cluster", SINGLE_NODE_CLUSTERS)
def test_a_rebuilt_image_takes_over_its_tag(lab: Lab, images: Images, cluster: str) -> None:
    """The report names the replaced image (#696, #16032)."""
    tag = unique()
    node = lab.cluster(cluster).nodes[0]
    old = images.build(lab.docker, tag)
    imgload.load(tag, cluster=cluster)
    new = images.build(lab.docker, tag)
    report = imgload.load(tag, cluster=cluster)
    assert str(report.images[0].nodes[0].replaced) == old
    assert cri_id(node, f"docker.io/library/{tag}") == new
    forget(node, old, new)


@pytest.mark.parametrize("cluster", SINGLE_NODE_CLUSTERS)
def test_only_the_requested_name_appears_on_the_node(
    lab: Lab, images: Images, cluster: str
) -> None:
    """No import-DATE record (#4028), no file on the node, no half-ingested content."""
    tag = unique()
    node = lab.cluster(cluster).nodes[0]
    images.build(lab.podman, tag)
    before = records(node)
    imgload.load(tag, cluster=cluster)
    assert records(node) == before | {f"docker.io/library/{tag}"}
    assert "imgload" not in node.exec("ls", "/var/lib", "/tmp", "/run")
    assert node.ctr("content", "active").strip().count("\n") == 0
    forget(node, f"docker.io/library/{tag}")


def test_a_dry_run_changes_nothing(lab: Lab, images: Images) -> None:
    """The report has the plan, and the node is unchanged."""
    tag = unique()
    images.build(lab.docker, tag)
    node = lab.cluster("lab-d21").nodes[0]
    before = records(node)
    report = imgload.load(tag, cluster="lab-d21", dry_run=True)
    assert report.dry_run
    assert report.ok
    assert report.images[0].nodes[0].action == "full"
    assert report.images[0].nodes[0].proof is None
    assert report.images[0].nodes[0].bytes_missing
    assert records(node) == before
