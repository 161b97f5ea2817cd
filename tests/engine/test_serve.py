"""`imgload serve`: nodes pull what an engine has built, and everything else as before."""

from __future__ import annotations

import json
import os
import platform
import re
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from urllib.request import Request, urlopen

import pytest

from imgload.oci.document import INDEX, MANIFEST
from imgload.oci.platform import Platform
from tests.engine.aftermath import leftover_tags
from tests.engine.conftest import Images, forget, unique
from tests.engine.jsonlines import JsonLines
from tests.engine.test_load import config_digest
from tests.engine.test_registry import CERTS, put, state
from tests.engine.test_registry_restart import UNREAD
from tests.lab import Cluster, Lab, Node
from tests.lab.cri import CriError
from tests.lab.engine import Engine
from tests.lab.registry import Registry
from tests.lab.registry import registry as running

HOST = re.compile(r'\[host\."http://([\d.]+):(\d+)/v2/([0-9a-f]{32})"\]')
"""The address, the port, and the secret of a node in its hosts.toml."""
_BASE_BYTES = 3_000_000
_SOME_BYTES = 20_000_000


@pytest.fixture(scope="module")
def registry(lab: Lab, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Registry]:
    """A registry that the nodes of the lab's Docker can reach."""
    with running(lab.docker, tmp_path_factory.mktemp("registry")) as started:
        yield started


class Server(JsonLines):
    """A running `imgload serve -o json`, and its output."""

    def next(self, key: str, *values: str | None) -> dict[str, Any]:
        """Return the next document with a key, and one of these values if there are any."""
        return self.next_where(lambda found: key in found and (not values or found[key] in values))

    def errors(self) -> list[dict[str, Any]]:
        """Return the documents up to now that have an error."""
        documents = [self.lines.get_nowait() for _ in range(self.lines.qsize())]
        return [document for document in documents if document.get("error")]


@contextmanager
def serving(*arguments: str, nodes: int = 1) -> Iterator[Server]:
    """Run `imgload serve` until the end of the block, once so many nodes are set up."""
    command = [sys.executable, "-m", "imgload", "serve", "-o", "json", *arguments]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        server = Server.reading(process)
        try:
            for _ in range(nodes):
                ready = server.next("restarted")
                assert ready["ok"], ready
            yield server
        finally:
            process.terminate()


def run(*arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "imgload", "serve", *arguments]
    return subprocess.run(command, capture_output=True, text=True, check=False)


def pull(node: Node, name: str) -> tuple[str, float]:
    """Return the image ID that CRI has pulled, and the seconds that it took."""
    began = time.monotonic()
    return node.cri().pull_image(name), time.monotonic() - began


def upstream(node: Node, registry: Registry) -> None:
    """Configure a node for the registry, as its user would: containerd expects https."""
    text = f'server = "{registry.url}"\n\n[host."{registry.url}"]\n  capabilities = ["pull"]\n'
    put(node, f"{CERTS}/{registry.address}/hosts.toml", text)


@pytest.mark.parametrize(
    ("source", "cluster"),
    [
        ("docker", "lab-d21"),
        ("podman", "lab-d17"),
        ("docker28", "lab-d21"),
        ("docker", "lab-d17"),
        ("podman", "lab-d21"),
        ("docker28", "lab-d17"),
        ("docker28-graphdriver", "lab-d21"),
        ("docker28-graphdriver", "lab-d17"),
        ("docker", "lab-d16"),
        ("podman", "lab-p21"),
    ],
)
def test_a_node_pulls_what_an_engine_has_built(
    lab: Lab, images: Images, source: str, cluster: str
) -> None:
    """A rebuild transfers only its own layer, and the node is as before in the end."""
    engine, node = lab.engine(source), lab.cluster(cluster).nodes[0]
    tag, base = unique(), unique("base")
    images.build(engine, base, os.urandom(_BASE_BYTES))
    before = state(node)
    with serving("-c", cluster, "--from", engine.url) as server:
        for turn in range(2):
            images.build(engine, tag, b"new", base=base)
            wanted = config_digest(engine, tag)
            assert pull(node, tag)[0] == wanted
            served = server.next("image_id")
            assert (served["node"], served["reference"], served["image_id"], served["ok"]) == (
                (node.name, tag, wanted, True)
            )
            assert (served["bytes_sent"] < _BASE_BYTES) == bool(turn)
        assert pull(node, f"docker.io/library/{tag}")[0] == wanted
        assert leftover_tags(engine) == []
        assert server.stop() == 0
    assert state(node) == before
    forget(node, tag, wanted)


def test_an_image_that_does_not_fit_into_the_cache_leaves_nothing(
    lab: Lab, images: Images, tmp_path: Path
) -> None:
    """The transfer ends at the limit; another image is served."""
    node, engine = lab.cluster("lab-d21").nodes[0], lab.engine("docker28")
    large, small = unique("large"), unique("small")
    images.build(engine, large, bytes(_SOME_BYTES))
    images.build(engine, small)
    limit = ("--cache-size", "10MB")
    with serving("-c", "lab-d21", "--from", engine.url, *limit) as server:
        with pytest.raises(CriError):
            node.cri().pull_image(large)
        refused = server.next("reference", large)
        assert "--cache-size" in refused["error"]["hint"]
        assert pull(node, small)[0] == config_digest(engine, small)
    assert not list((tmp_path / "cache/imgload/blobs").glob(".partial-*"))
    assert leftover_tags(engine) == []
    forget(node, small)


def test_serve_prints_pulls_on_stdout_and_its_decisions_on_stderr(
    lab: Lab, images: Images, tmp_path: Path
) -> None:
    """With --verbose: the requests of nodes, why a name is not served, and the cache."""
    node, tag = lab.cluster("lab-d21").nodes[0], unique()
    images.build(lab.docker, tag)
    arguments = ("-c", "lab-d21", "--from", lab.docker.url, "-v")
    command = [sys.executable, "-m", "imgload", "serve", *arguments]
    log = tmp_path / "log"
    with (
        log.open("w") as stderr,
        subprocess.Popen(command, stdout=subprocess.PIPE, stderr=stderr, text=True) as process,
    ):
        assert process.stdout
        ready = process.stdout.readline()
        pull(node, tag)
        with pytest.raises(CriError):
            node.cri().pull_image("127.0.0.1:1/none:v1")
        pulled = process.stdout.readline()
        process.send_signal(signal.SIGINT)
        assert process.stdout.read() == ""
    assert f"✓ {node.name}: CRI pulls through imgload" in ready
    assert f"{tag} -> {node.name}: " in pulled
    printed = log.read_text()
    path = tag.replace(":", "/manifests/")
    assert re.search(rf"{node.name}: HEAD /v2/\*\*\*/library/{path}\?ns=docker.io: 200 ", printed)
    assert f"{tag}: docker at {lab.docker.url} saves it into the cache: " in printed
    assert "127.0.0.1:1/none:v1 is not served: no engine has it" in printed
    assert not re.search(r"/v2/[0-9a-f]{32}", printed)
    forget(node, tag)


def test_other_images_come_from_their_registry(
    lab: Lab, images: Images, registry: Registry
) -> None:
    """Within a second, also with the server killed; `--stop` restores every byte."""
    node, tag = lab.cluster("lab-d21").nodes[0], unique()
    images.build(lab.docker, tag)
    wanted = lab.docker.image_id(tag)
    remote, local = f"{registry.address}/{tag}", f"{registry.address}/{unique('local')}"
    _push(lab.docker, tag, registry)
    images.build(lab.docker, local)
    upstream(node, registry)
    before = state(node)
    with serving("-c", "lab-d21", "--from", lab.docker.url) as server:
        image_id, seconds = pull(node, remote)
        assert (image_id, seconds < 1) == (wanted, True)
        assert tag.replace(":", "/manifests/") in registry.requests
        assert pull(node, local)[0] == lab.docker.image_id(local)
        with pytest.raises(CriError, match="not found") as nobody_has_it:
            node.cri().pull_image(f"{registry.address}/nobody:none")
        assert nobody_has_it.value.code == "NotFound"
        assert "nobody/manifests/none" in registry.requests
        server.stop(signal.SIGKILL)
    assert state(node) != before
    forget(node, remote)
    image_id, seconds = pull(node, remote)
    assert (image_id, seconds < 1) == (wanted, True)
    stopped = run("--stop", "-o", "json")
    assert (stopped.returncode, json.loads(stopped.stdout)["stopped"]) == (0, False)
    assert state(node) == before
    forget(node, remote, local)
    node.exec("rm", "-r", f"{CERTS}/{registry.address}")


def _push(engine: Engine, tag: str, registry: Registry) -> None:
    """Push with imgload, which needs no insecure registry in the engine's configuration."""
    command = ["registry", "push", tag, "--to", registry.url, "--from", engine.url]
    subprocess.run([sys.executable, "-m", "imgload", *command], check=True)


@pytest.mark.parametrize("kind", ["1.7"])
def test_a_node_is_changed_with_a_restart_only_if_that_is_allowed(
    lab: Lab, images: Images, kind: str
) -> None:
    """A node that appears while the server runs is set up; the end restores containerd, too."""
    name, tag = "lab-late", unique()
    images.build(lab.docker, tag)
    with serving("-c", name, "--from", lab.docker.url, "--restart-containerd", nodes=0) as server:
        cluster = _unread_cluster(lab, name, kind)
        try:
            node = cluster.nodes[0]
            before = state(node)
            ready = server.next("restarted")
            assert (ready["ok"], ready["restarted"], ready["cri"]) == (True, True, True)
            assert pull(node, tag)[0] == lab.docker.image_id(tag)
            assert server.stop() == 0
            assert state(node) == before
            with serving("-c", name, "--from", lab.docker.url, nodes=0) as second:
                refused = second.next("restarted")
                assert refused["error"]["kind"] == "node-unusable"
                assert "--restart-containerd" in refused["error"]["hint"]
            assert state(node) == before
        finally:
            cluster.remove()


def _unread_cluster(lab: Lab, name: str, kind: str) -> Cluster:
    options = {"containerd": kind, "config": UNREAD[kind], "crictl": True}
    return lab.make_cluster(name=name, engine="docker", **options)


@pytest.mark.long
def test_a_node_is_set_up_soon_after_its_containerd_starts(lab: Lab) -> None:
    """As in a new cluster; the first attempt fails."""
    cluster = lab.make_cluster(name="lab-late", engine="docker")
    node = cluster.nodes[0]
    os.kill(node.pid, signal.SIGSTOP)  # or else it starts containerd again
    node.exec("sh", "-c", "kill -KILL $(pidof containerd)")
    with serving("-c", "lab-late", nodes=0) as server:
        assert not server.next("restarted")["ok"]
        os.kill(node.pid, signal.SIGCONT)
        assert server.next("restarted")["ok"]
    cluster.remove()


@pytest.mark.long
def test_clusters_and_engines_may_come_and_go(
    lab: Lab, images: Images, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A recreated cluster, an engine that starts later, and one that stops and returns."""
    late, tag, other = tmp_path / "late.sock", unique(), unique()
    monkeypatch.setenv("CONTAINER_HOST", f"unix://{late}")
    images.build(lab.docker, tag)
    with serving("-c", "lab-late", nodes=0) as server:
        for _ in range(2):
            cluster = lab.make_cluster(name="lab-late", engine="docker")
            node = cluster.nodes[0]
            assert server.next("restarted")["ok"]
            assert pull(node, tag)[0] == lab.docker.image_id(tag)
        for message in ("also serving podman", "podman at .* answers again"):
            late.symlink_to(lab.podman.socket)
            server.next_where(lambda d: bool(re.search(message, d.get("note", ""))))  # noqa: B023
            images.build(lab.podman, other)
            assert pull(node, other)[0] == lab.podman.image_id(other)
            late.unlink()
            server.next_where(lambda d: "cannot list the nodes" in d.get("note", ""))
            forget(node, tag)
            assert pull(node, tag)[0] == lab.docker.image_id(tag)
            with pytest.raises(CriError):
                node.cri().pull_image(other)
            refused = server.next("image_id", None)
            assert (refused["reference"], refused["error"]["kind"]) == (other, "engine-unreachable")
    cluster.remove()


@pytest.mark.parametrize("source", ["docker", "docker28", "podman"])
def test_a_pulled_image_is_not_served(
    lab: Lab, images: Images, tmp_path: Path, source: str
) -> None:
    """Unless `--all` is given, or the image is built again; the doctor shows the reason."""
    node, engine = lab.cluster("lab-d21").nodes[0], lab.engine(source)
    with running(lab.docker, tmp_path, "127.0.0.1") as local:
        name = _pulled_through_an_index(lab, images, engine, local)
    arguments = ("-c", "lab-d21", "--from", engine.url)
    with serving(*arguments, "--all"):
        assert pull(node, name)[0] == config_digest(engine, name)
    forget(node, name)
    with serving(*arguments):
        with pytest.raises(CriError):
            node.cri().pull_image(name)
        assert _doctor(name, engine) == ["ok", "info"]
        images.build(engine, name)
        assert pull(node, name)[0] == config_digest(engine, name)
        assert _doctor(name, engine) == ["ok", "ok"]
    forget(node, name)


def _pulled_through_an_index(lab: Lab, images: Images, engine: Engine, local: Registry) -> str:
    """Have an engine pull an image through an index that lists another platform as well."""
    entries = []
    for architecture in (Platform.of("linux", platform.machine()).architecture, "s390x"):
        tag = unique()
        images.build(lab.docker, tag)
        _push(lab.docker, tag, local)
        repository, _, version = tag.partition(":")
        manifest, kind, raw = _manifest(local, f"{repository}/manifests/{version}")
        listed = {"os": "linux", "architecture": architecture}
        entry = {"digest": manifest, "mediaType": kind, "size": len(raw), "platform": listed}
        entries.append(entry)
    body = {"schemaVersion": 2, "mediaType": INDEX, "manifests": entries}
    request = Request(
        f"{local.url}/v2/app/manifests/index", json.dumps(body).encode(), method="PUT"
    )
    request.add_header("Content-Type", INDEX)
    urlopen(request).close()
    name = f"{local.address}/app:index"
    engine.cli("pull", *(["--tls-verify=false"] if engine.name == "podman" else []), name)
    return name


def _manifest(registry: Registry, path: str) -> tuple[str, str, bytes]:
    accept = {"Accept": f"{MANIFEST}, application/vnd.docker.distribution.manifest.v2+json"}
    with urlopen(Request(f"{registry.url}/v2/{path}", headers=accept)) as answer:
        raw = answer.read()
        return answer.headers["Docker-Content-Digest"], answer.headers["Content-Type"], raw


def _doctor(name: str, engine: Engine) -> list[str]:
    """Return the status of each finding about the server."""
    command = [sys.executable, "-m", "imgload", "doctor", name, "-o", "json"]
    variable = "CONTAINER_HOST" if engine.name == "podman" else "DOCKER_HOST"
    environ = {**os.environ, variable: engine.url}
    done = subprocess.run(command, env=environ, capture_output=True, text=True, check=False)
    return [f["status"] for f in json.loads(done.stdout)["findings"] if f["check"] == "serve"]
