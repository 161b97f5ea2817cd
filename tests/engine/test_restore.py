"""`imgload restore` loads the images of a cluster into the recreated cluster."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

import imgload
from imgload.cli.dropin import run as run_dropin
from imgload.tools.dropins.tool import KIND
from tests.engine.conftest import Images, cri_id, forget, unique
from tests.engine.test_watch import watching
from tests.lab import Lab, Node
from tests.schema import complaints

CLUSTER, OTHER, MADE = "lab-d21", "lab-p21", "lab-restored"


def restored(*words: str) -> tuple[int, dict[str, Any]]:
    """Run the command, and return its exit status and its document."""
    command = [sys.executable, "-m", "imgload", "restore", "-o", "json", *words]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    document = json.loads(done.stdout)
    assert complaints(document) == []
    return done.returncode, document


def actions(document: dict[str, Any]) -> dict[str, list[str]]:
    """Return the action on each node, by image."""
    return {i["reference"]: [n["action"] for n in i["nodes"]] for i in document["images"]}


@pytest.fixture
def node(lab: Lab) -> Node:
    """The node of a cluster that all tests share."""
    return lab.cluster(CLUSTER).nodes[0]


@pytest.fixture
def made(lab: Lab) -> Iterator[Callable[[], list[Node]]]:
    """Return a function that creates a cluster with two nodes, again if it exists."""
    clusters = []

    def make() -> list[Node]:
        roles = ("control-plane", "worker")
        clusters.append(lab.make_cluster(name=MADE, engine="docker", roles=roles))
        return clusters[-1].nodes

    yield make
    clusters[-1].remove()


def test_a_recreated_cluster_gets_its_images_again(
    lab: Lab, images: Images, made: Callable[[], list[Node]], tmp_path: Path
) -> None:
    """From each source as it is now; a missing image is reported, and stops no other."""
    nodes, archive = made(), tmp_path / "archive.tar"
    same, changed, lost, tagged, archived, piped, partly = (unique(n) for n in "abcdefg")
    full = [f"docker.io/library/{name}" for name in (same, changed, tagged, archived, partly)]
    for tag in (same, changed, lost, partly):
        images.build(lab.docker, tag)
    images.build(lab.podman, "p" + tagged)
    lab.docker.cli("save", "-o", archive, same)
    imgload.load([same, changed, lost], cluster=MADE, source="docker")
    imgload.load("p" + tagged, cluster=MADE, source="podman", tag=tagged)
    imgload.load(archives=archive, cluster=MADE, tag=archived)
    imgload.load(partly, nodes=nodes[1].name, source="docker")
    save = [sys.executable, "-m", "imgload", "load", "--from", "-", "--tag", piped, "-c", MADE]
    with archive.open("rb") as stdin:
        subprocess.run(save, stdin=stdin, capture_output=True, check=True)

    before = lab.docker.image_id(changed)
    images.build(lab.docker, changed)
    lab.docker.remove_image(lost)
    nodes = made()
    status, document = restored("-c", MADE)
    assert status == 3
    assert {error["image"] for error in document["errors"]} == {lost, f"docker.io/library/{piped}"}
    ids = [lab.docker.image_id(name) for name in (same, changed, same, same, partly)]
    ids[2] = lab.podman.image_id("p" + tagged)
    assert [cri_id(nodes[1], name) for name in full] == ids
    assert [cri_id(nodes[0], name) for name in full] == [*ids[:4], None]
    [note] = [note for note in document["notes"] if "changed" in note]
    assert f"{full[1]} has changed in docker since it was loaded: it was {before[7:19]}" in note
    assert any(f"{piped} was loaded from standard input" in note for note in document["notes"])

    for name in (lost, piped):
        images.build(lab.docker, name)
    assert restored("-c", MADE, lost, piped)[0] == 0
    [file] = (tmp_path / "cache" / "imgload" / "loads").iterdir()
    record = file.read_bytes()
    status, document = restored("-c", MADE)
    assert status == 0
    assert {action for found in actions(document).values() for action in found} == {"present"}
    assert file.read_bytes() == record
    with pytest.raises(imgload.ImageNotFound, match="no load into lab-d21") as nothing:
        imgload.restore(cluster=CLUSTER)
    assert nothing.value.hint.endswith(f"imgload load IMAGE --cluster {CLUSTER}")


def test_two_clusters_are_restored_with_their_own_images(
    lab: Lab, images: Images, node: Node
) -> None:
    """A dry run changes nothing; the images that match are loaded."""
    one, two, both = unique("one"), unique("two"), unique("both")
    other = lab.cluster(OTHER).nodes[0]
    for tag in (one, two, both):
        images.build(lab.docker, tag)
    imgload.load([one, both], cluster=CLUSTER, source="docker")
    imgload.load([two, both], cluster=OTHER, source="docker")
    names = [f"docker.io/library/{tag}" for tag in (one, two, both)]
    forget(node, names[0], names[2])
    forget(other, *names[1:])
    clusters = [CLUSTER, OTHER]
    planned = imgload.restore(cluster=clusters, dry_run=True)
    assert [[n.action for n in i.nodes] for i in planned.images] == [["full"]] * 4
    assert [cri_id(node, name) for name in names] == [None] * 3
    report = imgload.restore([one.partition(":")[0], two], cluster=clusters)
    loaded = [(i.reference, [n.node for n in i.nodes]) for i in report.images]
    assert loaded == [(names[0], [node.name]), (names[1], [other.name])]
    imgload.restore(cluster=clusters)
    assert [cri_id(node, name) is None for name in names] == [False, True, False]
    assert [cri_id(other, name) is None for name in names] == [True, False, False]
    forget(node, names[0], names[2])
    forget(other, *names[1:])


def test_removed_images_are_not_restored(lab: Lab, images: Images, node: Node) -> None:
    """Neither pruned ones nor those that the user removed from the record."""
    repository = unique().replace(":", "-")
    tags = [f"{repository}:v{number}" for number in (1, 2, 3)]
    for tag in tags:
        images.build(lab.docker, tag)
        imgload.load(tag, cluster=CLUSTER, source="docker")
    imgload.prune(repository, cluster=CLUSTER, keep=2)
    plan = imgload.restore(cluster=CLUSTER, dry_run=True)
    assert [image.reference for image in plan.images] == [
        f"docker.io/library/{t}" for t in tags[1:]
    ]
    status, document = restored("-c", CLUSTER, "--forget", tags[1])
    text = f"removed from the record of {CLUSTER} (docker): docker.io/library/{tags[1]}"
    assert (status, document["notes"]) == (0, [text])
    with pytest.raises(imgload.ImageNotFound) as nothing:
        imgload.restore(tags[1], cluster=CLUSTER)
    assert nothing.value.hint.endswith(f"imgload restore --dry-run --cluster {CLUSTER}")
    imgload.restore(cluster=CLUSTER, forget=True)
    with pytest.raises(imgload.ImageNotFound):
        imgload.restore(cluster=CLUSTER)
    forget(node, *(f"docker.io/library/{tag}" for tag in tags[1:]))


def test_loads_by_watch_and_the_drop_in_are_restored(lab: Lab, images: Images, node: Node) -> None:
    watched, kind = unique("watched"), unique("kind")
    images.build(lab.docker, kind)
    assert run_dropin(KIND, ["load", "docker-image", kind, "--name", CLUSTER, "-q"]) == 0
    with watching(watched, "-c", CLUSTER, "--from", lab.docker.url) as watcher:
        images.build(lab.docker, watched)
        assert watcher.loaded()["ok"]
    names = [f"docker.io/library/{tag}" for tag in (kind, watched)]
    forget(node, *names)
    imgload.restore(cluster=CLUSTER)
    assert [cri_id(node, name) for name in names] == [
        lab.docker.image_id(t) for t in (kind, watched)
    ]
    forget(node, *names)
