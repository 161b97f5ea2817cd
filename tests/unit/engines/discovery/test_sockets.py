"""The usual places of engines, below folders of our own."""

import os
import socket
from collections.abc import Iterator
from pathlib import Path

import pytest

from imgload.engines.discovery.candidates import absent_sockets, is_installed, usual_sockets
from imgload.engines.endpoint import permit, start, start_any

OURS = {
    "docker": {
        "run/docker.sock": "rootless Docker",
        "home/.docker/run/docker.sock": "Docker Desktop",
        "home/.docker/desktop/docker.sock": "Docker Desktop",
        "home/.colima/default/docker.sock": "Colima",
        "home/.colima/work/docker.sock": "Colima",
        "home/.orbstack/run/docker.sock": "OrbStack",
        "home/.rd/docker.sock": "Rancher Desktop",
    },
    "podman": {
        "run/podman/podman.sock": "rootless Podman",
        "run/podman/podman-machine-default-api.sock": "podman machine",
        "home/.local/share/containers/podman/machine/podman.sock": "podman machine",
        "home/.local/share/containers/podman/machine/qemu/podman.sock": "podman machine",
        "tmp/podman/podman-machine-default-api.sock": "podman machine",
    },
}


@pytest.fixture
def environ(tmp_path: Path) -> dict[str, str]:
    folders = {"HOME": "home", "XDG_RUNTIME_DIR": "run", "TMPDIR": "tmp"}
    return {name: str(tmp_path / folder) for name, folder in folders.items()}


def listen(path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    with socket.socket(socket.AF_UNIX) as listener:
        os.chdir(path.parent)  # a socket's path is short
        listener.bind(path.name)


@pytest.fixture(autouse=True)
def stay() -> Iterator[None]:
    """Return to where the test began."""
    before = Path.cwd()
    yield
    os.chdir(before)


def found(kind: str, environ: dict[str, str], below: Path) -> dict[str, str]:
    """Return the places below a folder, with their products: the machine may have more."""
    usual = usual_sockets(kind, environ)  # type: ignore[arg-type]
    paths = ((Path(c.url.removeprefix("unix://")), c.origin) for c in usual)
    return {str(p.relative_to(below)): o for p, o in paths if p.is_relative_to(below)}


@pytest.mark.parametrize("kind", OURS)
def test_usual_sockets_finds_each_product(
    tmp_path: Path, environ: dict[str, str], kind: str
) -> None:
    """On Linux and macOS alike."""
    assert found(kind, environ, tmp_path) == {}
    for path in OURS[kind]:
        listen(tmp_path / path)
    assert found(kind, environ, tmp_path) == OURS[kind]


def test_usual_sockets_follows_colima_home(tmp_path: Path, environ: dict[str, str]) -> None:
    """As its own variable says."""
    listen(tmp_path / "c/default/docker.sock")
    environ["COLIMA_HOME"] = str(tmp_path / "c")
    assert found("docker", environ, tmp_path) == {"c/default/docker.sock": "Colima"}


@pytest.mark.skipif(os.geteuid() != 0, reason="gives a file away, which only root can")
def test_usual_sockets_skips_another_users_socket_in_a_shared_folder(
    tmp_path: Path, environ: dict[str, str]
) -> None:
    """/tmp is everybody's: what listens there could be anybody."""
    path = tmp_path / "tmp/podman/x-api.sock"
    listen(path)
    assert list(found("podman", environ, tmp_path)) == ["tmp/podman/x-api.sock"]
    os.chown(path, 65534, 65534)
    assert found("podman", environ, tmp_path) == {}


@pytest.mark.skipif(os.geteuid() != 0, reason="gives a folder away, which only root can")
def test_usual_sockets_follows_no_link_in_another_users_folder(
    tmp_path: Path, environ: dict[str, str]
) -> None:
    """Whoever owns the folder can turn the link to a socket of their own at any time."""
    listen(tmp_path / "real.sock")
    path = tmp_path / "tmp/podman/x-api.sock"
    path.parent.mkdir(parents=True)
    path.symlink_to(tmp_path / "real.sock")
    assert list(found("podman", environ, tmp_path)) == ["tmp/podman/x-api.sock"]
    os.chown(path.parent, 65534, 65534)
    assert found("podman", environ, tmp_path) == {}


def test_usual_sockets_skips_a_world_writable_folder(
    tmp_path: Path, environ: dict[str, str]
) -> None:
    """Anybody could replace it; in a sticky folder only its owner can."""
    path = tmp_path / "tmp/podman/x-api.sock"
    listen(path)
    path.parent.chmod(0o777)
    assert found("podman", environ, tmp_path) == {}
    path.parent.chmod(0o1777)
    assert list(found("podman", environ, tmp_path)) == ["tmp/podman/x-api.sock"]


def test_usual_sockets_are_limited_in_number(tmp_path: Path, environ: dict[str, str]) -> None:
    """Nor does a folder that cannot be listed stop anything."""
    for number in range(40):
        listen(tmp_path / f"home/.colima/p{number}/docker.sock")
    assert len(found("docker", environ, tmp_path)) == 20


def test_usual_sockets_knows_the_runtime_folder_without_a_login(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Under sudo, su and cron the variable is not set."""
    monkeypatch.setattr(os, "getuid", lambda: 1234)
    urls = [place.url for place in absent_sockets({"HOME": "/nonexistent"})]
    assert "unix:///run/user/1234/docker.sock" in urls
    assert "unix:///run/user/1234/podman/podman.sock" in urls


def test_absent_sockets_lists_missing_sockets(tmp_path: Path, environ: dict[str, str]) -> None:
    """Until it is there."""
    url = f"unix://{tmp_path}/home/.rd/docker.sock"
    assert url in [place.url for place in absent_sockets(environ)]
    listen(tmp_path / "home/.rd/docker.sock")
    assert url not in [place.url for place in absent_sockets(environ)]


def test_is_installed_recognises_a_stopped_product(tmp_path: Path, environ: dict[str, str]) -> None:
    """Its command is the first thing to try."""
    assert [place for place in absent_sockets(environ) if is_installed(place)] == []
    (tmp_path / "home/.colima").mkdir(parents=True)
    [stopped] = [place for place in absent_sockets(environ) if is_installed(place)]
    assert (stopped.origin, start(stopped.url)) == ("Colima", "colima start")


def test_usual_sockets_lists_the_named_pipe_on_windows(monkeypatch: pytest.MonkeyPatch) -> None:
    """They are listed, and asking one says that it is not supported."""
    monkeypatch.setattr("sys.platform", "win32")
    assert [c.url for c in usual_sockets("docker", {})] == ["npipe:////./pipe/docker_engine"]


@pytest.mark.parametrize(
    ("url", "command"),
    [
        ("unix:///var/run/docker.sock", "sudo systemctl start docker"),
        ("unix:///run/user/1000/docker.sock", "systemctl --user start docker"),
        ("unix:///run/user/1000/podman/podman.sock", "systemctl --user start podman.socket"),
        ("unix:///run/podman/podman.sock", "sudo systemctl start podman.socket"),
        ("unix:///Users/x/.colima/default/docker.sock", "colima start"),
        ("unix:///Users/x/.colima/*/docker.sock", "colima start"),
        ("unix:///Users/x/.colima/work/docker.sock", "colima start work"),
        ("unix:///Users/x/.orbstack/run/docker.sock", "orb start"),
        ("unix:///Users/x/.rd/docker.sock", "rdctl start"),
        ("unix:///Users/x/.docker/run/docker.sock", "docker desktop start"),
        ("unix:///home/x/.docker/desktop/docker.sock", "docker desktop start"),
        ("unix:///var/folders/q/T/podman/podman-machine-default-api.sock", "podman machine start"),
        ("unix:///x/podman/machine/podman.sock", "podman machine start"),
        (
            "unix:///elsewhere/docker.sock",
            "start the engine that listens at unix:///elsewhere/docker.sock",
        ),
        ("tcp://192.0.2.1:2376", "start the engine that listens at tcp://192.0.2.1:2376"),
    ],
)
def test_start_returns_the_command_for_each_address(url: str, command: str) -> None:
    """As the product's own documentation has it."""
    assert start(url) == command


def test_start_any_and_permit_fit_the_machine(monkeypatch: pytest.MonkeyPatch) -> None:
    """No systemctl on a Mac."""
    monkeypatch.setattr("sys.platform", "darwin")
    assert "systemctl" not in start_any()
    monkeypatch.setattr("sys.platform", "linux")
    assert "systemctl" in start_any()
    assert "usermod -aG docker" in permit("docker")
    assert "usermod" not in permit("podman")
