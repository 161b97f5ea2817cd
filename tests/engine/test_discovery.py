"""Engines at other sockets, in contexts and connections; and obstacles on the way to them."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
from pathlib import Path

import pytest

import imgload
from imgload.core.errors import ClusterNotFound, EngineUnreachable
from imgload.engines.discovery.discover import Discovery, discover
from tests.engine.conftest import Images, unique
from tests.engine.remote import open_folder, run_as, time_limit
from tests.lab import Lab
from tests.lab.rootless import RootlessPodman


@pytest.fixture
def home(tmp_path: Path) -> dict[str, str]:
    """Return an environment with empty home, run and configuration folders only."""
    folders = {"HOME": "home", "XDG_RUNTIME_DIR": "run", "DOCKER_CONFIG": "docker"}
    for folder in folders.values():
        (tmp_path / folder).mkdir()
    return {name: str(tmp_path / folder) for name, folder in folders.items()}


def link(path: Path, target: Path) -> Path:
    """Link to a socket from the path of a product's socket."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.symlink_to(target)
    return path


def discover_quickly(environ: dict[str, str]) -> Discovery:
    """Run the discovery in less than a second."""
    with time_limit():
        return discover(environ)


def ours(discovery: Discovery, environ: dict[str, str]) -> list[tuple[str, str]]:
    """Return kind and origin of the engines below the test's folders: the machine may have more."""
    folder = str(Path(environ["HOME"]).parent)
    return [(e.kind, e.origin) for e in discovery.endpoints if folder in e.url]


def test_engines_are_found_at_the_sockets_of_products(lab: Lab, home: dict[str, str]) -> None:
    """Two Docker engines are distinguished; one engine with two paths is listed once."""
    link(Path(home["HOME"], ".colima/default/docker.sock"), lab.docker.socket)
    link(Path(home["HOME"], ".rd/docker.sock"), lab.docker28.socket)
    link(Path(home["HOME"], ".orbstack/run/docker.sock"), lab.docker.socket)
    link(Path(home["XDG_RUNTIME_DIR"], "podman/podman.sock"), lab.podman.socket)
    discovery = discover_quickly(home)
    expected = [("docker", "Colima"), ("docker", "Rancher Desktop"), ("podman", "rootless Podman")]
    assert ours(discovery, home) == expected
    duplicates = [a.candidate.origin for a in discovery.attempts if a.same_as]
    assert "OrbStack" in duplicates


def test_rootless_dockers_socket_is_found(lab: Lab, home: dict[str, str]) -> None:
    """In the login's runtime folder."""
    link(Path(home["XDG_RUNTIME_DIR"], "docker.sock"), lab.docker28.socket)
    assert ours(discover_quickly(home), home) == [("docker", "rootless Docker")]


def docker(environ: dict[str, str], *args: str) -> None:
    """Run the real docker CLI with these settings."""
    everything = {k: v for k, v in os.environ.items() if k != "DOCKER_HOST"} | environ
    subprocess.run(["docker", *args], env=everything, check=True, capture_output=True)


def test_the_docker_clis_context_is_used(lab: Lab, home: dict[str, str]) -> None:
    """DOCKER_HOST, DOCKER_CONTEXT, the current context: the order of the CLI."""
    for name, engine in (("first", lab.docker), ("second", lab.docker28)):
        docker(home, "context", "create", name, "--docker", f"host={engine.url}")
    docker(home, "context", "use", "first")
    dockers = [e for e in discover(home).endpoints if e.kind == "docker"]
    assert [(e.url, e.origin) for e in dockers] == [
        (lab.docker.url, "the current Docker context 'first'")
    ]
    home["DOCKER_CONTEXT"] = "second"
    dockers = [e for e in discover(home).endpoints if e.kind == "docker"]
    assert [(e.url, e.origin) for e in dockers] == [(lab.docker28.url, "DOCKER_CONTEXT=second")]
    home["DOCKER_HOST"] = lab.docker.url
    assert discover(home).endpoints[0].origin == "DOCKER_HOST"


def test_a_stale_context_is_explained(lab: Lab, home: dict[str, str]) -> None:
    """Its engine does not answer; another one does, and is not used silently."""
    docker(home, "context", "create", "old", "--docker", "host=unix:///nonexistent/docker.sock")
    docker(home, "context", "use", "old")
    link(Path(home["HOME"], ".rd/docker.sock"), lab.docker.socket)
    home |= {"CONTAINER_HOST": "unix:///nonexistent/podman.sock"}
    discovery = discover_quickly(home)
    with pytest.raises(EngineUnreachable) as caught:
        discovery.require()
    assert "the current Docker context 'old'" in caught.value.message
    assert f"{home['HOME']}/.rd/docker.sock answers but is not used" in caught.value.message
    assert "docker context use default" in caught.value.hint


def test_a_missing_context_is_explained(home: dict[str, str]) -> None:
    """The error lists the existing contexts."""
    docker(home, "context", "create", "there", "--docker", "host=unix:///nonexistent/docker.sock")
    discovery = discover_quickly(
        {**home, "DOCKER_CONTEXT": "gone", "CONTAINER_HOST": "unix:///none"}
    )
    with pytest.raises(EngineUnreachable, match="available: default, there") as caught:
        discovery.require()
    assert "unset DOCKER_CONTEXT" in caught.value.hint


def test_podmans_connections_are_used(lab: Lab, home: dict[str, str], tmp_path: Path) -> None:
    """As the real podman writes them."""
    settings = tmp_path / "containers.conf"
    settings.write_text("[engine]\n")
    home["CONTAINERS_CONF"] = str(settings)
    assert ours(discover(home), home) == []
    for name, engine in (("one", lab.podman), ("two", lab.engine("podman-rootless"))):
        add = ["podman", "system", "connection", "add", name, engine.url]
        everything = {"PATH": os.environ["PATH"], **home}
        subprocess.run(add, env=everything, check=True, capture_output=True)
    default = [e for e in discover_quickly(home).endpoints if "connection" in e.origin]
    assert [(e.url, e.origin) for e in default] == [(lab.podman.url, "the Podman connection 'one'")]
    home["CONTAINER_CONNECTION"] = "two"
    named = [e for e in discover_quickly(home).endpoints if e.kind == "podman"]
    assert [e.url for e in named] == [lab.engine("podman-rootless").url]
    home["CONTAINER_CONNECTION"] = "three"
    [error] = [a.error for a in discover_quickly(home).unreachable]
    assert error
    assert "available: one, two" in error.message


def test_podmans_socket_in_docker_host_is_listed_once(lab: Lab, home: dict[str, str]) -> None:
    """A common setting; as two engines, every image would be ambiguous."""
    link(Path(home["XDG_RUNTIME_DIR"], "podman/podman.sock"), lab.podman.socket)
    discovery = discover_quickly({**home, "DOCKER_HOST": lab.podman.url})
    assert (discovery.endpoints[0].kind, discovery.endpoints[0].url) == ("podman", lab.podman.url)
    assert ours(discovery, home) == []
    assert discovery.endpoints[0] in [attempt.same_as for attempt in discovery.attempts]


def test_dead_engines_are_reported_and_the_others_used(
    lab: Lab, images: Images, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A stale CONTAINER_HOST does not prevent a load from Docker; a note and errors name it."""
    lab.cluster("lab-d21")
    monkeypatch.setenv("CONTAINER_HOST", f"unix://{tmp_path}/dead.sock")
    tag = unique()
    images.build(lab.docker, tag)
    notes: list[str] = []
    on_event = lambda event: notes.append(event.text) if isinstance(event, imgload.Note) else None  # noqa: E731
    assert imgload.load(tag, cluster="lab-d21", on_event=on_event).ok
    assert f"{tmp_path}/dead.sock" in notes[0]
    with pytest.raises(imgload.ImageNotFound, match=r"dead\.sock") as image:
        imgload.load("no-such-image:v1", cluster="lab-d21")
    assert "unset CONTAINER_HOST" in image.value.hint
    with pytest.raises(ClusterNotFound, match=r"dead\.sock"):
        imgload.load(tag, cluster="no-such-cluster")


def test_a_socket_that_hangs_times_out(lab: Lab, home: dict[str, str]) -> None:
    """The discovery still lists the other engines."""
    link(Path(home["XDG_RUNTIME_DIR"], "podman/podman.sock"), lab.podman.socket)
    path = Path(home["HOME"], ".rd/docker.sock")
    path.parent.mkdir()
    with socket.socket(socket.AF_UNIX) as hanging, time_limit(3.0):
        hanging.bind(str(path))
        hanging.listen()
        assert ours(discover(home), home) == [("podman", "rootless Podman")]


def test_an_address_without_any_answer_times_out() -> None:
    """A stale DOCKER_HOST of a machine that is off: the connection is not even refused."""
    with socket.create_server(("127.0.0.1", 0), backlog=0) as full:
        address = full.getsockname()
        with socket.create_connection(address), socket.socket() as second:
            second.settimeout(0)
            second.connect_ex(address)
            url = f"tcp://127.0.0.1:{address[1]}"
            discovery = discover_quickly(
                {"HOME": "/none", "DOCKER_HOST": url, "CONTAINER_HOST": "unix:///x"}
            )
    assert url in discovery.errors[0].message


def test_an_unprivileged_user_can_use_their_own_engine(lab: Lab, images: Images) -> None:
    """Root's Docker without permission is reported only if the load fails."""
    podman = lab.engine("podman-rootless")
    assert isinstance(podman, RootlessPodman)
    node = lab.cluster("lab-r21").nodes[0]
    tag = unique()
    images.build(podman, tag, b"rootless")
    with open_folder() as folder:
        link(folder / "home/.rd/docker.sock", lab.docker.socket)
        link(folder / "run/podman/podman.sock", podman.socket)
        environ = {"HOME": f"{folder}/home", "XDG_RUNTIME_DIR": f"{folder}/run"}
        environ |= {"KUBECONFIG": f"{folder}/none", "XDG_CACHE_HOME": f"{folder}/cache"}
        done = run_as(podman.user, "load", tag, "-c", "lab-r21", **environ)
        absent = run_as(podman.user, "load", "no-such:v1", "-c", "lab-r21", **environ)
        environ["XDG_RUNTIME_DIR"] = f"{folder}/none"
        nothing = run_as(podman.user, "clusters", **environ)
    assert done.returncode == 0, done.stderr
    assert "note:" not in done.stderr
    assert tag in node.ctr("images", "ls", "-q")
    assert absent.returncode == 3
    assert "permission denied" in absent.stderr
    assert nothing.returncode == 5
    assert "usermod -aG docker" in nothing.stderr


def test_the_error_without_any_engine_fits_on_a_screen(home: dict[str, str]) -> None:
    """It lists the probed addresses, the reasons, and a command."""
    environ = {**os.environ, **home, "DOCKER_HOST": "tcp://127.0.0.1:1"}
    environ["CONTAINER_HOST"] = "unix:///nonexistent/podman.sock"
    command = [sys.executable, "-m", "imgload", "clusters"]
    done = subprocess.run(command, env=environ, capture_output=True, text=True, check=False)
    assert done.returncode == 5
    assert "tcp://127.0.0.1:1 (from DOCKER_HOST): nobody answers" in done.stderr
    assert "unix:///nonexistent/podman.sock (from CONTAINER_HOST)" in done.stderr
    assert "unset DOCKER_HOST" in done.stderr
    assert len(done.stderr.splitlines()) < 20
