"""The list of clusters."""

import json
from pathlib import Path

import pytest

from imgload.clusters.list import ClusterList, list_clusters
from imgload.core.errors import EngineUnreachable
from imgload.engines.base import Container
from imgload.engines.endpoint import Endpoint
from tests.unit.clusters.test_provider import container, k3d
from tests.unit.fakes import LocalEngine


def listed(folder: Path, *containers: Container) -> ClusterList:
    endpoint = Endpoint("podman", "unix:///p.sock", "CONTAINER_HOST")
    engine = LocalEngine(folder, containers=containers, endpoint=endpoint)
    return list_clusters([engine], [EngineUnreachable("docker is silent", hint="start it")])


@pytest.fixture(autouse=True)
def kubeconfig(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "config").write_text("current-context: kind-a\n")
    monkeypatch.setenv("KUBECONFIG", str(tmp_path / "config"))


def test_list_clusters_has_clusters_nodes_engines_and_errors(tmp_path: Path) -> None:
    nodes = [container("a-worker", "a"), k3d("k3d-a-server-0", "a")]
    document = listed(tmp_path, *nodes).to_json()
    engine = {"kind": "podman", "url": "unix:///p.sock", "origin": "CONTAINER_HOST"}
    shared = {"name": "a", "engine": engine}
    assert json.loads(json.dumps(document)) == {
        "version": 1,
        "clusters": [
            shared
            | {"tool": "kind", "context": "kind-a", "current": True}
            | {"nodes": [{"name": "a-worker", "role": "worker", "state": "running"}]},
            shared
            | {"tool": "k3d", "context": "k3d-a", "current": False}
            | {"nodes": [{"name": "k3d-a-server-0", "role": "server", "state": "running"}]},
        ],
        "engines": [engine],
        "errors": [
            {"kind": "engine-unreachable", "message": "docker is silent", "hint": "start it"}
        ],
        "ok": True,
    }


@pytest.mark.parametrize(
    ("state", "told"),
    [
        ("running", "running"),
        ("paused", "paused"),
        ("exited", "stopped"),
        ("created", "stopped"),
        ("configured", "stopped"),
        ("restarting", "restarting"),
    ],
)
def test_node_states_are_the_same_for_every_engine(tmp_path: Path, state: str, told: str) -> None:
    """Other states than running and stopped are the engine's word."""
    [cluster] = listed(tmp_path, container("a-worker", "a", state=state)).clusters
    assert [node.state for node in cluster.nodes] == [told]
