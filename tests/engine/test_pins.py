"""Pinned images, which the kubelet's garbage collection keeps."""

from __future__ import annotations

import json

import pytest

import imgload
from tests.engine.conftest import Images, forget, unique
from tests.engine.test_errors import run
from tests.lab import Lab, Node

PIN, OWN_PIN = "io.cri-containerd.pinned", "imgload/pinned"


def is_pinned(node: Node, name: str) -> bool:
    """Return whether the node's CRI reports the image as pinned, without crictl."""
    status = node.cri().image_status(name)
    assert status is not None
    return bool(status["status"]["pinned"])


def labels(node: Node, name: str) -> str:
    return node.ctr("images", "ls", f"name=={name}").splitlines()[1].split()[-1]


@pytest.mark.parametrize("cluster", ["lab-d21", pytest.param("lab-d17", marks=pytest.mark.long)])
def test_a_pinned_name_stays_pinned_until_prune_removes_the_pin(
    lab: Lab, images: Images, cluster: str
) -> None:
    """Later loads pull, import or tag another build under the name."""
    node, tag, other = lab.cluster(cluster).nodes[0], unique("pin"), unique("other")
    name = f"docker.io/library/{tag}"
    images.build(lab.docker, tag)
    assert imgload.load(tag, cluster=cluster).ok
    assert not is_pinned(node, name)
    done = run("load", tag, "-c", cluster, "--pin", "-o", "json")
    [result] = json.loads(done.stdout)["images"][0]["nodes"]
    assert (result["action"], result["proof"]["pinned"]) == ("present", True)
    assert is_pinned(node, name)
    copy = unique("copy")
    assert imgload.load(tag, cluster=cluster, tag=copy).images[0].nodes[0].action == "tagged"
    assert "pinned=" not in labels(node, f"docker.io/library/{copy}")
    for transport in ("pull", "import"):
        images.build(lab.docker, tag)
        [result] = imgload.load(tag, cluster=cluster, transport=transport).images[0].nodes
        assert result.replaced
        assert is_pinned(node, name)
    images.build(lab.docker, other)
    assert imgload.load(other, cluster=cluster).ok
    assert imgload.load(other, cluster=cluster, tag=tag).images[0].nodes[0].action == "tagged"
    assert is_pinned(node, name)
    assert OWN_PIN in labels(node, name)
    [pruned] = imgload.prune("pin", cluster=cluster, keep=0).nodes
    assert name not in {n for image in pruned.removed for n in image.names}
    assert "pinned" in {kept.reason for kept in pruned.kept}
    done = run("prune", "pin", "other", "copy", "-c", cluster, "--unpin", "--yes", "-o", "json")
    [listed] = json.loads(done.stdout)["nodes"]
    assert name in listed["unpinned"]
    assert not is_pinned(node, name)
    assert OWN_PIN not in labels(node, name)
    [pruned] = imgload.prune(["pin", "other", "copy"], cluster=cluster, keep=0, unpin=True).nodes
    assert name in {n for image in pruned.removed for n in image.names}


def test_the_pin_of_another_tool_survives_a_pull_and_prune(lab: Lab, images: Images) -> None:
    node, tag = lab.cluster("lab-d21").nodes[0], unique("pin")
    name = f"docker.io/library/{tag}"
    images.build(lab.docker, tag)
    assert imgload.load(tag, cluster="lab-d21").ok
    node.ctr("images", "label", name, f"{PIN}=pinned")
    images.build(lab.docker, tag)
    assert imgload.load(tag, cluster="lab-d21", transport="pull", pin=True).ok
    assert is_pinned(node, name)
    assert OWN_PIN not in labels(node, name)
    [pruned] = imgload.prune("pin", cluster="lab-d21", keep=0, unpin=True).nodes
    assert name not in {*pruned.unpinned, *(n for image in pruned.removed for n in image.names)}
    assert is_pinned(node, name)
    forget(node, name)


def test_a_note_names_a_node_that_does_not_pin(lab: Lab, images: Images) -> None:
    """containerd 1.6 stores the label, but its CRI does not report the image as pinned."""
    node, tag = lab.cluster("lab-d16").nodes[0], unique("pin")
    name = f"docker.io/library/{tag}"
    images.build(lab.docker, tag)
    report = imgload.load(tag, cluster="lab-d16", pin=True)
    [result] = report.images[0].nodes
    assert result.proof
    assert result.proof.pinned is None
    assert any(f"{node.name} does not pin {name}" in note for note in report.notes)
    assert PIN not in labels(node, name)
    assert not is_pinned(node, name)
    forget(node, name)
