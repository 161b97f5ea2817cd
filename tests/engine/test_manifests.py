"""The form in which nodes store an image: unchanged, decompressed, or unpacked only."""

from __future__ import annotations

import os

import pytest

import imgload
from imgload.oci.digest import Digest
from tests.engine.conftest import Images, cri_id, forget, record_digest, unique
from tests.lab import Lab, Node

MIB = 1 << 20


def stored(node: Node) -> set[str]:
    rows = node.ctr("content", "ls").splitlines()[1:]
    return {row.split()[0] for row in rows}


def diff_ids(lab: Lab, tag: str) -> set[str]:
    lines = lab.docker28.cli("inspect", "-f", '{{join .RootFS.Layers "\\n"}}', tag)
    return set(lines.split())


@pytest.mark.parametrize("transport", ["pull", "import"])
def test_keep_manifest_keeps_the_digest_of_the_source(
    lab: Lab, images: Images, transport: imgload.TransportOption
) -> None:
    """Also if the node has the image under another manifest."""
    node, tag = lab.cluster("lab-d21").nodes[0], unique()
    images.build(lab.docker28, tag, os.urandom(MIB))
    name, source = f"docker.io/library/{tag}", lab.docker28.url
    imgload.load(tag, cluster="lab-d21", source=source)
    assert diff_ids(lab, tag) <= stored(node)
    digest = lab.docker28.image_id(tag)
    assert record_digest(node, name) != digest
    for action in ("delta", "present"):
        report = imgload.load(
            tag, cluster="lab-d21", source=source, transport=transport, keep_manifest=True
        )
        assert report.images[0].nodes[0].action == action
        assert record_digest(node, name) == digest
    forget(node, name)


@pytest.mark.parametrize("cluster", ["lab-d16", "lab-d17", "lab-d21"])
def test_discarded_layers_leave_their_snapshots(lab: Lab, images: Images, cluster: str) -> None:
    """The image runs, and the next build transfers only its own layers."""
    node, base, tag = lab.cluster(cluster).nodes[0], unique(), unique()
    images.build(lab.docker28, base, os.urandom(MIB))
    name, source = f"docker.io/library/{tag}", lab.docker28.url
    for _ in range(2):
        images.build(lab.docker28, tag, os.urandom(MIB), base=base)
        report = imgload.load(tag, cluster=cluster, source=source, discard_layers=True)
        assert diff_ids(lab, tag).isdisjoint(stored(node))
        assert cri_id(node, name) == str(report.images[0].image_id)
    result = report.images[0].nodes[0]
    assert result.action == "delta"
    assert MIB < result.bytes_sent < 1.1 * MIB
    assert "imgload" not in node.ctr("leases", "ls")
    assert imgload.load(tag, cluster=cluster, source=source).images[0].nodes[0].action == "present"
    forget(node, name)


def test_layers_of_other_images_are_not_discarded(lab: Lab, images: Images) -> None:
    node, base, tag = lab.cluster("lab-d21").nodes[0], unique(), unique()
    images.build(lab.docker28, base, os.urandom(MIB))
    images.build(lab.docker28, tag, os.urandom(MIB), base=base)
    imgload.load(base, cluster="lab-d21", source=lab.docker28.url)
    imgload.load(tag, cluster="lab-d21", source=lab.docker28.url, discard_layers=True)
    assert stored(node) & diff_ids(lab, tag) == diff_ids(lab, base)
    assert Digest.parse(cri_id(node, f"docker.io/library/{tag}") or "")
    forget(node, *(f"docker.io/library/{name}" for name in (base, tag)))
