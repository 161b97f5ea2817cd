"""Issues 1 to 8 in docs/peers.md: reproduced with the real kind, and absent in imgload."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from functools import partial
from pathlib import Path

import attrs
import pytest

import imgload
from imgload.oci.document import MANIFEST
from tests.engine import peers_nodes
from tests.engine.conftest import Images, cri_id, forget, records, unique
from tests.engine.peers import (
    KIB,
    image_of,
    kind_load,
    our_load,
    pack_index,
    printed,
    traffic,
    wipe,
)
from tests.lab import Cluster, Lab
from tests.lab.kind import VERSIONS
from tests.lab.shell import write
from tests.unit.archives import descriptor

SIZE = 300 * KIB


node_of_docker, cluster = peers_nodes.node_of_docker, peers_nodes.cluster


@pytest.fixture(scope="module")
def node_of_docker28(lab: Lab) -> Iterator[Cluster]:
    """A node on Docker 28 with the containerd image store."""
    made = lab.make_cluster(name="lab-peers28", engine="docker28", crictl=True)
    yield made
    made.remove()


@pytest.fixture
def cluster28(
    lab: Lab, node_of_docker28: Cluster, monkeypatch: pytest.MonkeyPatch
) -> Iterator[Cluster]:
    """The node on Docker 28, empty; DOCKER_HOST is that Docker."""
    monkeypatch.setenv("DOCKER_HOST", lab.docker28.url)
    yield node_of_docker28
    wipe(node_of_docker28)


def test_kind_01_an_image_in_podman_is_loaded(lab: Lab, images: Images) -> None:
    """Podman has nodes and image, but kind calls `docker`."""
    cluster, tag = lab.cluster("lab-p21"), unique()
    name = f"docker.io/library/{tag}"
    image_id = images.build(lab.podman, tag)
    for version in VERSIONS:
        done = kind_load(lab, cluster, "docker-image", tag, version=version)
        assert done.returncode == 1
        assert "not present locally" in done.stderr
    imgload.load(tag, cluster=cluster.name)
    assert cri_id(cluster.nodes[0], name) == image_id
    forget(cluster.nodes[0], name)


def test_kind_01_different_images_under_one_name_are_ambiguous(lab: Lab, images: Images) -> None:
    """kind loads the other engine's image with that name and exits with 0."""
    cluster, tag = lab.cluster("lab-p21"), unique()
    name = f"docker.io/library/{tag}"
    podmans, dockers = (images.build(engine, tag) for engine in (lab.podman, lab.docker))
    done = kind_load(lab, cluster, "docker-image", tag)
    assert done.returncode == 0, done.stderr
    assert cri_id(cluster.nodes[0], name) == dockers
    forget(cluster.nodes[0], name)
    with pytest.raises(imgload.ImageAmbiguous):
        imgload.load(tag, cluster=cluster.name)
    assert cri_id(cluster.nodes[0], name) is None
    imgload.load(tag, cluster=cluster.name, source="podman")
    assert cri_id(cluster.nodes[0], name) == podmans
    forget(cluster.nodes[0], name)


def test_kind_01_an_engine_that_does_not_answer_is_named(
    lab: Lab, images: Images, cluster: Cluster, tmp_path: Path
) -> None:
    """kind reports any error as a missing image."""
    dead, tag = f"unix://{tmp_path}/dead.sock", unique()
    images.build(lab.docker, tag)
    for version in VERSIONS:
        done = kind_load(lab, cluster, "docker-image", tag, version=version, DOCKER_HOST=dead)
        assert done.returncode == 1
        assert "not present locally" in done.stderr
        assert dead not in printed(done)
    ours = our_load(cluster, tag, "--from", "docker", DOCKER_HOST=dead)
    assert ours.returncode == 5
    assert dead in ours.stderr


def test_kind_02_an_index_with_missing_content_is_loaded(lab: Lab, cluster28: Cluster) -> None:
    """An absent platform and attestation, as in Docker's containerd store after a pull."""
    node, tag = cluster28.nodes[0], unique()
    image = image_of(tag)
    arm = descriptor(b"arm", MANIFEST, platform={"os": "linux", "architecture": "arm64"})
    unknown = {"os": "unknown", "architecture": "unknown"}
    attested = descriptor(b"attestation", MANIFEST, platform=unknown)
    lab.docker28.cli("load", stdin=pack_index(image, image.entry, arm, attested))
    try:
        for version in VERSIONS:
            done = kind_load(lab, cluster28, "docker-image", tag, version=version)
            assert done.returncode == 1
            assert f"content digest {arm['digest']}: not found" in printed(done)
        imgload.load(tag, cluster=cluster28.name, source="docker")
        assert cri_id(node, image.name) == str(image.image_id)
        assert records(node) == {image.name}
    finally:
        lab.docker28.remove_image(tag)


def test_kind_03_a_platform_variant_is_loaded(lab: Lab, cluster28: Cluster) -> None:
    """docker/cli #7278: inspect shows linux/amd64, but save refuses it: the image is amd64/v3.

    kind exits with 0 although CRI does not have the image, and ignores that name for a while.
    """
    node, tag, other = cluster28.nodes[0], unique(), unique()
    image = image_of(tag)
    third = {"os": "linux", "architecture": "amd64", "variant": "v3"}
    lab.docker28.cli("load", stdin=pack_index(image, {**image.entry, "platform": third}))
    lab.docker28.cli("tag", tag, other)
    try:
        shown = lab.docker28.cli("image", "inspect", "--format", "{{.Os}}/{{.Architecture}}", tag)
        assert shown.strip() == "linux/amd64"
        for version in VERSIONS:
            done = kind_load(lab, cluster28, "docker-image", tag, version=version)
            assert done.returncode == 0, done.stderr
            assert cri_id(node, image.name) is None
            wipe(cluster28)
        imgload.load(other, cluster=cluster28.name, source="docker")
        assert cri_id(node, f"docker.io/library/{other}") == str(image.image_id)
    finally:
        lab.docker28.remove_image(tag, other)


def test_kind_04_a_name_with_a_digest_is_known_to_cri(
    lab: Lab, images: Images, cluster28: Cluster
) -> None:
    """kind exits with 0, but no pod can use the name."""
    node, tag = cluster28.nodes[0], unique()
    text = f"{tag.partition(':')[0]}@{images.build(lab.docker28, tag)}"
    name = f"docker.io/library/{text}"
    for version in VERSIONS:
        done = kind_load(lab, cluster28, "docker-image", text, version=version)
        assert done.returncode == 0, done.stderr
        assert cri_id(node, name) is None
        wipe(cluster28)
    report = imgload.load(text, cluster=cluster28.name, source="docker")
    assert cri_id(node, name) == str(report.images[0].image_id)


def test_kind_05_only_requested_records_are_created(
    lab: Lab, images: Images, cluster: Cluster
) -> None:
    """kind creates `import-DATE@sha256:…`, on which some pods depend."""
    node, tag = cluster.nodes[0], unique()
    images.build(lab.docker, tag)
    done = kind_load(lab, cluster, "docker-image", tag)
    assert done.returncode == 0, done.stderr
    assert any(name.startswith("import-20") for name in records(node))
    wipe(cluster)
    imgload.load(tag, cluster=cluster.name, source="docker")
    assert records(node) == {f"docker.io/library/{tag}"}


def test_kind_06_a_loaded_image_can_be_removed(lab: Lab, images: Images, cluster: Cluster) -> None:
    """After kind, CRI removes the image as `crictl rmi` does, but kind's extra record keeps it."""
    node, tag = cluster.nodes[0], unique()
    image_id = images.build(lab.docker, tag)
    kind_load(lab, cluster, "docker-image", tag)
    node.cri().remove_image(image_id)
    assert any(name.startswith("import-20") for name in records(node))
    assert image_id in node.ctr("content", "ls", "-q")
    wipe(cluster)
    imgload.load(tag, cluster=cluster.name, source="docker")
    node.cri().remove_image(image_id)
    assert records(node) == set()
    assert image_id not in node.ctr("content", "ls", "-q")


@attrs.frozen
class Naming:
    """A requested name, the name to which a pod resolves, and the kind versions that fail."""

    written: str
    wanted: str
    versions: Sequence[str] = VERSIONS


@pytest.mark.parametrize(
    "naming",
    [
        Naming("docker.io/{}:v1", "docker.io/library/{}:v1"),
        Naming("index.docker.io/library/{}:v1", "docker.io/library/{}:v1"),
        Naming("localhost:5000/{}", "localhost:5000/{}:latest", VERSIONS[:1]),
    ],
    ids=lambda naming: naming.written,
)
def test_kind_07_an_added_name_is_the_one_in_a_pod_spec(
    lab: Lab, images: Images, cluster: Cluster, naming: Naming
) -> None:
    """kind tags the image with a name to which no pod resolves, and exits with 0."""
    node, tag = cluster.nodes[0], unique()
    first = f"docker.io/library/{tag}"
    image_id = images.build(lab.docker, tag)
    text, name = (x.format(tag.replace(":", "-")) for x in (naming.written, naming.wanted))
    imgload.load(tag, cluster=cluster.name, source="docker")
    lab.docker.cli("tag", tag, text)
    try:
        for version in naming.versions:
            done = kind_load(lab, cluster, "docker-image", text, version=version)
            assert done.returncode == 0, done.stderr
            assert records(node) == {first, text}
            assert cri_id(node, name) is None
            node.ctr("images", "rm", "--sync", text)
        report = imgload.load(text, cluster=cluster.name, source="docker")
        assert report.images[0].nodes[0].action == "tagged"
        assert records(node) == {first, name}
        assert cri_id(node, name) == image_id
    finally:
        lab.docker.cli("rmi", text)


def test_kind_07_an_image_id_does_not_become_a_name(
    lab: Lab, images: Images, cluster: Cluster
) -> None:
    """kind creates `docker.io/library/sha256:…`."""
    node, tag = cluster.nodes[0], unique()
    image_id = images.build(lab.docker, tag)
    name = f"docker.io/library/{tag}"
    imgload.load(tag, cluster=cluster.name, source="docker")
    for version in VERSIONS:
        done = kind_load(lab, cluster, "docker-image", image_id, version=version)
        assert done.returncode == 0, done.stderr
        assert records(node) == {name, f"docker.io/library/{image_id}"}
        node.ctr("images", "rm", "--sync", f"docker.io/library/{image_id}")
    report = imgload.load(image_id, cluster=cluster.name, source="docker")
    assert report.images[0].nodes[0].action == "present"
    assert records(node) == {name}


def test_kind_08_a_present_image_of_docker28_is_not_sent(
    lab: Lab, images: Images, cluster28: Cluster
) -> None:
    """kind sends it: `Id` is a manifest's digest in Docker, and a config's on the node."""
    tag = unique()
    images.build(lab.docker28, tag, os.urandom(SIZE))
    load = partial(kind_load, lab, cluster28, "docker-image", tag)
    load()
    done, sent = traffic(lab.docker28, load)
    assert done.returncode == 0, done.stderr
    assert sent > SIZE
    wipe(cluster28)
    for most in (2 * SIZE, SIZE // 10):
        done, sent = traffic(lab.docker28, partial(our_load, cluster28, tag, "--from", "docker"))
        assert done.returncode == 0, done.stderr
        assert sent < most
    assert "already there" in done.stdout


def test_kind_08_a_present_image_of_podman_is_not_sent(
    lab: Lab, images: Images, tmp_path: Path
) -> None:
    """kind with podman-docker sends it, because Podman's IDs have no `sha256:`."""
    cluster, tag = lab.cluster("lab-p21"), unique()
    name, log = f"docker.io/library/{tag}", tmp_path / "log"
    images.build(lab.podman, tag)
    script = write(tmp_path / "docker", f'#!/bin/sh\necho $1 >>{log}\nexec podman "$@"\n', 0o755)
    path = f"{script.parent}:{lab.environ('podman')['PATH']}"
    for _ in range(2):
        done = kind_load(lab, cluster, "docker-image", tag, PATH=path)
        assert done.returncode == 0, done.stderr
    assert log.read_text().split().count("save") == 2
    assert cri_id(cluster.nodes[0], name) is None, "its name is localhost/…"
    forget(cluster.nodes[0], f"localhost/{tag}")
    actions = [
        imgload.load(tag, cluster=cluster.name, source="podman").images[0].nodes[0].action
        for _ in range(2)
    ]
    assert actions == ["full", "present"]
    assert cri_id(cluster.nodes[0], name) == lab.podman.image_id(tag)
    forget(cluster.nodes[0], name)
