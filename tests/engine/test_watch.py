"""`imgload watch`: load images that any tool builds."""

from __future__ import annotations

import os
import queue
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

import docker
import pytest

import imgload
from imgload.engines import http_engine as rest
from tests.engine.conftest import Images, cri_id, forget, unique
from tests.engine.jsonlines import JsonLines
from tests.engine.relay import Fault, relay
from tests.engine.test_load import config_digest
from tests.lab import Cluster, Lab, suites
from tests.lab.engine import Engine
from tests.lab.shell import run

_PATIENCE = 30.0


class Watcher(JsonLines):
    """A running `imgload watch -o json`, and its output."""

    def next(self, *wanted: str) -> dict[str, Any]:
        """Return the next document that has one of these keys."""
        return self.next_where(lambda found: any(key in found for key in wanted))

    def noted(self, text: str) -> str:
        """Return the next note that contains the text."""
        while text not in (note := str(self.next("note")["note"])):
            pass
        return note

    def loaded(self) -> dict[str, Any]:
        """Return the next load."""
        return self.next("images")


@contextmanager
def watching(*arguments: str) -> Iterator[Watcher]:
    command = [sys.executable, "-m", "imgload", "watch", "-o", "json", *arguments]
    with subprocess.Popen(
        command, env=os.environ, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True
    ) as process:
        watcher = Watcher.reading(process)
        try:
            watcher.noted("watching")
            yield watcher
        finally:
            process.kill()


@pytest.mark.parametrize(
    ("source", "cluster"), [("docker", "lab-d3"), ("podman", "lab-p3"), ("docker28", "lab-d21")]
)
def test_a_built_or_tagged_image_is_loaded(
    lab: Lab, images: Images, source: str, cluster: str
) -> None:
    """Each build is loaded once and verified; other names are ignored; rebuilds send kilobytes.

    If builds are faster than loads, only the newest is loaded.
    """
    engine, nodes = lab.engine(source), lab.cluster(cluster).nodes
    tag, base = unique(), unique("base")
    repository = tag.partition(":")[0] + "-" + tag.partition(":t")[2]
    images.build(engine, base, b"x" * 300_000)
    with watching(repository, "-c", cluster, "--from", engine.url) as watcher:
        images.build(engine, unique("other"))
        for turn in range(2):
            images.build(engine, f"{repository}:dev", b"new", base=base)
            document = watcher.loaded()
            assert document["ok"], document
            assert document["references"] == [f"{repository}:dev"]
            results = document["images"][0]["nodes"]
            assert [result["node"] for result in results] == [node.name for node in nodes]
            assert all(result["bytes_sent"] < 50_000 for result in results if turn)
        assert (
            cri_id(nodes[-1], f"docker.io/library/{repository}:dev")
            == (document["images"][0]["image_id"])
        )
        engine.cli("tag", f"{repository}:dev", f"{repository}:two")
        document = watcher.loaded()
        assert document["references"] == [f"{repository}:two"]
        assert {n["action"] for n in document["images"][0]["nodes"]} == {"tagged"}
        watcher.process.send_signal(signal.SIGSTOP)
        newest = [images.build(engine, f"{repository}:dev", base=base) for _ in range(3)][-1]
        watcher.process.send_signal(signal.SIGCONT)
        document = watcher.loaded()
        assert document["images"][0]["image_id"] == config_digest(engine, newest)
        assert watcher.stop() == 0
        assert watcher.lines.empty()
    engine.cli("rmi", f"{repository}:two")
    for node in nodes:
        forget(node, f"docker.io/library/{repository}:dev", f"docker.io/library/{repository}:two")


def test_loads_are_lines_on_stdout_and_notes_on_stderr(
    lab: Lab, images: Images, tmp_path: Path
) -> None:
    """So that `imgload watch app | tee log` records the loads, each when it ends."""
    tag, node, log = unique(), lab.cluster("lab-d21").nodes[0], tmp_path / "log"
    command = ["watch", tag, "-c", "lab-d21", "--from", lab.docker.url]
    with (
        log.open("w") as stderr,
        subprocess.Popen(
            [sys.executable, "-m", "imgload", *command],
            stdout=subprocess.PIPE,
            stderr=stderr,
            text=True,
        ) as process,
    ):
        while "watching docker" not in log.read_text():
            time.sleep(0.05)
        images.build(lab.docker, tag)
        assert process.stdout
        assert f" {tag} " in process.stdout.readline()
        process.send_signal(signal.SIGINT)
        assert (process.stdout.read(), process.wait(_PATIENCE)) == ("", 0)
    assert [line.split()[0] for line in log.read_text().splitlines()][1:] == ["stopped"]
    forget(node, f"docker.io/library/{tag}")


@pytest.mark.parametrize("source", ["docker", "podman"])
def test_an_image_loaded_into_an_engine_is_loaded_onto_the_nodes(
    lab: Lab, images: Images, source: str
) -> None:
    """The event has only an ID in Docker, and only a file name in Podman 4.3."""
    engine, node = lab.engine(source), lab.cluster("lab-d21").nodes[0]
    tag = unique()
    image_id = images.build(engine, tag)
    saved = engine.raw("save", tag)
    engine.remove_image(tag)
    with watching(tag, "-c", "lab-d21", "--from", engine.url) as watcher:
        engine.cli("load", stdin=saved)
        assert watcher.loaded()["images"][0]["image_id"] == image_id
    forget(node, f"docker.io/library/{tag}")


def test_builds_without_docker_events_are_detected(
    lab: Lab, images: Images, tmp_path: Path
) -> None:
    """Docker 20.10 has no event for builds with BuildKit (moby #45404)."""
    buildx = suites.tree(lab.paths.cache, "buildx", "0.13")
    plugins = tmp_path / "docker" / "cli-plugins"
    plugins.mkdir(parents=True)
    (plugins / "docker-buildx").symlink_to(buildx / "usr/libexec/docker/cli-plugins/docker-buildx")
    tag, node = unique(), lab.cluster("lab-d21").nodes[0]
    (tmp_path / "Dockerfile").write_text(f"FROM scratch\nLABEL tag={tag}\nCOPY Dockerfile /\n")
    with watching(tag, "-c", "lab-d21", "--from", "docker") as watcher:
        environ = {"DOCKER_CONFIG": str(tmp_path / "docker"), "DOCKER_BUILDKIT": "1"}
        run(*lab.docker.client, "build", "-q", "-t", tag, tmp_path, env=environ)
        assert watcher.loaded()["images"][0]["image_id"] == lab.docker.image_id(tag)
        images.build(lab.docker, tag)
        assert watcher.loaded()["images"][0]["image_id"] == lab.docker.image_id(tag)
        time.sleep(1)
        assert watcher.lines.empty(), "an image with an event is loaded once"
    forget(node, f"docker.io/library/{tag}")


@pytest.fixture
def watched(lab: Lab) -> Iterator[Callable[..., Cluster]]:
    """Return a function that creates the cluster `lab-watched` again."""
    made: list[Cluster] = []

    def make(*, crictl: bool = True) -> Cluster:
        made.append(lab.make_cluster(name="lab-watched", engine="docker", crictl=crictl))
        return made[-1]

    yield make
    for cluster in made[-1:]:
        cluster.remove()


@pytest.fixture
def stoppable(lab: Lab) -> Iterator[Engine]:
    """Podman, which is started again at the end."""
    yield lab.podman
    lab.podman.daemon.start()


def test_a_watch_continues_after_an_engine_restart_and_a_new_cluster(
    images: Images, stoppable: Engine, watched: Callable[[], Cluster]
) -> None:
    """One note; images that were built meanwhile are loaded, and new nodes get all images."""
    first, second, third = unique("a"), unique("b"), unique("c")
    cluster = watched()
    with watching(first, second, third, "-c", "lab-watched", "--from", stoppable.url) as watcher:
        images.build(stoppable, first)
        assert watcher.loaded()["ok"]
        stoppable.daemon.stop()
        assert "waiting" in watcher.noted("podman at")
        images.build(stoppable, second)
        stoppable.daemon.start()
        watcher.noted("is back")
        assert watcher.loaded()["references"] == [second]

        cluster.remove()
        images.build(stoppable, third)
        assert watcher.loaded()["error"]["kind"] == "cluster-not-found"
        node = watched().nodes[0]
        while not (document := watcher.loaded())["ok"]:
            pass  # the new node may not be ready at the first attempt
        assert set(document["references"]) == {first, second, third}
        for tag in (first, second, third):
            assert cri_id(node, f"docker.io/library/{tag}") == stoppable.image_id(tag)
        assert watcher.stop(signal.SIGINT) == 0


@pytest.mark.parametrize("source", ["docker28", "docker28-graphdriver"])
def test_missing_images_are_loaded_with_the_next_image(
    lab: Lab, images: Images, watched: Callable[[], Cluster], source: str
) -> None:
    """A recreated cluster gets the loaded images, and the images of a failed load."""
    engine, cluster = lab.engine(source), watched()
    first, second, third = unique("a"), unique("b"), unique("c")
    with watching(first, second, third, "-c", "lab-watched", "--from", engine.url) as watcher:
        for _ in range(2):
            images.build(engine, first)
            assert watcher.loaded()["ok"]
        cluster.remove()
        images.build(engine, second)
        assert watcher.loaded()["error"]["kind"] == "cluster-not-found"
        node = watched().nodes[0]
        images.build(engine, third)
        loaded: set[str] = set()
        while loaded != {first, second, third}:  # a retry may come early, and fail
            document = watcher.loaded()
            loaded |= set(document["references"]) if document["ok"] else set()
        for tag in (first, second, third):
            assert cri_id(node, f"docker.io/library/{tag}") == config_digest(engine, tag)
        images.build(engine, second)
        assert watcher.loaded()["references"] == [second]
        assert watcher.stop() == 0


@contextmanager
def watched_here(
    pattern: str, cluster: str, source: str
) -> Iterator[queue.SimpleQueue[imgload.WatchedLoad | imgload.Note]]:
    """Watch in this process, so that timeouts can be patched."""
    events: queue.SimpleQueue[imgload.WatchedLoad | imgload.Note] = queue.SimpleQueue()

    def run() -> None:
        for event in imgload.watch(pattern, cluster=cluster, source=source):
            events.put(event)

    threading.Thread(target=run, daemon=True).start()
    assert isinstance(events.get(timeout=_PATIENCE), imgload.Note)
    yield events


def next_load(events: queue.SimpleQueue[imgload.WatchedLoad | imgload.Note]) -> imgload.WatchedLoad:
    """Return the next load."""
    while not isinstance(event := events.get(timeout=_PATIENCE), imgload.WatchedLoad):
        pass
    return event


@pytest.mark.parametrize("source", ["docker28", "podman", "docker"])
def test_a_build_during_a_dead_connection_is_loaded_once(
    lab: Lab, images: Images, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, source: str
) -> None:
    """Such a connection reports no error; imgload ends it after a silence."""
    monkeypatch.setattr(rest, "_QUIET_SECONDS", 3.0)
    cluster = {"docker": "lab-d21", "docker28": "lab-e21", "podman": "lab-p21"}[source]
    lab.up(cluster)
    engine, tag = lab.engine(source), unique()
    if source == "docker28":
        monkeypatch.setenv("DOCKER_HOST", engine.url)
    with (
        relay(engine, tmp_path) as proxy,
        watched_here(tag, cluster, proxy.url) as events,
    ):
        images.build(engine, tag)
        assert next_load(events).error is None
        proxy.freeze("/events")
        built = images.build(engine, tag)
        load = next_load(events)
        assert load.error is None
        assert load.report
        [image] = load.report.images
        assert str(image.image_id) == config_digest(engine, built)
        opened = sum("/events" in request for request in proxy.requests)
        while sum("/events" in request for request in proxy.requests) < opened + 2:
            time.sleep(0.1)
        assert events.empty(), "repeated events cause no load"
    forget(lab.cluster(cluster).nodes[0], f"docker.io/library/{tag}")


def test_builds_with_lost_events_are_detected_by_their_names(
    lab: Lab, images: Images, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Docker stores the last 256 events of all kinds."""
    monkeypatch.setattr(rest, "_QUIET_SECONDS", 3.0)
    monkeypatch.setenv("DOCKER_HOST", lab.docker28.url)
    tag = unique()
    repository, version = tag.split(":")
    lab.up("lab-e21")
    with (
        relay(lab.docker28, tmp_path) as proxy,
        watched_here(tag, "lab-e21", proxy.url) as events,
    ):
        proxy.freeze("/events")
        images.build(lab.docker28, tag)
        with closing(docker.DockerClient(lab.docker28.url)) as client:
            for number in range(130):
                client.api.tag(tag, repository, f"{version}-{number}")
                client.api.remove_image(f"{tag}-{number}")
        assert next_load(events).references == (tag,)
    forget(lab.cluster("lab-e21").nodes[0], f"docker.io/library/{tag}")


def test_a_failed_lookup_is_retried(lab: Lab, images: Images, tmp_path: Path) -> None:
    """Docker's event has only the ID of an image that was loaded from an archive."""
    tag = unique()
    images.build(lab.docker, tag)
    saved = lab.docker.raw("save", tag)
    lab.docker.remove_image(tag)
    fault = Fault("GET .*/images/sha256:[0-9a-f]*/json", "cut")
    lab.up("lab-d21")
    with (
        relay(lab.docker, tmp_path, fault) as proxy,
        watched_here(tag, "lab-d21", proxy.url) as events,
    ):
        lab.docker.cli("load", stdin=saved)
        load = next_load(events)
        assert fault.reached.is_set()
        assert (load.references, load.error) == ((tag,), None)
    forget(lab.cluster("lab-d21").nodes[0], f"docker.io/library/{tag}")


def test_a_failed_load_is_retried_without_another_build(
    lab: Lab, images: Images, watched: Callable[..., Cluster]
) -> None:
    """A continuing failure is reported once, and the successful load afterwards.

    The lab's crictl does not work after a restart of the node.
    """
    tag, node = unique(), watched(crictl=False).nodes[0]
    with watching(tag, "-c", "lab-watched", "--from", lab.docker.url) as watcher:
        lab.docker.cli("stop", "-t", "0", node.name)
        images.build(lab.docker, tag)
        assert not watcher.loaded()["ok"]
        lab.docker.cli("start", node.name)
        while not (document := watcher.loaded())["ok"]:
            pass  # the node may not be ready at the first attempt
        assert document["references"] == [tag]
