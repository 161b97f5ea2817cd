"""What users report of kind, 9 to 15: the real kind fails so, and ours does not.

The numbers are those of docs/peers.md.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import pytest

import imgload
from tests.engine.conftest import Images, cri_id, records, unique
from tests.engine.peers import (
    KIB,
    MIB,
    chain_id,
    image_of,
    kind_load,
    our_load,
    said,
    snapshots,
    traffic,
    wipe,
)
from tests.lab import Cluster, Lab, Node, nodeimage
from tests.lab.kind import VERSIONS
from tests.unit import archives

SIZE = 300 * KIB
LARGE = 6 * MIB
ROOM = "24m"


@pytest.fixture(scope="module")
def two_nodes(lab: Lab) -> Iterator[Cluster]:
    """Two nodes on Docker 20.10, with crictl as kind's have it, and containerd 1.7."""
    made = lab.make_cluster(
        name="lab-peers",
        engine="docker",
        containerd="1.7",
        roles=("control-plane", "worker"),
        crictl=True,
    )
    yield made
    made.remove()


@pytest.fixture(scope="module")
def small_node(lab: Lab) -> Iterator[Cluster]:
    """A node with a small disk, and the containerd that names an image before it unpacks it."""
    made = lab.make_cluster(
        name="lab-peers-small", engine="docker", containerd="1.7", crictl=True, var_size=ROOM
    )
    yield made
    made.remove()


@pytest.fixture(scope="module")
def native_node(lab: Lab) -> Iterator[Cluster]:
    """A node whose CRI keeps its snapshots where ctr does not by default."""
    config = nodeimage.CONFIGS["2.1"].replace('"overlayfs"', '"native"')
    made = lab.make_cluster(name="lab-peers-native", engine="docker", crictl=True, config=config)
    yield made
    made.remove()


@pytest.fixture
def cluster(two_nodes: Cluster) -> Iterator[Cluster]:
    """The two nodes, empty."""
    yield two_nodes
    wipe(two_nodes)


@pytest.fixture
def small(small_node: Cluster) -> Iterator[Cluster]:
    """The small disk, empty."""
    yield small_node
    leave(small_node.nodes[0], 0)
    wipe(small_node)


@pytest.fixture
def native(native_node: Cluster) -> Iterator[Cluster]:
    """The node with other snapshots, empty."""
    yield native_node
    wipe(native_node)


def leave(node: Node, mebibytes: int) -> None:
    """Fill the node's disk so that this much is left; 0 for all of it."""
    node.exec("rm", "-f", "/var/filler")
    if mebibytes:
        size = 24 - mebibytes
        node.exec("dd", "if=/dev/zero", "of=/var/filler", "bs=1M", f"count={size}")


def test_kind_09_only_the_missing_image_is_sent(lab: Lab, images: Images, cluster: Cluster) -> None:
    """kind keeps one list of nodes for all images; ours is a plan per image and node."""
    large, little = unique("large"), unique("little")
    images.build(lab.docker, large, os.urandom(SIZE))
    images.build(lab.docker, little)
    kind_load(lab, cluster, "docker-image", large)
    load = partial(kind_load, lab, cluster, "docker-image", large, little)
    done, sent = traffic(lab.docker, load)
    assert done.returncode == 0, done.stderr
    assert "already present on all nodes" in said(done)
    assert sent > 2 * SIZE
    for node in cluster.nodes:
        node.cri().remove_image(f"docker.io/library/{little}")
    done, sent = traffic(lab.docker, partial(our_load, cluster, large, little, "--from", "docker"))
    assert done.returncode == 0, done.stderr
    assert sent < SIZE // 4


def test_kind_10_a_failed_import_leaves_no_name(lab: Lab, images: Images, small: Cluster) -> None:
    """The name is there, the content is not unpacked; kind takes that for done ever after."""
    node, tag = small.nodes[0], unique()
    name = f"docker.io/library/{tag}"
    image_id = images.build(lab.docker, tag, os.urandom(LARGE))
    leave(node, 10)
    done = kind_load(lab, small, "docker-image", tag)
    assert done.returncode == 1
    assert cri_id(node, name) == image_id
    leave(node, 0)
    again = kind_load(lab, small, "docker-image", tag)
    assert again.returncode == 0
    assert "already present on all nodes" in said(again)
    assert chain_id(node, name) not in snapshots(node)
    imgload.load(tag, cluster=small.name, source="docker")
    assert chain_id(node, name) in snapshots(node)
    wipe(small)
    leave(node, 10)
    with pytest.raises(imgload.LoadFailed):
        imgload.load(tag, cluster=small.name, source="docker")
    assert records(node) == set()


def test_kind_11_layers_are_unpacked_in_cris_snapshotter(
    lab: Lab, images: Images, native: Cluster
) -> None:
    """kind names CRI's snapshotter, and ctr refuses it (containerd #11228)."""
    node, tag = native.nodes[0], unique()
    name = f"docker.io/library/{tag}"
    images.build(lab.docker, tag)
    for version in VERSIONS:
        done = kind_load(lab, native, "docker-image", tag, version=version)
        assert done.returncode == 1
        assert "no unpack platforms defined" in said(done)
    imgload.load(tag, cluster=native.name, source="docker")
    assert chain_id(node, name) in snapshots(node, "native")


def test_kind_11_an_image_in_ctrs_snapshotter_is_loaded_again(
    lab: Lab, images: Images, native: Cluster
) -> None:
    """As kind did before #2543: CRI knows the image and has no snapshot of it; ours does not
    believe it.
    """
    node, tag = native.nodes[0], unique()
    name = f"docker.io/library/{tag}"
    image_id = images.build(lab.docker, tag)
    node.ctr("images", "import", "-", stdin=lab.docker.raw("save", tag))
    assert cri_id(node, name) == image_id
    assert chain_id(node, name) not in snapshots(node, "native")
    report = imgload.load(tag, cluster=native.name, source="docker")
    assert report.images[0].nodes[0].action == "full"
    assert chain_id(node, name) in snapshots(node, "native")


def test_kind_12_a_full_node_is_refused_before_the_transfer(
    lab: Lab, images: Images, small: Cluster
) -> None:
    """kind sends the image and says what ctr said; ours says what is needed and sends nothing."""
    node, tag = small.nodes[0], unique()
    images.build(lab.docker, tag, os.urandom(LARGE))
    leave(node, 4)
    done, sent = traffic(lab.docker, partial(kind_load, lab, small, "docker-image", tag))
    assert done.returncode == 1
    assert "no space left on device" in said(done)
    assert sent > 3 * MIB
    done, sent = traffic(lab.docker, partial(our_load, small, tag, "--from", "docker"))
    assert done.returncode == 1
    assert "MiB free, and at least 6 MiB are needed" in done.stderr
    assert sent < 100 * KIB
    assert records(node) == set()


def test_kind_13_present_layers_are_not_sent(lab: Lab, images: Images, cluster: Cluster) -> None:
    """A rebuild of the top layer sends the base again."""
    base, tag = unique("base"), unique()
    images.build(lab.docker, base, os.urandom(SIZE))
    images.build(lab.docker, tag, base=base)
    imgload.load(tag, cluster=cluster.name, source="docker")
    images.build(lab.docker, tag, base=base)
    done, sent = traffic(lab.docker, partial(kind_load, lab, cluster, "docker-image", tag))
    assert done.returncode == 0, done.stderr
    assert sent > 2 * SIZE
    images.build(lab.docker, tag, base=base)
    done, sent = traffic(lab.docker, partial(our_load, cluster, tag, "--from", "docker"))
    assert done.returncode == 0, done.stderr
    assert sent < SIZE // 4


def test_kind_14_a_load_warns_about_pulls_and_replaced_images(
    lab: Lab, images: Images, cluster: Cluster
) -> None:
    """`:latest` is pulled whatever is there, and a name has moved; kind tells neither."""
    tag = f"{unique().replace(':', '-')}:latest"
    before = images.build(lab.docker, tag)
    imgload.load(tag, cluster=cluster.name, source="docker")
    images.build(lab.docker, tag)
    done = kind_load(lab, cluster, "docker-image", tag)
    assert done.returncode == 0, done.stderr
    assert "pull" not in said(done).lower()
    assert before.removeprefix("sha256:")[:12] not in said(done)
    before = lab.docker.image_id(tag)
    images.build(lab.docker, tag)
    ours = our_load(cluster, tag.removesuffix(":latest"), "--from", "docker")
    assert ours.returncode == 0, ours.stderr
    assert "imagePullPolicy: IfNotPresent" in ours.stderr
    assert f"replaced {before.removeprefix('sha256:')[:12]}" in ours.stderr


def test_kind_15_an_oci_layout_folder_is_loaded(lab: Lab, cluster: Cluster, tmp_path: Path) -> None:
    """An OCI layout that is not packed."""
    tag = unique()
    image = image_of(tag)
    for path, content in archives.oci(image):
        assert isinstance(content, bytes)
        (tmp_path / path).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / path).write_bytes(content)
    for version in VERSIONS:
        done = kind_load(lab, cluster, "image-archive", tmp_path, version=version)
        assert done.returncode == 1
        assert records(cluster.nodes[0]) == set()
    ours = our_load(cluster, "--from", tmp_path)
    assert ours.returncode == 0, ours.stderr
    for node in cluster.nodes:
        assert cri_id(node, image.name) == str(image.image_id)
