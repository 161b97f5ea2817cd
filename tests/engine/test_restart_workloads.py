"""`--restart` and `watch --exec`, with a real kubectl."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

import imgload
from tests.engine.apiserver import ApiServer
from tests.engine.conftest import Images, forget, unique
from tests.engine.test_watch import watching
from tests.lab import Lab
from tests.schema import complaints

CLUSTER = "lab-d21"


@pytest.fixture
def api(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[ApiServer]:
    """Run an API server under the kube context of the lab's cluster."""
    server = ApiServer()
    monkeypatch.setenv("KUBECONFIG", str(tmp_path / "kubeconfig"))
    monkeypatch.setenv("HOME", str(tmp_path))  # kubectl's cache
    with server.listening(tmp_path / "kubeconfig", f"kind-{CLUSTER}"):
        yield server


@pytest.fixture
def tag(lab: Lab) -> Iterator[str]:
    name = unique()
    yield name
    forget(lab.cluster(CLUSTER).nodes[0], f"docker.io/library/{name}")


def test_only_workloads_with_a_changed_image_are_restarted(
    lab: Lab, images: Images, api: ApiServer, tag: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """By the normalised name, once for each change; not for an image that is present."""
    api.add_workload("Deployment", "default", "short", tag)
    api.add_workload("StatefulSet", "prod", "full", f"docker.io/library/{tag}")
    api.add_workload("DaemonSet", "default", "other", "app:other")
    images.build(lab.docker, tag)
    report = imgload.load(tag, cluster=CLUSTER, restart=True)
    assert report.restart is not None
    names = [(w.namespace, w.kind, w.name) for w in report.restart.workloads]
    assert names == [("default", "deployment", "short"), ("prod", "statefulset", "full")]
    assert sorted(api.patched) == ["default/deployments/short", "prod/statefulsets/full"]
    assert complaints(report.to_json()) == []
    for options in ({}, {"complete": True}):
        again = imgload.load(tag, cluster=CLUSTER, restart=True, **options)  # type: ignore[arg-type]
        assert again.restart == imgload.Restart()
    assert len(api.patched) == 2
    images.build(lab.docker, tag)
    planned = imgload.load(tag, cluster=CLUSTER, restart=True, dry_run=True)
    assert planned.restart == report.restart
    assert complaints(planned.to_json()) == []
    assert len(api.patched) == 2
    command = [
        sys.executable,
        "-m",
        "imgload",
        "load",
        tag,
        "-c",
        CLUSTER,
        "--restart",
        "--dry-run",
    ]
    shown = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    assert f"- would restart deployment/short in default (kind-{CLUSTER})\n" in shown
    with monkeypatch.context() as patch:
        patch.setenv("PATH", "/nowhere")
        with pytest.raises(imgload.RestartFailed, match="kubectl is not installed") as failed:
            imgload.load(tag, cluster=CLUSTER, restart=True)
    assert failed.value.report.failures() == []
    assert f"kubectl --context=kind-{CLUSTER} get " in failed.value.hint
    assert complaints(failed.value.report.to_json()) == []
    assert len(api.patched) == 2


def test_a_failed_restart_is_reported_with_the_command_to_run(
    lab: Lab, images: Images, api: ApiServer, tag: str
) -> None:
    """The other workloads are restarted, and the exit status is 1."""
    for name in ("broken", "works"):
        api.add_workload("Deployment", "default", name, tag)
    api.workloads[0]["spec"]["paused"] = True
    images.build(lab.docker, tag)
    command = [sys.executable, "-m", "imgload", "load", tag, "-c", CLUSTER, "--restart"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 1
    assert "; verified" in done.stdout
    assert "restarted deployment/works in default" in done.stdout
    assert "cannot restart deployment/broken in default" in done.stdout
    restart = "--namespace=default rollout restart deployment/broken"
    assert f"try: kubectl --context=kind-{CLUSTER} {restart}" in done.stdout
    assert api.patched == ["default/deployments/works"]


def test_a_restart_needs_a_cluster(lab: Lab) -> None:
    with (
        imgload.Loader.connect(nodes=lab.cluster(CLUSTER).nodes[0].name) as loader,
        pytest.raises(imgload.UsageError, match="needs a cluster"),
    ):
        imgload.Loader(loader.sources, loader.nodes).load("app", restart=True)


def test_a_named_node_has_the_workloads_of_its_cluster_restarted(
    lab: Lab, images: Images, api: ApiServer, tag: str
) -> None:
    api.add_workload("Deployment", "default", "app", tag)
    images.build(lab.docker, tag)
    imgload.load(tag, nodes=lab.cluster(CLUSTER).nodes[0].name, restart=True)
    assert api.patched == ["default/deployments/app"]


def test_watch_restarts_workloads_and_runs_a_command(
    lab: Lab, images: Images, api: ApiServer, tag: str, tmp_path: Path
) -> None:
    """The name is in a variable; a failed command does not stop the watch."""
    api.add_workload("Deployment", "default", "app", tag)
    log = tmp_path / "log"
    command = f'echo "$IMGLOAD_IMAGE" >> {log}; echo hidden; exit 3'
    options = ("-c", CLUSTER, "--from", lab.docker.url, "--restart", "--exec", command)
    with watching(tag, *options) as watcher:
        for turn in (1, 2):
            images.build(lab.docker, tag)
            document = watcher.loaded()
            assert complaints(document, "watch") == []
            [workload] = document["restart"]["workloads"]
            assert workload["name"] == "app"
            assert watcher.noted("--exec").endswith("exit status 3")
            assert log.read_text() == f"{tag}\n" * turn
        assert watcher.stop() == 0
    assert len(api.patched) == 2
    assert json.dumps(api.patched).count("default/deployments/app") == 2
