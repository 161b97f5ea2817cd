"""`imgload registry`: nodes pull pushed images, and disconnect restores the nodes."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

import imgload
from imgload.tools.remote_registry.api import Hosting
from tests.engine.aftermath import leftover_tags
from tests.engine.apiserver import ApiServer
from tests.engine.conftest import Images, forget, unique
from tests.engine.test_load import config_digest
from tests.lab import Lab, Node, suites
from tests.lab.registry import Registry
from tests.lab.registry import registry as running

CERTS = "/etc/containerd/certs.d"
LIST = """
find "$1" | sort | while read -r file; do
    stat -c "%n %a" "$file"
    [ -d "$file" ] || { stat -c %Y "$file"; cat "$file"; }
done
"""


@pytest.fixture(scope="module")
def registry(lab: Lab, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Registry]:
    """A registry that the nodes of the lab's Docker can reach."""
    with running(lab.docker, tmp_path_factory.mktemp("registry")) as started:
        yield started


def state(node: Node) -> str:
    """Return containerd's configuration files: names, modes, times and content."""
    return node.exec("sh", "-c", LIST, "sh", "/etc/containerd")


def put(node: Node, path: str, text: str) -> None:
    script = 'mkdir -p "${1%/*}"; printf %s "$2" >"$1"; chmod 640 "$1"'
    node.exec("sh", "-c", script, "sh", path, text)


@pytest.mark.parametrize(
    ("source", "cluster"), [("docker", "lab-d21"), ("podman", "lab-d17"), ("docker28", "lab-d16")]
)
def test_nodes_pull_pushed_images_and_disconnect_restores_them(
    lab: Lab, images: Images, registry: Registry, source: str, cluster: str
) -> None:
    """By the registry's name and as a mirror; the second push sends nothing."""
    engine, node, tag = lab.engine(source), lab.cluster(cluster).nodes[0], unique()
    images.build(engine, tag, b"x" * 200_000)
    put(node, f"{CERTS}/docker.io/hosts.toml", 'server = "https://example.invalid"')
    before = state(node)

    mirrors = ["docker.io", "localhost:5001"]
    connected = imgload.connect_registry(registry.url, mirrors=mirrors, cluster=cluster)
    first = imgload.push_to_registry(tag, registry.url, source=engine.url)
    second = imgload.push_to_registry(tag, registry.url, source=engine.url)

    assert connected.ok, connected.to_json()
    assert connected.nodes[0].cri is (True if cluster == "lab-d21" else None)
    assert first.ok, first.to_json()
    assert first.images[0].bytes_sent > 0
    assert (second.images[0].digest, second.images[0].bytes_sent) == (first.images[0].digest, 0)
    pulled = [f"{name}/{tag}" for name in (registry.address, "localhost:5001")]
    pulled.append(f"docker.io/library/{tag}")
    wanted = config_digest(engine, tag)
    assert [node.cri().pull_image(name) for name in pulled] == [wanted] * 3
    assert leftover_tags(engine) == []
    assert imgload.disconnect_registry(registry.url, cluster=cluster).ok
    assert state(node) == before
    forget(node, *pulled, wanted)
    node.exec("rm", "-r", CERTS)


@pytest.mark.parametrize("source", ["docker", "podman"])
def test_a_push_sends_only_the_changed_layer(
    lab: Lab, images: Images, registry: Registry, source: str
) -> None:
    """The registry already has the base layers."""
    engine, base, tag = lab.engine(source), unique("base"), unique()
    images.build(engine, base, os.urandom(3_000_000))
    for _ in range(2):
        images.build(engine, tag, base=base)
        report = imgload.push_to_registry(tag, registry.url, source=engine.url, tag="team/app:v2")
    name = f"{registry.address}/team/app:v2"
    assert report.images[0].names == (name,)
    assert 0 < report.images[0].bytes_sent < 50_000
    node = lab.cluster("lab-d21").nodes[0]
    imgload.connect_registry(registry.url, cluster="lab-d21")
    assert node.cri().pull_image(name) == config_digest(engine, tag)
    imgload.disconnect_registry(cluster="lab-d21")
    forget(node, name)


def test_verbose_prints_the_requests_to_the_registry(
    lab: Lab, images: Images, registry: Registry
) -> None:
    """With their status and time; an engine's own requests to imgload without the secret path."""
    tag = unique()
    images.build(lab.docker, tag)
    command = ["registry", "push", tag, "--to", registry.url, "--from", "docker", "-v"]
    run = [sys.executable, "-m", "imgload", *command]
    log = subprocess.run(run, capture_output=True, text=True, check=True).stderr
    repository = tag.partition(":")[0]
    for line in (
        r"GET /v2/: 200 \(\d+ ms\)",
        rf"HEAD /v2/{repository}/blobs/sha256:\w{{12}}…: 404 \(\d+ ms\)",
        rf"PATCH /v2/{repository}/blobs/uploads/\S+: 202",
        rf"PUT /v2/{repository}/manifests/{tag.partition(':')[2]}: 201 \(\d+ ms\)",
    ):
        assert re.search(rf"^\[ +[\d.]+\] {registry.url} {line}$", log, re.MULTILINE), (line, log)
    pushed = r"\] 127\.0\.0\.1: HEAD /v2/\S*\*\*\*\S*/blobs/\S+: 404 \(\d+ ms\)$"
    assert re.search(pushed, log, re.MULTILINE), log


def test_disconnect_removes_every_file_of_connect(lab: Lab, registry: Registry) -> None:
    """Created folders are removed, in any order, also after connecting twice."""
    node = lab.cluster("lab-d21").nodes[0]
    before = state(node)
    other = f"http://{registry.address.partition(':')[0]}:1"
    for _ in range(2):
        imgload.connect_registry(registry.url, mirrors=["ghcr.io"], cluster="lab-d21")
    assert not imgload.connect_registry(other, cluster="lab-d21").ok
    assert f"{CERTS}/ghcr.io/hosts.toml" in state(node)
    imgload.disconnect_registry(registry.url, cluster="lab-d21")
    assert other in state(node)
    imgload.disconnect_registry(cluster="lab-d21")
    assert state(node) == before


def test_connect_names_a_node_that_cannot_reach_the_registry(lab: Lab, registry: Registry) -> None:
    """Exit status 1, because pods on that node could not pull."""
    lab.up("lab-d21")
    nowhere = f"http://{registry.address.partition(':')[0]}:1"
    ended = _run("connect", nowhere, "-c", "lab-d21")
    assert ended.returncode == 1
    assert f"lab-d21-control-plane is set up, and does not reach {nowhere}: " in ended.stdout
    assert "connection refused" in ended.stdout
    assert _run("disconnect", "-c", "lab-d21").returncode == 0


def test_connect_does_not_follow_links(lab: Lab, registry: Registry) -> None:
    """The target of the link is outside certs.d."""
    node = lab.cluster("lab-d17").nodes[0]
    node.exec("mkdir", "-p", CERTS, "/root/elsewhere")
    node.exec("ln", "-s", "/root/elsewhere", f"{CERTS}/{registry.address}")
    report = imgload.connect_registry(registry.url, cluster="lab-d17")
    assert not report.ok
    assert "is a link" in str(report.nodes[0].error)
    assert node.exec("ls", "/root/elsewhere") == ""
    node.exec("rm", "-r", CERTS, "/root/elsewhere")


def test_connect_announces_the_registry_in_the_config_map(
    lab: Lab, registry: Registry, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As in KEP-1755, with the real kubectl; another tool's config map is kept."""
    lab.up("lab-d21")
    kubectl = suites.tree(lab.paths.cache, "kubectl", "1.20")
    monkeypatch.setenv("PATH", f"{kubectl}/usr/bin:{os.environ['PATH']}")
    monkeypatch.setenv("KUBECONFIG", str(tmp_path / "kubeconfig"))
    monkeypatch.setenv("HOME", str(tmp_path))
    server = ApiServer()
    with server.listening(tmp_path / "kubeconfig", "kind-lab-d21"):
        for _ in range(2):
            report = imgload.connect_registry(
                registry.url, mirrors=["localhost:5001"], cluster="lab-d21"
            )
            assert report.hosting == Hosting(written=True)
        hosting = server.config_maps["local-registry-hosting"]["data"]["localRegistryHosting.v1"]
        assert 'host: "localhost:5001"\n' in hosting
        imgload.disconnect_registry(registry.url, cluster="lab-d21")
        assert server.config_maps == {}
        theirs = {"metadata": {"name": "local-registry-hosting"}, "kind": "ConfigMap"}
        server.config_maps["local-registry-hosting"] = {"apiVersion": "v1", **theirs}
        ended = _run("connect", registry.url, "-c", "lab-d21", "-o", "json")
        assert json.loads(ended.stdout)["hosting"]["written"] is False
        imgload.disconnect_registry(registry.url, cluster="lab-d21")
        assert "local-registry-hosting" in server.config_maps


def _run(*arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "imgload", "registry", *arguments]
    return subprocess.run(command, env=os.environ, capture_output=True, text=True, check=False)
