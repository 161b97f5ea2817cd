"""Issues of containerd's importer, which other loaders call: reproduced, and avoided.

The numbers are those in docs/peers.md.
"""

from __future__ import annotations

import gzip
import sys
from pathlib import Path

import pytest

import imgload
from tests.engine import peers_nodes
from tests.engine.conftest import Images, cri_id, forget, record_digest, records, unique
from tests.engine.peers import image_of
from tests.lab import Cluster, CommandError, Lab
from tests.unit import archives

if sys.version_info >= (3, 14):
    from compression import zstd
else:
    from backports import zstd


node_of_docker, cluster = peers_nodes.node_of_docker, peers_nodes.cluster


def test_containerd_4474_an_untagged_image_is_loaded_by_id(
    lab: Lab, images: Images, cluster: Cluster
) -> None:
    """ctr exits with 0 and creates nothing; imgload loads the image under its ID."""
    node, tag = cluster.nodes[0], unique()
    image_id = images.build(lab.docker, tag)
    images.build(lab.docker, tag)  # the first image becomes untagged
    try:
        node.ctr("images", "import", "-", stdin=lab.docker.raw("save", image_id))
        assert records(node) == set()
        assert cri_id(node, image_id) is None
        imgload.load(image_id, cluster=cluster.name, source="docker")
        assert cri_id(node, image_id) == image_id
    finally:
        lab.docker.cli("rmi", image_id)


def test_containerd_6307_the_same_image_with_another_manifest_is_present(
    cluster: Cluster, tmp_path: Path
) -> None:
    """Each archive format has a different manifest; the image ID is the same."""
    node, tag = cluster.nodes[0], unique()
    image, path = image_of(tag), tmp_path / "image.tar"
    digests = set()
    for form in (archives.docker20, archives.oci):
        path.write_bytes(archives.pack(form(image)))
        node.ctr("images", "import", "-", stdin=path.read_bytes())
        digests.add(record_digest(node, image.name))
    assert len(digests) == 2
    path.write_bytes(archives.pack(archives.docker20(image)))
    report = imgload.load([], cluster=cluster.name, source=str(path))
    assert report.images[0].nodes[0].action == "present"
    assert record_digest(node, image.name) in digests


@pytest.mark.parametrize("crictl", [True, False], ids=["crictl", "no crictl"])
def test_containerd_9039_an_image_unknown_to_cri_is_repaired(
    lab: Lab,
    images: Images,
    cluster: Cluster,
    crictl: bool,  # noqa: FBT001
) -> None:
    """The transfer service of 1.7 does not notify CRI (#12820); imgload detects and repairs it.

    Without crictl, it checks the label that CRI sets on images that it knows.
    """
    target_cluster = cluster if crictl else lab.cluster("lab-d17")
    node, tag = target_cluster.nodes[0], unique()
    name = f"docker.io/library/{tag}"
    image_id = images.build(lab.docker, tag)
    node.ctr("images", "import", "--local=false", "-", stdin=lab.docker.raw("save", tag))
    assert cri_id(node, name) is None
    report = imgload.load(tag, cluster=target_cluster.name, source="docker")
    assert report.images[0].nodes[0].action == "tagged"
    assert cri_id(node, name) == image_id
    forget(node, name)


def test_containerd_9981_a_gzip_archive_is_loaded(cluster: Cluster, tmp_path: Path) -> None:
    """ctr accepts only an uncompressed tar."""
    node, tag = cluster.nodes[0], unique()
    image, path = image_of(tag), tmp_path / "image.tar.gz"
    path.write_bytes(gzip.compress(archives.pack(archives.oci(image))))
    with pytest.raises(CommandError, match="invalid tar header"):
        node.ctr("images", "import", "-", stdin=path.read_bytes())
    imgload.load([], cluster=cluster.name, source=str(path))
    assert cri_id(node, image.name) == str(image.image_id)


def test_containerd_11228_an_import_does_not_need_all_platforms(lab: Lab, images: Images) -> None:
    """ctr 2.1 fails with `--all-platforms` and a snapshotter other than the default one."""
    node, tag = lab.cluster("lab-d21").nodes[0], unique()
    name = f"docker.io/library/{tag}"
    images.build(lab.docker, tag)
    command = ("images", "import", "--all-platforms", "--snapshotter=native", "-")
    with pytest.raises(CommandError, match="no unpack platforms defined"):
        node.ctr(*command, stdin=lab.docker.raw("save", tag))
    report = imgload.load(tag, cluster="lab-d21", source="docker")
    assert cri_id(node, name) == str(report.images[0].image_id)
    forget(node, name)


@pytest.mark.parametrize("cluster_name", ["lab-d16", "lab-d17", "lab-d21"])
def test_containerd_14160_zstd_layers_keep_their_media_type(
    lab: Lab, tmp_path: Path, cluster_name: str
) -> None:
    """ctr labels them as gzip in a docker-archive; imgload as zstd, or decompresses them."""
    node, tag = lab.cluster(cluster_name).nodes[0], unique()
    image, path = image_of(tag), tmp_path / "image.tar"
    layers = {f"{i}.tar": zstd.compress(raw) for i, raw in enumerate(image.layers)}
    listed = {"Config": "config.json", "RepoTags": [tag], "Layers": list(layers)}
    manifest = ("manifest.json", archives.encode([listed]))
    path.write_bytes(archives.pack([*layers.items(), ("config.json", image.config), manifest]))
    node.ctr("images", "import", "-", stdin=path.read_bytes())
    assert "tar.gzip" in node.ctr("content", "get", record_digest(node, image.name))
    forget(node, image.name)
    imgload.load([], cluster=cluster_name, source=str(path), keep_manifest=True)
    assert "tar+zstd" in node.ctr("content", "get", record_digest(node, image.name))
    forget(node, image.name)
    imgload.load([], cluster=cluster_name, source=str(path), transport="pull")
    assert 'layer.v1.tar"' in node.ctr("content", "get", record_digest(node, image.name))
    assert cri_id(node, image.name) == str(image.image_id)
    forget(node, image.name)
