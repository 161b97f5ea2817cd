"""What a failed load takes back on a node: only what it wrote itself."""

from __future__ import annotations

import subprocess
import sys
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager

import pytest

import imgload
from imgload.engines import exec_stream as attached
from tests.engine.aftermath import until
from tests.engine.conftest import Images, cri_id, forget, unique
from tests.lab import Lab, Node

CTR = "/usr/bin/ctr"
HALF = """
case "$*" in *" images import "*)
  if mkdir /run/first-import 2>/dev/null; then
    {before}
    {ctr} "$1" "$2" images import --no-unpack {local} >&2
    {after}
  fi
esac
exec {ctr} "$@"
"""
HOLD = "while [ -e /run/hold-import ]; do sleep 0.1; done"


@contextmanager
def program(node: Node, name: str, script: str) -> Iterator[None]:
    """Put a shell script before a program of the node's."""
    path = f"/usr/local/bin/{name}"
    node.exec("sh", "-c", f"cat >{path} && chmod +x {path}", stdin=f"#!/bin/sh\n{script}".encode())
    try:
        yield
    finally:
        node.exec("rm", "-rf", path, "/run/first-import", "/run/hold-import")


def half(*, before: str = ":", after: str = "exit 5") -> str:
    """Return a ctr whose first import names its image, does not unpack it, and fails."""
    local = "--local --snapshotter=overlayfs --platform=linux/amd64 -"
    return HALF.format(before=before, after=after, ctr=CTR, local=local)


def has(node: Node, name: str) -> bool:
    """Whether the node has a record of that name."""
    return bool(node.ctr("images", "ls", "-q", f"name=={name}").strip())


@pytest.mark.parametrize("first", ["large", "small"])
def test_the_last_load_that_succeeds_is_what_the_node_has(
    lab: Lab, images: Images, first: str
) -> None:
    """Two processes, two builds, one name; one takes long to unpack."""
    node, name = lab.cluster("lab-d21").nodes[0], f"docker.io/library/{unique()}"
    tags = {"large": unique(), "small": unique()}
    files = [{f"f{i}": str(i).encode() for i in range(20_000)}]
    ids = {
        "large": lab.docker.build(tags["large"], layers=files),
        "small": images.build(lab.docker, tags["small"]),
    }
    ended: list[tuple[str, int]] = []

    def load(which: str) -> None:
        command = [sys.executable, "-m", "imgload", "load", tags[which], "--as", name]
        done = subprocess.run([*command, "-c", "lab-d21"], capture_output=True, check=False)
        ended.append((which, done.returncode))

    other = "small" if first == "large" else "large"
    with ThreadPoolExecutor() as pool:
        running = pool.submit(load, first)
        until(lambda: has(node, name) or running.done(), 60)
        load(other)
        running.result()
    lab.docker.cli("rmi", "-f", tags["large"])
    last = [which for which, status in ended if status == 0][-1]
    assert cri_id(node, name) == ids[last]
    forget(node, name)


FAILURES = {
    "import failed": ("echo it is corrupt >&2; exit 5", imgload.ImportFailed),
    "node full": ("echo no space left on device >&2; exit 1", imgload.NodeFull),
    "stalled": ("sleep 8", imgload.NodeStalled),
}


@pytest.mark.parametrize("case", FAILURES.values(), ids=FAILURES)
@pytest.mark.parametrize("order", ["writes first", "overwrites"])
def test_a_failed_load_leaves_what_another_has_loaded_meanwhile(
    lab: Lab,
    images: Images,
    monkeypatch: pytest.MonkeyPatch,
    case: tuple[str, type[imgload.ImgloadError]],
    order: str,
) -> None:
    """Whether the failing one wrote the name before the other did, or after it."""
    (fails, kind), overwrites = case, order == "overwrites"
    node, tag = lab.cluster("lab-d21").nodes[0], unique()
    name, other = f"docker.io/library/{tag}", unique()
    images.build(lab.docker, tag)
    good = images.build(lab.docker, other)
    monkeypatch.setattr(attached, "UNPACK_SECONDS", 4 if kind is imgload.NodeStalled else 60)
    script = half(before=HOLD, after=fails) if overwrites else half(after=f"{HOLD}; {fails}")
    with program(node, "ctr", script), ThreadPoolExecutor() as pool:
        node.exec("touch", "/run/hold-import")
        failing = pool.submit(imgload.load, tag, cluster="lab-d21", transport="archive")
        until(lambda: "first-import" in node.exec("ls", "/run"))
        if not overwrites:
            until(lambda: has(node, name))
        assert imgload.load(other, cluster="lab-d21", name=tag).ok
        node.exec("rm", "-f", "/run/hold-import")
        with pytest.raises(imgload.LoadFailed) as caught:
            failing.result()
    assert isinstance(caught.value.report.images[0].nodes[0].error, kind)
    if not (overwrites and kind is imgload.NodeStalled):
        assert cri_id(node, name) == good
    forget(node, name)


@pytest.mark.parametrize("between", [None, unique()])
def test_a_name_goes_back_to_what_had_it(lab: Lab, images: Images, between: str | None) -> None:
    """Also in a kept loader whose survey is older than another tool's change of the name."""
    node, tag = lab.cluster("lab-d21").nodes[0], unique()
    name = f"docker.io/library/{tag}"
    with imgload.Loader.connect(cluster="lab-d21", source="docker") as loader:
        earlier = images.build(lab.docker, tag)
        assert loader.load([tag]).ok
        if between:
            earlier = images.build(lab.docker, between)
            assert imgload.load(between, cluster="lab-d21").ok
            node.ctr("images", "tag", "--force", f"docker.io/library/{between}", name)
        failed = images.build(lab.docker, tag)
        with program(node, "ctr", half()), pytest.raises(imgload.LoadFailed):
            loader.load([tag], transport="archive")
    assert cri_id(node, name) == earlier
    assert not has(node, failed)
    forget(node, name, *([f"docker.io/library/{between}"] if between else []))


def test_a_record_by_image_id_that_was_there_survives(lab: Lab, images: Images) -> None:
    """It was there for another name of the same image."""
    node, tag, other = lab.cluster("lab-d21").nodes[0], unique(), unique()
    name = f"docker.io/library/{tag}"
    image_id = images.build(lab.docker, tag)
    assert imgload.load(tag, cluster="lab-d21", name=other).ok
    assert has(node, image_id)
    fails = f'case "$*" in *" images tag "*) exit 3;; esac; exec {CTR} "$@"'
    with program(node, "ctr", fails), pytest.raises(imgload.LoadFailed):
        imgload.load(tag, cluster="lab-d21")
    assert not has(node, name)
    assert has(node, image_id)
    forget(node, f"docker.io/library/{other}")


def test_a_tag_that_fails_half_way_is_undone(lab: Lab, images: Images) -> None:
    """ctr of old deletes the record before it makes the new one."""
    node, tag, other = lab.cluster("lab-d21").nodes[0], unique(), unique()
    name = f"docker.io/library/{tag}"
    earlier = images.build(lab.docker, tag)
    assert imgload.load(tag, cluster="lab-d21").ok
    images.build(lab.docker, tag)
    assert imgload.load(tag, cluster="lab-d21", name=other).ok
    dies = f"""case "$*" in *" images tag --force"*) if mkdir /run/first-import 2>/dev/null; then
      {CTR} -n k8s.io images rm {name} >/dev/null; exit 137; fi;; esac; exec {CTR} "$@" """
    with program(node, "ctr", dies), pytest.raises(imgload.LoadFailed):
        imgload.load(tag, cluster="lab-d21")
    assert cri_id(node, name) == earlier
    forget(node, name, f"docker.io/library/{other}")


def test_a_pin_is_not_copied_to_a_further_name(lab: Lab, images: Images) -> None:
    """``ctr images tag`` copies all labels."""
    node, tag, other = lab.cluster("lab-d21").nodes[0], unique(), unique()
    name, pinned = f"docker.io/library/{tag}", f"docker.io/library/{other}"
    images.build(lab.docker, tag)
    assert imgload.load(tag, cluster="lab-d21", name=other).ok
    node.ctr("images", "label", pinned, "io.cri-containerd.pinned=pinned")
    report = imgload.load(tag, cluster="lab-d21")
    assert report.images[0].nodes[0].action == "tagged"
    assert "pinned=pinned" not in node.ctr("images", "ls", f"name=={name}")
    node.ctr("images", "label", pinned, "io.cri-containerd.pinned=")
    forget(node, name, pinned)


DEPRECATED = 'time="2026-11-29T03:00:00Z" level=warning msg="DEPRECATION: cgroup v1"'


def test_a_warning_is_not_the_reason_of_a_failure(lab: Lab, images: Images) -> None:
    """containerd 2.2 and later print theirs before anything else, and some at the end."""
    node, tag = lab.cluster("lab-d21").nodes[0], unique()
    images.build(lab.docker, tag)
    script = f"""echo '{DEPRECATED}' >&2
    case "$*" in *" images import "*) cat >/dev/null; echo 'ctr: it is corrupt' >&2
      echo '{DEPRECATED}' >&2; exit 1;; esac; exec {CTR} "$@" """
    with program(node, "ctr", script), pytest.raises(imgload.LoadFailed) as caught:
        imgload.load(tag, cluster="lab-d21")
    error = caught.value.report.images[0].nodes[0].error
    assert isinstance(error, imgload.ImportFailed)
    assert error.message.endswith("ctr: it is corrupt")


def _refused(tag: str) -> imgload.ImgloadError:
    """Load, and return why the one node was refused."""
    try:
        report = imgload.load(tag, cluster="lab-d21")
    except imgload.LoadFailed as error:
        report = error.report
    except imgload.ImgloadError as error:
        return error
    found = report.images[0].nodes[0].error
    assert found
    return found


def test_a_snapshotter_that_cannot_be_read_fails_the_load(lab: Lab, images: Images) -> None:
    """An image unpacked for a guessed one might be of no use to pods."""
    node, tag = lab.cluster("lab-d21").nodes[0], unique()
    images.build(lab.docker, tag)
    with program(node, "containerd", 'case "$*" in *dump*) exit 1;; esac'):
        error = _refused(tag)
    assert isinstance(error, imgload.NodeUnusable)
    assert "config dump" in error.hint
    assert not has(node, f"docker.io/library/{tag}")


def test_crictls_own_settings_do_not_matter(lab: Lab, images: Images) -> None:
    """They may name another socket, as seen on nodes shaped by k3d."""
    node, tag = lab.cluster("lab-d21").nodes[0], unique()
    images.build(lab.docker, tag)
    settings = b"runtime-endpoint: unix:///run/nowhere.sock\nimage-endpoint: unix:///run/no.sock\n"
    node.exec("sh", "-c", "cat >/etc/crictl.yaml", stdin=settings)
    try:
        proof = imgload.load(tag, cluster="lab-d21").images[0].nodes[0].proof
    finally:
        node.exec("rm", "/etc/crictl.yaml")
    assert proof
    assert proof.cri is True
    forget(node, f"docker.io/library/{tag}")


def test_a_crictl_that_does_not_connect_is_an_error_of_its_own(lab: Lab, images: Images) -> None:
    """It says nothing about the image."""
    node, tag = lab.cluster("lab-d21").nodes[0], unique()
    images.build(lab.docker, tag)
    crictl = node.exec("cat", "/usr/local/bin/crictl")
    silent = crictl.replace('$# "$@"', "2 -r unix:///run/nowhere.sock info").replace("2 -r", "3 -r")
    try:
        with program(node, "crictl", silent.removeprefix("#!/bin/sh\n")):
            error = _refused(tag)
    finally:
        path = "/usr/local/bin/crictl"
        node.exec("sh", "-c", f"cat >{path} && chmod +x {path}", stdin=crictl.encode())
    assert isinstance(error, imgload.NodeUnusable)
    assert "nowhere.sock" in error.message


def test_a_kept_loader_hears_of_another_snapshotter(lab: Lab, images: Images) -> None:
    """containerd was started again with another configuration."""
    cluster = lab.make_cluster(name="lab-again", engine="docker")
    node, tag = cluster.nodes[0], unique()
    try:
        with imgload.Loader.connect(cluster="lab-again", source="docker") as loader:
            images.build(lab.docker, tag)
            assert loader.load([tag]).ok
            node.exec("sed", "-i", 's/= "overlayfs"/= "native"/', "/etc/containerd/config.toml")
            node.exec("sh", "-c", "kill $(pidof containerd)")
            threading.Event().wait(1)
            node.wait()
            image_id = images.build(lab.docker, tag)
            assert loader.load([tag]).ok
        assert "Committed" in node.ctr("snapshots", "--snapshotter", "native", "ls")
        assert cri_id(node, f"docker.io/library/{tag}") == image_id
    finally:
        cluster.remove()
