"""List images and prune old builds, next to containers that CRI has started."""

from __future__ import annotations

import json
import secrets
import subprocess
import sys
from collections.abc import Callable, Iterator

import pytest

import imgload
from imgload.clusters.nodes import batch
from imgload.engines import exec_stream as attached
from imgload.engines.base import Engine
from tests.engine.conftest import Images, cri_id, forget, records, unique
from tests.engine.test_rollback import CTR, program
from tests.lab import Lab, Node
from tests.lab.pods import Pod, runnable

CLUSTERS = ["lab-d16", "lab-d17", "lab-d21"]
"""One for each version of containerd; only the last one has crictl."""
MIB = secrets.token_bytes(1 << 20)


RunImgload = Callable[..., "subprocess.CompletedProcess[str]"]


@pytest.fixture(scope="module")
def base(lab: Lab) -> Iterator[str]:
    """A runnable image, which is the base of others."""
    tag = unique("runnable")
    yield runnable(lab.docker, lab.cluster("lab-d21").nodes[0], tag)
    lab.docker.remove_image(tag)


@pytest.fixture(scope="module")
def builds(lab: Lab, base: str) -> Iterator[dict[str, str]]:
    """Builds of one repository: their image IDs by name, oldest first."""
    made = Images()
    repository = f"ghcr.io/{unique().replace(':', '/')}"
    tags = ("run", "made", "ended", "a", "b", "c")
    yield {
        f"{repository}:{tag}": made.build(lab.docker, f"{repository}:{tag}", MIB, base=base)
        for tag in tags
    }
    made.clear()


@pytest.fixture
def run_imgload() -> RunImgload:
    """Return a function that runs the command."""

    def run(*words: str) -> subprocess.CompletedProcess[str]:
        argv = [sys.executable, "-m", "imgload", *words]
        return subprocess.run(argv, capture_output=True, text=True, check=False)

    return run


def disk_use(node: Node) -> int:
    return int(node.exec("du", "-sk", "/var/lib/containerd").split()[0]) * 1024


def image_ids(node: Node) -> set[str]:
    """Return the IDs of CRI's images on the node, without crictl."""
    return {str(image["id"]) for image in node.cri().list_images()}


@pytest.mark.parametrize("cluster", CLUSTERS)
def test_prune_removes_old_builds_and_keeps_images_in_use(
    lab: Lab, builds: dict[str, str], cluster: str
) -> None:
    """An image is in use if a container runs, was only created, or has ended.

    Removed images are removed from the disk, and CRI does not know them any more.
    """
    node = lab.cluster(cluster).nodes[0]
    *older, newest = builds
    run, made, ended, *unused = older
    repository = newest.partition(":")[0]
    imgload.load(older, nodes=[node.name], source="docker")
    imgload.load(newest, nodes=[node.name], source="docker")
    pod = Pod.run(node)
    pod.start(run)
    pod.create(made)
    pod.stop(pod.start(ended))

    before = disk_use(node)
    would = imgload.prune([repository], nodes=[node.name], keep=1, dry_run=True).nodes[0]
    assert image_ids(node) >= set(builds.values()), "a dry run removes nothing"
    report = imgload.prune([repository], nodes=[node.name], keep=1).nodes[0]
    freed = before - disk_use(node)

    gone = {builds[name] for name in unused}
    assert {str(image.image_id) for image in report.removed} == gone
    assert report.bytes_freed == pytest.approx(freed, rel=0.05)
    assert would.bytes_freed == pytest.approx(freed, rel=0.05)
    assert freed > 4 * len(MIB), "a blob and a snapshot of each"
    assert image_ids(node) & set(builds.values()) == set(builds.values()) - gone
    assert not any(image in node.ctr("content", "ls", "-q") for image in gone)
    for name in (run, made, ended):
        pod.start(name)
    pod.remove()
    imgload.prune([repository], nodes=[node.name], keep=0)


def test_prune_removes_an_untagged_build_that_no_container_uses(
    images: Images, lab: Lab, base: str
) -> None:
    """Its name refers to the next build; only ID and snapshot show that a container uses it."""
    node = lab.cluster("lab-d17").nodes[0]
    repository = f"ghcr.io/{unique().replace(':', '/')}"
    tag = f"{repository}:dev"
    old = images.build(lab.docker, tag, base=base)
    imgload.load(tag, nodes=[node.name], source="docker")
    pod = Pod.run(node)
    pod.start(tag)
    new = images.build(lab.docker, tag, base=base)
    imgload.load(tag, nodes=[node.name], source="docker")

    running = imgload.prune([repository], nodes=[node.name]).nodes[0]
    pod.remove()
    ended = imgload.prune([repository], nodes=[node.name]).nodes[0]

    assert running.removed == ()
    reasons = {str(kept.image.image_id): kept.reason for kept in running.kept}
    assert reasons[old] == "in use by a container"
    assert [(str(i.image_id), i.names, i.loaded_as) for i in ended.removed] == [(old, (), (tag,))]
    assert cri_id(node, tag) == new
    forget(node, tag)


@pytest.mark.parametrize("cluster", ["lab-d16", "lab-p21"])
def test_prune_removes_only_images_that_imgload_loaded(
    lab: Lab, images: Images, cluster: str
) -> None:
    """An image of another tool has no label; `everything` removes it with all its names."""
    node = lab.cluster(cluster).nodes[0]
    repository = f"ghcr.io/{unique().replace(':', '/')}"
    foreign, ours = f"{repository}:foreign", f"{repository}:ours"
    images.build(node.engine, foreign)
    node.ctr("images", "import", "--digests", "-", stdin=node.engine.raw("save", foreign))
    images.build(node.engine, ours)
    imgload.load(ours, nodes=[node.name], source=node.engine.url)
    listed = {i.name: i for i in imgload.images([repository], nodes=[node.name]).images}
    ids = {name: str(listed[name].image_id) for name in (foreign, ours)}

    first = imgload.prune([repository], nodes=[node.name], keep=0).nodes[0]
    second = imgload.prune([repository], nodes=[node.name], keep=0, everything=True).nodes[0]

    assert [listed[name].loaded_as for name in (foreign, ours)] == [(), (ours,)]
    assert [str(image.image_id) for image in first.removed] == [ids[ours]]
    assert [kept.reason for kept in first.kept] == ["not loaded by imgload"]
    assert [str(image.image_id) for image in second.removed] == [ids[foreign]]
    assert not image_ids(node) & set(ids.values())
    assert not any(image in node.ctr("images", "ls") for image in ids.values())


def test_an_image_copied_into_a_node_is_labelled(
    lab: Lab, images: Images, monkeypatch: pytest.MonkeyPatch
) -> None:
    """If the input of an exec cannot be closed separately, as over TLS."""
    monkeypatch.setattr(Engine, "streams_exec", property(lambda _: False))
    node, tag = lab.cluster("lab-d21").nodes[0], unique()
    images.build(lab.docker, tag)
    imgload.load(tag, nodes=[node.name], transport="archive")
    (image,) = imgload.images(tag, nodes=[node.name]).images
    assert image.loaded_as == (image.name,)
    forget(node, str(image.name))


def test_prune_keeps_the_newest_of_builds_loaded_together(lab: Lab, images: Images) -> None:
    """They have the same load time; the order of image IDs does not matter."""
    node, repository = lab.cluster("lab-d21").nodes[0], unique().replace(":", "")
    tags = [f"{repository}:v{n}" for n in range(4)]
    for tag in tags:
        images.build(lab.docker, tag)
    imgload.load(tags, cluster="lab-d21")
    imgload.prune([repository], cluster="lab-d21", keep=1)
    assert {n for n in records(node) if repository in n} == {f"docker.io/library/{tags[-1]}"}
    imgload.prune([repository], cluster="lab-d21", keep=0)


def test_prune_keeps_a_name_that_moves_meanwhile(lab: Lab, images: Images) -> None:
    """The decision was about the build to which the name referred before."""
    node, tag, other = lab.cluster("lab-d21").nodes[0], unique("pruned"), unique()
    name, elsewhere = f"docker.io/library/{tag}", "docker.io/other/app:1"
    images.build(lab.docker, tag)
    new = images.build(lab.docker, other)
    imgload.load(tag, cluster="lab-d21")
    imgload.load(other, cluster="lab-d21", tag=elsewhere)
    moves = f"""case "$*" in *" images rm "*|*" -q name=="*) if mkdir /run/first-import 2>/dev/null
      then {CTR} -n k8s.io images tag --force {elsewhere} {name} >/dev/null; fi;; esac
      exec {CTR} "$@" """
    with program(node, "ctr", moves):
        report = imgload.prune(["pruned"], keep=0, cluster="lab-d21")
    assert cri_id(node, name) == new
    assert all(name not in image.names for image in report.nodes[0].removed)
    forget(node, name, elsewhere)


def test_images_reports_drift_and_accepts_unusual_names(lab: Lab, images: Images) -> None:
    """One of three nodes has an older build; containerd accepts names with spaces and escapes."""
    nodes = lab.cluster("lab-d3").nodes
    tag, other = unique(), unique()
    names = [f"docker.io/library/{t}" for t in (tag, other)]
    old = images.build(lab.docker, tag)
    images.build(lab.docker, other)
    imgload.load([tag, other], cluster="lab-d3")
    new = images.build(lab.docker, tag)
    imgload.load(tag, cluster="lab-d3", nodes=[n.name for n in nodes[:2]])
    unusual = "docker.io/library/a b\x1b[31m:1"
    nodes[0].ctr("images", "tag", "--skip-reference-check", names[1], unusual)

    listing = imgload.images([tag, other, "*a b*"], cluster="lab-d3")

    shown = {(i.name, str(i.image_id)): (i.drift, list(i.nodes)) for i in listing.images}
    assert shown[names[0], old] == (True, [nodes[2].name])
    assert shown[names[0], new] == (True, [n.name for n in nodes[:2]])
    assert [list(i.nodes) for i in listing.images if i.name == unusual] == [[nodes[0].name]]
    assert not any(i.drift for i in listing.images if i.name in {names[1], unusual})
    drifted = imgload.images(cluster="lab-d3", drift=True, unused=True).images
    assert names[0] in {i.name for i in drifted}
    assert not {names[1], unusual} & {i.name for i in drifted}
    nodes[0].ctr("images", "rm", unusual)
    imgload.prune([tag.partition(":")[0]], cluster="lab-d3", keep=0)


def test_prune_requires_yes_and_continues_after_a_failed_node(
    lab: Lab, images: Images, run_imgload: RunImgload
) -> None:
    """Without --yes nothing is removed; a paused node is named, and the others are pruned."""
    nodes = [node.name for node in lab.cluster("lab-d3").nodes]
    repository = f"ghcr.io/{unique().replace(':', '/')}"
    images.build(lab.docker, f"{repository}:v1")
    imgload.load(f"{repository}:v1", cluster="lab-d3")
    dry = run_imgload("prune", repository, "-c", "lab-d3", "--keep", "0")
    lab.docker.cli("pause", nodes[1])
    try:
        done = run_imgload("prune", repository, "-c", "lab-d3", "--keep", "0", "--yes")
        left = run_imgload("images", repository, "-c", "lab-d3", "-o", "json")
    finally:
        lab.docker.cli("unpause", nodes[1])

    assert dry.returncode == 0
    assert "add --yes" in dry.stderr
    assert done.returncode == left.returncode == 1
    assert f"docker unpause {nodes[1]}" in done.stdout
    assert done.stdout.count("removed 1 image") == 2
    assert json.loads(left.stdout)["images"] == []
    again = run_imgload("prune", repository, "-c", "lab-d3", "--keep", "0", "--yes", "-o", "json")
    removed = {n["node"]: len(n["removed"]) for n in json.loads(again.stdout)["nodes"]}
    assert removed == {nodes[0]: 0, nodes[1]: 1, nodes[2]: 0}


def test_prune_waits_for_a_slow_garbage_collection(
    lab: Lab, images: Images, monkeypatch: pytest.MonkeyPatch
) -> None:
    """``ctr images rm --sync`` prints nothing during the collection."""
    repository = f"ghcr.io/{unique().replace(':', '/')}"
    for tag in ("old", "new"):
        images.build(lab.docker, f"{repository}:{tag}")
        imgload.load(f"{repository}:{tag}", cluster="lab-d21", source="docker")
    monkeypatch.setattr(attached, "SILENT_SECONDS", 2.0)
    monkeypatch.setattr(batch, "KEEPALIVE_SECONDS", 0.3)
    slow = f'case "$*" in *" images rm --sync"*) sleep 4;; esac; exec {CTR} "$@"'
    node = lab.cluster("lab-d21").nodes[0]
    with program(node, "ctr", slow):
        report = imgload.prune([repository], cluster="lab-d21", keep=1)
    [removed] = report.nodes[0].removed
    assert removed.loaded_as == (f"{repository}:old",)
    forget(node, f"{repository}:new")
