"""Errors name the operation, the object and the reason, and suggest a command."""

from __future__ import annotations

import json
import os
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

import imgload
from imgload.core.errors import NodeFull, NodeNotRunning, NodeUnusable
from tests.engine.conftest import Images, cri_id, records, unique
from tests.engine.remote import open_folder, run_as
from tests.lab import Lab

MIB = 1 << 20


def run(*args: str, **environ: str) -> subprocess.CompletedProcess[str]:
    """Run the command."""
    return subprocess.run(
        [sys.executable, "-m", "imgload", *args],
        env={**os.environ, **environ},
        capture_output=True,
        text=True,
        check=False,
    )


@pytest.fixture
def clusters(lab: Lab) -> None:
    """Start two clusters, so that one must be selected."""
    lab.up("lab-d21", "lab-p21")


@pytest.mark.usefixtures("clusters")
@pytest.mark.parametrize(
    ("args", "status", "message", "hint"),
    [
        (["nosuch:v1", "-c", "lab-d21"], 3, "no image 'nosuch:v1' in docker at", "docker images"),
        (["Not/A:Name!", "-c", "lab-d21"], 2, "not an image name", "as in a pod spec"),
        (["app:v1", "-c", "nosuch"], 4, "no cluster 'nosuch'", "--cluster NAME"),
        (["app:v1", "-c", "lab-d21", "-n", "x"], 4, "no node x", "--node"),
        (["app:v1", "--from", "/nosuch", "-c", "lab-d21"], 2, "no such file", "docker save"),
        (["app:v1", "--from", "dcoker", "-c", "lab-d21"], 2, "no such source", "--from docker"),
        (["absent.tar", "-c", "lab-d21"], 2, "no such file: 'absent.tar'", "check the path"),
        (["app:v1", "--platform", "a b", "-c", "lab-d21"], 2, "not a platform", "os/arch"),
        (["app:v1"], 4, "several clusters", "--cluster NAME"),
        (["--from", "docker", "-c", "lab-d21"], 2, "no image given", "name an image"),
    ],
)
def test_wrong_usage_is_explained(args: list[str], status: int, message: str, hint: str) -> None:
    """One line with the reason, one with a hint, and the exit status."""
    done = run("load", *args)
    assert done.returncode == status
    assert message in done.stderr
    assert hint in done.stderr
    assert "Traceback" not in done.stderr
    assert not done.stdout


@pytest.mark.usefixtures("clusters")
def test_an_error_is_one_json_document() -> None:
    """With --output json, stdout contains only the document, also after a failure."""
    done = run("load", "nosuch:v1", "-c", "lab-d21", "-o", "json")
    document = json.loads(done.stdout)
    assert done.returncode == 3
    assert document["ok"] is False
    assert document["error"]["kind"] == "image-not-found"


def test_a_dead_engine_is_named(lab: Lab, tmp_path: Path) -> None:
    """Exit status 5; the error names the socket and the variable."""
    dead = f"unix://{tmp_path}/dead.sock"
    done = run("load", "app:v1", "-c", "x", DOCKER_HOST=dead, CONTAINER_HOST=dead)
    assert done.returncode == 5
    assert dead in done.stderr
    assert "DOCKER_HOST" in done.stderr
    other = run("load", "app:v1", "--from", "podman", "-c", "lab-d21", CONTAINER_HOST=dead)
    assert other.returncode == 5
    assert lab.docker.url not in other.stderr


def test_a_socket_without_permission_is_reported(lab: Lab) -> None:
    """Not as "not found", and not as "is the daemon running"."""
    with open_folder() as home:
        args = ("load", "app:v1", "-c", "lab-d21", "-o", "json")
        done = run_as("nobody", *args, HOME=str(home), DOCKER_HOST=lab.docker.url)
    error = json.loads(done.stdout)["error"]
    assert (done.returncode, error["kind"]) == (5, "engine-not-permitted")
    assert "usermod -aG docker" in error["hint"]


@pytest.mark.parametrize(("command", "word"), [("stop", "exited"), ("pause", "paused")])
def test_a_node_that_does_not_run_is_reported(
    lab: Lab, images: Images, command: str, word: str
) -> None:
    """The other nodes are loaded; exit status 1; the hint starts the node (k3d #900)."""
    cluster = lab.make_cluster(name="lab-off", engine="docker", roles=("control-plane", "worker"))
    tag = unique()
    image_id = images.build(lab.docker, tag)
    try:
        lab.docker.cli(command, "lab-off-worker")
        with pytest.raises(imgload.LoadFailed) as caught:
            imgload.load(tag, cluster="lab-off")
        good, bad = caught.value.report.images[0].nodes
        assert good.ok
        assert cri_id(cluster.nodes[0], f"docker.io/library/{tag}") == image_id
        assert isinstance(bad.error, NodeNotRunning)
        assert word in bad.error.message
        assert bad.error.hint.startswith("docker ")
        assert bad.error.hint.endswith("start lab-off-worker" if command == "stop" else "worker")
    finally:
        cluster.remove()


@pytest.mark.parametrize("engine", ["docker", "podman"])
@pytest.mark.parametrize(("var_size", "size"), [("60m", 80), ("100m", 60)])
def test_a_full_node_is_clean_afterwards(
    lab: Lab, images: Images, engine: str, var_size: str, size: int
) -> None:
    """The disk is full before the transfer, or during the unpack (#2108, #2402, #3479).

    The message states the needed and the free space, or containerd's error. No name refers to an
    incomplete image.
    """
    cluster = lab.make_cluster(name=f"lab-full-{engine}", engine=engine, var_size=var_size)
    node = cluster.nodes[0]
    tag = unique()
    images.build(lab.docker, tag, os.urandom(size * MIB))
    try:
        before = records(node)
        with pytest.raises(imgload.LoadFailed) as caught:
            imgload.load(tag, cluster=cluster.name, source="docker")
        error = caught.value.report.images[0].nodes[0].error
        assert isinstance(error, NodeFull)
        assert "space" in error.message or "MiB are needed" in error.message
        assert error.hint
        assert records(node) == before
        assert cri_id(node, f"docker.io/library/{tag}") is None
        assert "imgload" not in node.exec("ls", "/var/lib", "/tmp", "/run")
    finally:
        cluster.remove()


def test_a_failed_load_restores_the_name(lab: Lab, images: Images) -> None:
    """A pod still gets the previous image."""
    cluster = lab.make_cluster(name="lab-back", engine="docker", var_size="100m")
    node, tag = cluster.nodes[0], unique()
    old = images.build(lab.docker, tag)
    try:
        imgload.load(tag, cluster="lab-back")
        images.build(lab.docker, tag, os.urandom(60 * MIB))
        with pytest.raises(imgload.LoadFailed):
            imgload.load(tag, cluster="lab-back")
        assert cri_id(node, f"docker.io/library/{tag}") == old
        assert imgload.load(old, cluster="lab-back").images[0].nodes[0].action == "present"
    finally:
        cluster.remove()


def test_a_node_without_containerd_is_reported(lab: Lab, images: Images) -> None:
    """NodeUnusable; the hint is the command that prints containerd's log on this node."""
    cluster = lab.make_cluster(name="lab-dead", engine="docker")
    tag = unique()
    images.build(lab.docker, tag)
    try:
        cluster.nodes[0].exec("sh", "-c", "rm /run/containerd/containerd.sock")
        with pytest.raises(imgload.LoadFailed) as caught:
            imgload.load(tag, cluster="lab-dead")
        error = caught.value.report.images[0].nodes[0].error
        assert isinstance(error, NodeUnusable)
        host = {**os.environ, "DOCKER_HOST": lab.docker.url}
        command = shlex.split(error.hint)
        printed = subprocess.run(command, env=host, capture_output=True, text=True, check=True)
        assert "level=info" in printed.stdout
    finally:
        cluster.remove()
