"""Issues 9 to 15 in docs/peers.md: reproduced with the real kind, and absent in imgload."""

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
    printed,
    snapshots,
    traffic,
    wipe,
)
from tests.lab import Cluster, Lab, Node, nodeimage
from tests.lab.kind import VERSIONS
from tests.lab.suites import NEWEST
from tests.unit import archives

SIZE = 300 * KIB
LARGE = 6 * MIB
VAR_SIZE = "24m"


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
    """A node with a small disk, and a containerd that names an image before it unpacks it."""
    made = lab.make_cluster(
        name="lab-peers-small", engine="docker", containerd="1.7", crictl=True, var_size=VAR_SIZE
    )
    yield made
    made.remove()


@pytest.fixture(scope="module")
def native_node(lab: Lab) -> Iterator[Cluster]:
    """A node whose CRI uses a snapshotter other than ctr's default."""
    config = nodeimage.CONFIGS[NEWEST].replace('"overlayfs"', '"native"')
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
    """The node with the small disk, empty."""
    yield small_node
    leave_free(small_node.nodes[0], 0)
    wipe(small_node)


@pytest.fixture
def native(native_node: Cluster) -> Iterator[Cluster]:
    """The node with another snapshotter, empty."""
    yield native_node
    wipe(native_node)


def leave_free(node: Node, mebibytes: int) -> None:
    """Fill the node's disk up to this much free space; 0 frees all of it."""
    node.exec("rm", "-f", "/var/filler")
    if mebibytes:
        size = 24 - mebibytes
        node.exec("dd", "if=/dev/zero", "of=/var/filler", "bs=1M", f"count={size}")


def test_kind_09_only_the_missing_image_is_sent(lab: Lab, images: Images, cluster: Cluster) -> None:
    """kind has one list of nodes for all images; imgload plans for each image and node."""
    large, little = unique("large"), unique("little")
    images.build(lab.docker, large, os.urandom(SIZE))
    images.build(lab.docker, little)
    kind_load(lab, cluster, "docker-image", large)
    load = partial(kind_load, lab, cluster, "docker-image", large, little)
    done, sent = traffic(lab.docker, load)
    assert done.returncode == 0, done.stderr
    assert "already present on all nodes" in printed(done)
    assert sent > 2 * SIZE
    for node in cluster.nodes:
        node.cri().remove_image(f"docker.io/library/{little}")
    done, sent = traffic(lab.docker, partial(our_load, cluster, large, little, "--from", "docker"))
    assert done.returncode == 0, done.stderr
    assert sent < SIZE // 4


def test_kind_10_a_failed_import_leaves_no_name(lab: Lab, images: Images, small: Cluster) -> None:
    """After kind, the name exists without unpacked layers, and later loads skip the image."""
    node, tag = small.nodes[0], unique()
    name = f"docker.io/library/{tag}"
    image_id = images.build(lab.docker, tag, os.urandom(LARGE))
    leave_free(node, 10)
    done = kind_load(lab, small, "docker-image", tag)
    assert done.returncode == 1
    assert cri_id(node, name) == image_id
    leave_free(node, 0)
    again = kind_load(lab, small, "docker-image", tag)
    assert again.returncode == 0
    assert "already present on all nodes" in printed(again)
    assert chain_id(node, name) not in snapshots(node)
    imgload.load(tag, cluster=small.name, source="docker")
    assert chain_id(node, name) in snapshots(node)
    wipe(small)
    leave_free(node, 10)
    with pytest.raises(imgload.LoadFailed):
        imgload.load(tag, cluster=small.name, source="docker")
    assert records(node) == set()


def test_kind_11_layers_are_unpacked_in_cris_snapshotter(
    lab: Lab, images: Images, native: Cluster
) -> None:
    """kind passes CRI's snapshotter, and ctr refuses it (containerd #11228)."""
    node, tag = native.nodes[0], unique()
    name = f"docker.io/library/{tag}"
    images.build(lab.docker, tag)
    for version in VERSIONS:
        done = kind_load(lab, native, "docker-image", tag, version=version)
        assert done.returncode == 1
        assert "no unpack platforms defined" in printed(done)
    imgload.load(tag, cluster=native.name, source="docker")
    assert chain_id(node, name) in snapshots(node, "native")


def test_kind_11_an_image_in_ctrs_snapshotter_is_loaded_again(
    lab: Lab, images: Images, native: Cluster
) -> None:
    """As with kind before #2543: CRI knows the image but has no snapshot of it."""
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
    """kind sends the image and prints ctr's error; imgload states the needed space."""
    node, tag = small.nodes[0], unique()
    images.build(lab.docker, tag, os.urandom(LARGE))
    leave_free(node, 4)
    done, sent = traffic(lab.docker, partial(kind_load, lab, small, "docker-image", tag))
    assert done.returncode == 1
    assert "no space left on device" in printed(done)
    assert sent > 3 * MIB
    done, sent = traffic(lab.docker, partial(our_load, small, tag, "--from", "docker"))
    assert done.returncode == 1
    assert "MiB free, and at least 6 MiB are needed" in done.stdout
    assert sent < 100 * KIB
    assert records(node) == set()


def test_kind_13_present_layers_are_not_sent(lab: Lab, images: Images, cluster: Cluster) -> None:
    """After a rebuild of the top layer, kind sends the base again."""
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
    """kind reports neither that `:latest` is always pulled, nor that a tag has moved."""
    tag = f"{unique().replace(':', '-')}:latest"
    before = images.build(lab.docker, tag)
    imgload.load(tag, cluster=cluster.name, source="docker")
    images.build(lab.docker, tag)
    done = kind_load(lab, cluster, "docker-image", tag)
    assert done.returncode == 0, done.stderr
    assert "pull" not in printed(done).lower()
    assert before.removeprefix("sha256:")[:12] not in printed(done)
    before = lab.docker.image_id(tag)
    images.build(lab.docker, tag)
    ours = our_load(cluster, tag.removesuffix(":latest"), "--from", "docker")
    assert ours.returncode == 0, ours.stderr
    assert "imagePullPolicy: IfNotPresent" in ours.stderr
    assert f"replaced {before.removeprefix('sha256:')[:12]}" in ours.stdout


def test_kind_15_an_oci_layout_folder_is_loaded(lab: Lab, cluster: Cluster, tmp_path: Path) -> None:
    """kind refuses it."""
    tag = unique()
    image = image_of(tag)
    archives.write_folder(tmp_path, archives.oci(image))
    for version in VERSIONS:
        done = kind_load(lab, cluster, "image-archive", tmp_path, version=version)
        assert done.returncode == 1
        assert records(cluster.nodes[0]) == set()
    ours = our_load(cluster, "--from", tmp_path)
    assert ours.returncode == 0, ours.stderr
    for node in cluster.nodes:
        assert cri_id(node, image.name) == str(image.image_id)
