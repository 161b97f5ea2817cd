"""`imgload doctor` finds injected faults, and no problem on a healthy cluster."""

from __future__ import annotations

import json
import os
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import attrs
import pytest

import imgload
from imgload.engines.cache import EngineCache
from imgload.tools.doctor.finding import Check, Status
from tests.engine.conftest import Images, cases, forget, unique
from tests.engine.findings import kubeconfig, messages, problems, program
from tests.engine.remote import open_folder, run_as
from tests.engine.test_errors import run
from tests.lab import Lab, Node

Inject = Callable[[pytest.MonkeyPatch, Path], None]


@pytest.fixture
def healthy(lab: Lab, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Node:
    """The node of a healthy cluster, which the kube context names."""
    kubeconfig(monkeypatch, tmp_path, "current-context: kind-lab-d21\n")
    monkeypatch.setenv("HOME", str(tmp_path))
    return lab.cluster("lab-d21").nodes[0]


def test_doctor_finds_no_problem_on_a_healthy_cluster(
    lab: Lab, images: Images, healthy: Node
) -> None:
    """With both image stores of Docker and with Podman, as text and JSON; exit status 0."""
    tag = unique()
    images.build(lab.docker, tag)
    imgload.load(tag, cluster="lab-d21")
    done = run("doctor", tag, "-o", "json", DOCKER_HOST=lab.docker.url)
    text = run("doctor", DOCKER_HOST=lab.docker28.url, CONTAINER_HOST=lab.docker.url)
    document = json.loads(done.stdout)
    assert (done.returncode, document["ok"]) == (0, True), done.stdout
    assert {f["status"] for f in document["findings"]} <= {"ok", "info"}, done.stdout
    assert set(document["findings"][0]) == {"check", "status", "message", "hint"}
    text_of_findings = "\n".join(f["message"] for f in document["findings"])
    assert "graphdriver overlay2" in text_of_findings
    assert f"podman at {lab.podman.url} can push here" in text_of_findings
    version = healthy.exec("containerd", "--version").split()[2].rpartition(".")[0]
    assert f"{healthy.name}: containerd {version}, overlayfs, linux/" in text_of_findings
    assert f"{healthy.name} has docker.io/library/{tag}" in text_of_findings
    assert "containerd image store, overlayfs" in text.stdout
    assert "no problem found" in text.stdout
    forget(healthy, f"docker.io/library/{tag}")


def environ(**variables: str) -> Inject:
    """Return a function that sets variables; ``{}`` is replaced by the test's folder."""

    def inject(monkeypatch: pytest.MonkeyPatch, folder: Path) -> None:
        for name, value in variables.items():
            monkeypatch.setenv(name, value.replace("{}", str(folder)))

    return inject


def stale_context(monkeypatch: pytest.MonkeyPatch, folder: Path) -> None:
    """Select a Docker context whose engine does not answer."""
    monkeypatch.delenv("DOCKER_HOST")
    monkeypatch.setenv("DOCKER_CONFIG", str(folder / "docker"))
    create = ("docker", "context", "create", "old", "--docker", "host=unix:///nonexistent.sock")
    for command in (create, ("docker", "context", "use", "old")):
        subprocess.run(command, check=True, capture_output=True)


def config(text: str) -> Inject:
    """Return a function that writes a kubeconfig with this text."""
    return lambda monkeypatch, folder: kubeconfig(monkeypatch, folder, text)


@attrs.frozen
class Expected:
    """An expected finding: parts of the message and of the hint."""

    check: Check
    status: Status
    message: str
    hint: str

    def is_in(self, diagnosis: imgload.Diagnosis) -> bool:
        """Return whether the diagnosis has this finding."""
        fitting = [
            f for f in diagnosis.findings if (f.check, f.status) == (self.check, self.status)
        ]
        return any(self.message in f.message and self.hint in f.hint for f in fitting)


FAULTS: dict[str, tuple[Inject, Expected]] = {
    "a dead socket": (
        environ(DOCKER_HOST="unix://{}/dead.sock"),
        Expected("engines", "problem", "(from DOCKER_HOST): nobody answers", "unset DOCKER_HOST"),
    ),
    "a typing error in DOCKER_HOST": (
        environ(DOCKER_HOST="/run/d.sock"),
        Expected("engines", "problem", "not an engine's address", "DOCKER_HOST=unix:///run/d.sock"),
    ),
    "a stale context": (
        stale_context,
        Expected("engines", "problem", "the current Docker context 'old'", "context use default"),
    ),
    "a context that is not there": (
        environ(DOCKER_CONTEXT="gone", DOCKER_HOST=""),
        Expected("engines", "problem", "no such Docker context", "unset DOCKER_CONTEXT"),
    ),
    "a kube context without its cluster": (
        config("current-context: kind-gone\n"),
        Expected("context", "problem", "'kind-gone' names a missing cluster", "kubectl"),
    ),
    "a broken kubeconfig": (
        config("current-context: [\n"),
        Expected("context", "problem", "it is not valid YAML", "unset KUBECONFIG"),
    ),
    "a kubeconfig that is not there": (
        environ(KUBECONFIG="{}/nothing"),
        Expected("context", "warning", "which does not exist", "unset KUBECONFIG"),
    ),
}


SHORT = ("a dead socket", "a stale context", "a kube context without its cluster")


@pytest.mark.parametrize("fault", cases(FAULTS, SHORT))
@pytest.mark.usefixtures("healthy")
def test_doctor_finds_faults_of_engines_and_contexts(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, fault: tuple[Inject, Expected]
) -> None:
    """The fault is reported with a command, and the other checks still run."""
    inject, expected = fault
    inject(monkeypatch, tmp_path)
    diagnosis = imgload.diagnose(cluster="lab-d21" if expected.check == "engines" else None)
    assert expected.is_in(diagnosis), diagnosis
    assert "podman" in messages(diagnosis, "engines", "ok")


@pytest.mark.usefixtures("healthy")
def test_doctor_detects_swapped_engine_variables(lab: Lab, monkeypatch: pytest.MonkeyPatch) -> None:
    """Podman in DOCKER_HOST is info; Docker in CONTAINER_HOST is a warning."""
    monkeypatch.setenv("DOCKER_HOST", lab.podman.url)
    monkeypatch.setenv("CONTAINER_HOST", lab.docker.url)
    diagnosis = imgload.diagnose()
    assert diagnosis.ok
    assert "DOCKER_HOST leads to Podman" in messages(diagnosis, "engines", "info")
    assert "CONTAINER_HOST leads to Docker" in messages(diagnosis, "engines", "warning")


def test_doctor_explains_a_socket_without_permission(lab: Lab) -> None:
    """The hint for an unprivileged user names the group to join."""
    with open_folder() as home:
        done = run_as("nobody", "doctor", HOME=str(home), DOCKER_HOST=lab.docker.url)
    assert done.returncode == 1, done.stderr
    assert "permission denied" in done.stdout
    assert "usermod -aG docker" in done.stdout


def test_doctor_reports_engines_that_cannot_push(lab: Lab, monkeypatch: pytest.MonkeyPatch) -> None:
    """An engine that cannot push, as in a VM, and one that is only cached as such."""
    monkeypatch.setenv("DOCKER_HOST", lab.engine("docker-cut-off").url)
    EngineCache.load().mark_unreachable(lab.podman.url)
    diagnosis = imgload.diagnose()
    assert "docker-cut-off.sock cannot reach this process" in messages(
        diagnosis, "receiver", "info"
    )
    assert "could not push here within the last day" in messages(diagnosis, "receiver", "info")
    assert f"podman at {lab.podman.url} can push" in messages(diagnosis, "receiver", "ok")


def test_doctor_checks_skaffolds_engine_and_loader(
    healthy: Node, lab: Lab, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """The engine that builds; a missing loader; a drop-in that comes after the real one."""
    program(monkeypatch, tmp_path / "bin", "skaffold")
    diagnosis = imgload.diagnose(cluster=healthy.name.removesuffix("-control-plane"))
    assert f"builds with docker at {lab.docker.url}" in messages(diagnosis, "skaffold", "ok")
    monkeypatch.setenv("PATH", f"{tmp_path}/bin")
    monkeypatch.delenv("DOCKER_HOST")
    diagnosis = imgload.diagnose(cluster="lab-d21")
    assert "imgload kind --install" in messages(diagnosis, "skaffold", "warning")
    assert "imgload is not on PATH" in messages(diagnosis, "skaffold", "warning")
    program(monkeypatch, tmp_path / "ours", "kind", "# imgload in the place of kind")
    program(monkeypatch, tmp_path / "bin", "kind")
    diagnosis = imgload.diagnose(cluster="lab-d21")
    assert "comes after it on PATH" in messages(diagnosis, "skaffold", "warning")


@pytest.fixture
def loaded(lab: Lab, images: Images, healthy: Node) -> Iterator[tuple[str, str]]:
    """The tag and ID of an image on the node."""
    tag = unique()
    image_id = images.build(lab.docker, tag)
    imgload.load(tag, cluster="lab-d21")
    yield tag, image_id
    forget(healthy, f"docker.io/library/{tag}")


def test_doctor_reports_the_first_failing_check_on_a_node(
    lab: Lab, images: Images, healthy: Node, loaded: tuple[str, str]
) -> None:
    """A missing config, another build, another name, no name; one command fixes each."""
    tag, image_id = loaded
    name = f"docker.io/library/{tag}"
    healthy.ctr("content", "rm", image_id)
    assert "cannot read its config" in problems(imgload.diagnose(tag), "image")
    imgload.load(tag)
    assert imgload.diagnose(image_id[7:19]).ok
    images.build(lab.docker, tag, b"newer")
    problem_text = problems(imgload.diagnose(tag), "image")
    assert f"has another image under {name}" in problem_text
    assert f"imgload load {tag} --node {healthy.name}" in problem_text
    lab.docker.cli("tag", image_id, tag)
    healthy.ctr("images", "tag", name, f"localhost/{tag}")
    healthy.ctr("images", "rm", name)
    problem_text = problems(imgload.diagnose(tag), "image")
    assert f"does not have {name}; it has localhost/{tag}" in problem_text
    forget(healthy, f"localhost/{tag}")
    assert f"does not have {name}: imgload load" in problems(imgload.diagnose(tag), "image")


def test_doctor_reports_a_missing_manifest(healthy: Node, loaded: tuple[str, str]) -> None:
    """The record refers to a removed blob."""
    tag, _ = loaded
    [line] = healthy.ctr("images", "ls", f"name==docker.io/library/{tag}").splitlines()[1:]
    healthy.ctr("content", "rm", line.split()[2])
    assert "lacks its manifest" in problems(imgload.diagnose(tag), "image")


def test_doctor_checks_nodes_even_if_no_engine_has_the_image(
    lab: Lab, healthy: Node, loaded: tuple[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The nodes may have a complete image."""
    tag, image_id = loaded
    monkeypatch.setenv("DOCKER_HOST", lab.docker28.url)
    diagnosis = imgload.diagnose(tag, nodes=[healthy.name])
    assert f"no image '{tag}' in docker at {lab.docker28.url}" in problems(diagnosis, "image")
    monkeypatch.setenv("DOCKER_HOST", lab.docker.url)
    lab.docker.cli("rmi", "--force", tag)
    diagnosis = imgload.diagnose(tag)
    assert f"no image '{tag}' in docker" in problems(diagnosis, "image")
    assert f"image {image_id[7:19]}, unpacked, known to CRI" in messages(diagnosis, "image", "ok")


def test_doctor_reports_an_ambiguous_image(lab: Lab, images: Images, healthy: Node) -> None:
    """The hint names --from, as for a load."""
    tag = unique()
    images.build(lab.docker, tag, b"docker's")
    images.build(lab.podman, tag, b"podman's")
    problem_text = problems(imgload.diagnose(tag), "image")
    assert f"'{tag}' is ambiguous" in problem_text
    assert "--from docker or --from podman" in problem_text
    assert healthy.name in problem_text


def test_doctor_warns_about_pull_policy_and_platform(
    lab: Lab, images: Images, healthy: Node, tmp_path: Path
) -> None:
    """An image for another processor, and a tag that is always pulled."""
    name = unique().partition(":")[0] + os.urandom(4).hex()
    images.build(lab.docker, f"{name}:latest")
    other = unique()
    (tmp_path / "Dockerfile").write_text("FROM scratch\nCOPY Dockerfile /\n")
    lab.docker.cli("build", "-q", "-t", other, "--platform=linux/s390x", tmp_path)
    imgload.load([name, other])
    try:
        assert "imagePullPolicy: IfNotPresent" in messages(
            imgload.diagnose(name), "image", "warning"
        )
        assert "exec format error" in messages(imgload.diagnose(other), "image", "problem")
    finally:
        forget(healthy, f"docker.io/library/{name}:latest", f"docker.io/library/{other}")
        lab.docker.cli("rmi", "--force", other)


def test_doctor_lists_waiting_pods_with_their_policy(
    loaded: tuple[str, str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """If kubectl answers; the policy is the one in the pod's spec."""
    tag, _ = loaded
    state = {"name": "c", "state": {"waiting": {"reason": "ImagePullBackOff"}}}
    pod = {
        "metadata": {"namespace": "dev", "name": "app-1"},
        "spec": {"containers": [{"name": "c", "image": tag, "imagePullPolicy": "Always"}]},
        "status": {"containerStatuses": [state]},
    }
    (tmp_path / "pods.json").write_text(json.dumps({"items": [pod, {}, "x"]}))
    program(monkeypatch, tmp_path / "bin", "kubectl", f"cat {tmp_path}/pods.json")
    problem_text = problems(imgload.diagnose(tag), "pods")
    assert "pod dev/app-1" in problem_text
    assert "ImagePullBackOff, with imagePullPolicy Always" in problem_text
    assert "kubectl -n dev delete pod app-1" in problem_text
    program(monkeypatch, tmp_path / "bin", "kubectl", "exit 1")
    assert not problems(imgload.diagnose(tag), "pods")
