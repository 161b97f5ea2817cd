"""Engines on other machines, over ssh and over TLS."""

from __future__ import annotations

import os
import re
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

import imgload
from imgload.core.errors import EngineNotPermitted
from imgload.engines.discovery.candidates import Candidate
from imgload.engines.discovery.discover import Discovery, discover
from imgload.engines.discovery.probe import probe
from imgload.sources.base import TransportOption
from tests.engine.aftermath import until
from tests.engine.conftest import Images, cri_id, forget, unique
from tests.engine.remote import open_folder, time_limit
from tests.engine.test_watch import watching
from tests.lab import Lab
from tests.lab.rootless import RootlessPodman
from tests.lab.sshd import Sshd


@pytest.fixture(scope="module")
def sshd(lab: Lab) -> Iterator[Sshd]:
    """Start an ssh server on a free port."""
    assert lab.docker.running()
    with open_folder() as folder:
        server = Sshd.start(folder)
        yield server
        server.stop()


@pytest.fixture
def over_ssh(sshd: Sshd, monkeypatch: pytest.MonkeyPatch) -> Sshd:
    """Put an ssh that knows the server first on PATH, in place of a user's settings."""
    monkeypatch.setenv("PATH", sshd.path)
    return sshd


def ssh_clients() -> list[str]:
    """Return the running ssh clients of this process."""
    listed = subprocess.run(
        ["ps", "--ppid", str(os.getpid()), "-o", "args="],
        capture_output=True,
        text=True,
        check=False,
    )
    return [line for line in listed.stdout.splitlines() if " -T " in line]


@pytest.mark.parametrize("cluster", ["lab-d21", "lab-p21", "lab-r21"])
def test_an_engine_over_ssh_saves_images_and_runs_nodes(
    lab: Lab, images: Images, over_ssh: Sshd, cluster: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One ssh connection serves all requests and streams of a load, and is closed."""
    node = lab.cluster(cluster).nodes[0]
    kind = "docker" if node.engine.name == "docker" else "podman"
    variable = {"docker": "DOCKER_HOST", "podman": "CONTAINER_HOST"}[kind]
    user = getattr(node.engine, "user", "root")
    monkeypatch.setenv(variable, over_ssh.url(str(node.engine.socket), user))
    tag = unique()
    image_id = images.build(node.engine, tag, os.urandom(300_000))
    [image] = imgload.load(tag, cluster=cluster, source=kind).images
    assert image.nodes[0].action == "full"
    assert cri_id(node, f"docker.io/library/{tag}") == image_id
    [again] = imgload.load(tag, cluster=cluster, source=kind).images
    assert again.nodes[0].action == "present"
    forget(node, f"docker.io/library/{tag}")
    assert ssh_clients() == []


@pytest.mark.usefixtures("over_ssh")
def test_verbose_prints_ssh_connections(
    lab: Lab, sshd: Sshd, monkeypatch: pytest.MonkeyPatch
) -> None:
    command = [sys.executable, "-m", "imgload", "clusters", "-v"]
    for socket, answer in ((str(lab.docker.socket), "ready"), ("/nosuch.sock", "absent")):
        monkeypatch.setenv("DOCKER_HOST", sshd.url(socket))
        log = subprocess.run(command, capture_output=True, text=True, check=False).stderr
        assert re.search(rf"^\[.*\] ssh .*: {answer} \(\d+ ms\)$", log, re.MULTILINE), log


def logins(server: Sshd) -> int:
    """Return the number of logins."""
    return server.daemon.log.read_text(errors="replace").count("Accepted publickey")


def test_an_ended_ssh_process_is_restarted_once(
    lab: Lab, images: Images, over_ssh: Sshd, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As after a network change; a reused loader continues with one new login."""
    monkeypatch.setenv("DOCKER_HOST", over_ssh.url(str(lab.docker.socket)))
    node, tag = lab.cluster("lab-d21").nodes[0], unique()
    images.build(lab.docker, tag)
    with imgload.Loader.connect(cluster="lab-d21", source="docker") as loader:
        assert loader.load([tag]).ok
        before = logins(over_ssh)
        subprocess.run(["pkill", "-P", str(os.getpid()), "-f", "--", " -T "], check=True)
        until(lambda: ssh_clients() == [], 10)
        images.build(lab.docker, tag)
        assert loader.load([tag]).ok
        assert loader.load([tag]).ok
        assert logins(over_ssh) == before + 1
    assert ssh_clients() == []
    forget(node, f"docker.io/library/{tag}")


@pytest.mark.parametrize("cluster", ["lab-d21", "lab-e21"])
def test_a_watch_continues_after_its_ssh_process_has_ended(
    lab: Lab, images: Images, over_ssh: Sshd, monkeypatch: pytest.MonkeyPatch, cluster: str
) -> None:
    """With one new login and one pair of notes, on both image stores of Docker."""
    node, tag = lab.cluster(cluster).nodes[0], unique()
    monkeypatch.setenv("DOCKER_HOST", over_ssh.url(str(node.engine.socket)))
    with watching(tag, "-c", cluster, "--from", "docker") as watcher:
        images.build(node.engine, tag)
        assert watcher.loaded()["ok"]
        before = logins(over_ssh)
        parent = str(watcher.process.pid)
        subprocess.run(["pkill", "-P", parent, "-f", "--", " -T "], check=True)
        watcher.noted("waiting for it")
        watcher.noted("is back")
        images.build(node.engine, tag)
        notes = []
        while "images" not in (document := watcher.lines.get(timeout=30)):
            notes.append(document["note"])
        assert document["ok"], document
        assert not [note for note in notes if "waiting for it" in note or "is back" in note]
        assert logins(over_ssh) == before + 1
        assert watcher.stop() == 0
    forget(node, f"docker.io/library/{tag}")


def rootless(lab: Lab) -> RootlessPodman:
    """Return the Podman of an unprivileged user."""
    podman = lab.engine("podman-rootless")
    assert isinstance(podman, RootlessPodman)
    return podman


def refusal(url: str) -> imgload.EngineError:
    """Return the error of an address that does not answer, within a second."""
    with time_limit(), pytest.raises(imgload.EngineError) as caught:
        probe(Candidate("docker", url, "the test"))
    assert url in caught.value.message
    assert caught.value.hint
    return caught.value


def test_ssh_failures_are_explained(lab: Lab, over_ssh: Sshd, tmp_path: Path) -> None:
    """No server, an unknown host key, a missing socket, and no permission."""
    closed = refusal("ssh://root@127.0.0.1:1/var/run/docker.sock")
    assert "Connection refused" in closed.message
    assert "ssh -p 1 root@127.0.0.1 true" in closed.hint
    absent = refusal(over_ssh.url("/nowhere/engine.sock"))
    assert "/nowhere/engine.sock does not exist on root@127.0.0.1" in absent.message
    denied = refusal(over_ssh.url(str(lab.docker.socket), rootless(lab).user))
    assert isinstance(denied, EngineNotPermitted)
    (over_ssh.folder / "config").rename(tmp_path / "config")
    (over_ssh.folder / "config").write_text("Host *\n  UserKnownHostsFile /dev/null\n")
    try:
        assert "Host key verification failed" in refusal(over_ssh.url("/x")).message
    finally:
        (tmp_path / "config").replace(over_ssh.folder / "config")
    assert ssh_clients() == []


def test_the_ssh_process_ends_when_imgload_is_killed(lab: Lab, over_ssh: Sshd) -> None:
    """Skaffold kills a build that does not stop in two seconds; the next run removes the folder."""
    script = (
        "import os, signal; from imgload.engines.discovery.candidates import Candidate;"
        "from imgload.engines.discovery.probe import probe;"
        f"reached = probe(Candidate('docker', {over_ssh.url(str(lab.docker.socket))!r}, 'test'));"
        "print(reached.tunnel.process.pid, flush=True);"
        "os.kill(os.getpid(), signal.SIGKILL)"
    )
    command = [sys.executable, "-c", script]
    with open_folder() as folder:
        environ = {**os.environ, "TMPDIR": str(folder)}
        killed = subprocess.run(command, env=environ, capture_output=True, check=False)
        assert len(list(folder.iterdir())) == 1
        by_socket = {**environ, "DOCKER_HOST": lab.docker.url}
        look = [sys.executable, "-m", "imgload", "clusters"]
        subprocess.run(look, env=by_socket, capture_output=True, check=True)
        assert list(folder.iterdir()) == []
    ssh = Path(f"/proc/{int(killed.stdout)}")
    assert killed.returncode == -signal.SIGKILL
    deadline = time.monotonic() + 5
    while _runs(ssh) and time.monotonic() < deadline:
        time.sleep(0.02)
    assert not _runs(ssh)


def _runs(process: Path) -> bool:
    try:
        return (process / "stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


@pytest.fixture
def over_tls(lab: Lab, monkeypatch: pytest.MonkeyPatch) -> str:
    """Select Docker 28's TLS address with the variables of the docker CLI."""
    monkeypatch.setenv("DOCKER_HOST", lab.docker28.tls_url)
    monkeypatch.setenv("DOCKER_TLS_VERIFY", "1")
    monkeypatch.setenv("DOCKER_CERT_PATH", str(lab.docker28.certificates))
    return lab.docker28.tls_url


@pytest.mark.usefixtures("over_tls")
@pytest.mark.parametrize("transport", ["archive", "delta"])
def test_an_engine_over_tls_saves_images_and_runs_nodes(
    lab: Lab, images: Images, transport: TransportOption
) -> None:
    """TLS has no half-close: the image is copied to the node, imported, and removed."""
    node = lab.cluster("lab-e21").nodes[0]
    tag = unique()
    images.build(lab.docker28, tag, os.urandom(300_000))
    [image] = imgload.load(tag, cluster="lab-e21", source="docker", transport=transport).images
    assert image.nodes[0].action == "full"
    assert cri_id(node, f"docker.io/library/{tag}") == str(image.image_id)
    assert "imgload" not in node.exec("ls", "/var/lib")
    forget(node, f"docker.io/library/{tag}")


def test_the_next_run_removes_the_folder_of_a_killed_run(
    lab: Lab, images: Images, over_tls: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also over another address of the engine, and if it sends nothing."""
    node, first, second = lab.cluster("lab-e21").nodes[0], unique(), unique()
    images.build(lab.docker28, first, os.urandom(200 << 20))
    images.build(lab.docker28, second)
    command = [sys.executable, "-m", "imgload", "load", first, "-c", "lab-e21"]
    command += ["--transport", "import"]

    def folders() -> list[str]:
        return [name for name in node.exec("ls", "/var/lib").split() if "imgload-" in name]

    assert over_tls
    imgload.load(second, cluster="lab-e21", source="docker")
    with subprocess.Popen(command, stderr=subprocess.DEVNULL) as copying:
        until(lambda: bool(folders()) or copying.poll() is not None, 60)
        copying.kill()
    assert len(folders()) == 1
    monkeypatch.setenv("DOCKER_HOST", lab.docker28.url)
    monkeypatch.delenv("DOCKER_TLS_VERIFY")
    [image] = imgload.load(second, cluster="lab-e21", source="docker").images
    assert image.nodes[0].action == "present"
    assert folders() == []
    forget(node, f"docker.io/library/{first}", f"docker.io/library/{second}")


def test_an_engine_reached_by_tls_and_socket_is_listed_once(lab: Lab, over_tls: str) -> None:
    """Otherwise each image would be ambiguous; the explicit address is used."""
    socket = Candidate("docker", lab.docker28.url, "--from", explicit=True)
    other = Candidate("docker", lab.docker.url, "--from", explicit=True)
    discovery = discover(also=[socket, other])
    urls = [endpoint.url for endpoint in discovery.endpoints]
    assert urls == [lab.docker28.url, lab.docker.url, lab.podman.url]
    [same] = [attempt for attempt in discovery.attempts if attempt.same_as]
    assert (same.candidate.url, same.same_as) == (over_tls, discovery.endpoints[0])


def discover_quickly(**environ: str) -> Discovery:
    """Run the discovery with these variables only, in less than a second."""
    with time_limit():
        return discover({"HOME": "/nonexistent", "CONTAINER_HOST": "unix:///none", **environ})


def test_tls_failures_are_explained(lab: Lab, tmp_path: Path) -> None:
    """No TLS, no client certificate, an untrusted server, and an invalid certificate file."""
    url, folder = lab.docker28.tls_url, lab.docker28.certificates
    shutil.copy(folder / "ca.pem", tmp_path)
    plain = discover_quickly(DOCKER_HOST=url).errors[0]
    assert "it speaks TLS only" in plain.message
    assert "DOCKER_TLS_VERIFY=1" in plain.hint
    anonymous = discover_quickly(
        DOCKER_HOST=url, DOCKER_TLS_VERIFY="1", DOCKER_CERT_PATH=str(tmp_path)
    )
    assert isinstance(anonymous.errors[0], EngineNotPermitted)
    assert "cert.pem" in anonymous.errors[0].hint
    stranger = discover_quickly(DOCKER_HOST=url, DOCKER_TLS_VERIFY="1")
    assert "not trusted" in stranger.errors[0].message
    unverified = {"DOCKER_TLS": "1", "DOCKER_CERT_PATH": str(folder)}
    assert discover_quickly(DOCKER_HOST=url, **unverified).endpoints[0].url == url
    (tmp_path / "ca.pem").write_text("none")
    broken = discover_quickly(
        DOCKER_HOST=url, DOCKER_TLS_VERIFY="1", DOCKER_CERT_PATH=str(tmp_path)
    )
    assert "ca.pem" in broken.errors[0].message


def test_a_contexts_own_certificates_are_used(lab: Lab, tmp_path: Path) -> None:
    """As the docker CLI stores them."""
    folder = lab.docker28.certificates
    files = (f"{option}={folder / option}.pem" for option in ("ca", "cert", "key"))
    endpoint = f"host={lab.docker28.tls_url},{','.join(files)}"
    environ = {**os.environ, "DOCKER_CONFIG": str(tmp_path)}
    docker = ["docker", "context", "create", "remote", "--docker", endpoint]
    subprocess.run(docker, env=environ, check=True, capture_output=True)
    discovery = discover_quickly(DOCKER_CONFIG=str(tmp_path), DOCKER_CONTEXT="remote")
    assert [e.url for e in discovery.endpoints] == [lab.docker28.tls_url]
    assert discovery.endpoints[0].origin == "DOCKER_CONTEXT=remote"
