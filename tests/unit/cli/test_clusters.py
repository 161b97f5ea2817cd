"""``imgload clusters``, with a stub of the Docker daemon."""

import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.unit.cli.conftest import Run
from tests.unit.cli.stub import Docker, node

NODES = (node("dev-control-plane2", "running", "dev"), node("a-control-plane", "paused", "a"))


@pytest.fixture(autouse=True)
def daemon(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """Answer for Docker, with Podman's variable stale and a kube context set."""
    (tmp_path / "config").write_text("current-context: kind-dev\n")
    monkeypatch.setenv("KUBECONFIG", str(tmp_path / "config"))
    monkeypatch.setenv("CONTAINER_HOST", f"unix://{tmp_path}/stale.sock")
    with Docker(NODES).listening(tmp_path) as url:
        monkeypatch.setenv("DOCKER_HOST", url)
        yield url


def test_clusters_prints_text_on_stdout(run: Run, daemon: str) -> None:
    """Errors of engines go to stderr."""
    outcome = run("clusters")
    assert outcome.status == 0
    assert outcome.stdout.splitlines() == [
        f"  a (kind, docker at {daemon})",
        "    a-control-plane  control-plane  paused",
        f"* dev (kind, docker at {daemon})",
        "    dev-control-plane2  control-plane  running",
    ]
    assert outcome.stderr.startswith("note: podman at unix:///")
    assert "stale.sock" in outcome.stderr


def test_clusters_prints_one_json_document(run: Run) -> None:
    """Errors are part of it; stderr stays empty."""
    outcome = run("clusters", "--output", "json")
    document = json.loads(outcome.stdout)
    assert [(c["name"], c["current"]) for c in document["clusters"]] == [
        ("a", False),
        ("dev", True),
    ]
    assert document["errors"][0]["kind"] == "engine-unreachable"
    assert outcome.stderr == ""


def test_clusters_names_the_engines_without_a_cluster(
    run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, daemon: str
) -> None:
    """An empty list is not an error."""
    (tmp_path / "empty").mkdir()
    with Docker(()).listening(tmp_path / "empty") as url:
        monkeypatch.setenv("DOCKER_HOST", url)
        outcome = run("clusters")
    assert daemon != url
    assert (outcome.status, outcome.stdout) == (0, "")
    assert f"no local cluster on docker at {url}" in outcome.stderr


def test_clusters_without_an_engine_exits_with_5(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    """As text and as JSON, like every command."""
    monkeypatch.setenv("DOCKER_HOST", "unix:///nonexistent/docker.sock")
    text, document = run("clusters"), run("clusters", "-o", "json")
    assert (text.status, document.status) == (5, 5)
    assert "no container engine answers" in text.stderr
    assert json.loads(document.stdout)["error"]["kind"] == "engine-unreachable"


def test_clusters_help_has_examples(run: Run) -> None:
    """It explains how to name a container outside a cluster."""
    shown = run("clusters", "--help").stdout
    assert "imgload clusters -o json" in shown
    assert "--node CONTAINER" in shown
    assert "clusters" in run("--help").stdout
