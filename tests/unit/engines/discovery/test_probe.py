"""What an address answers, asked over real sockets."""

import contextlib
import socket
import threading
from pathlib import Path

import pytest

from imgload.core.errors import EngineUnreachable, ImgloadError, UsageError
from imgload.engines.discovery import probe as module
from imgload.engines.discovery.candidates import Candidate
from imgload.engines.discovery.probe import probe
from tests.unit.engines.pings import DOCKER, PODMAN, engine


@pytest.mark.parametrize(("headers", "kind"), [(PODMAN, "podman"), (DOCKER, "docker")])
def test_probe_takes_the_kind_from_the_ping(
    tmp_path: Path, headers: dict[str, str], kind: str
) -> None:
    """Podman's socket is often set as DOCKER_HOST (kind #2038)."""
    with engine(tmp_path / "e.sock", headers) as url:
        for claimed in ("docker", "podman"):
            answer = probe(Candidate(claimed, url, "test"))
            assert (answer.kind, answer.url) == (kind, url)


def dead_socket(path: Path) -> str:
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(path))
    return f"unix://{path}"


def test_probe_names_the_origin_of_a_dead_socket(tmp_path: Path) -> None:
    """And what the system says (kind #4033: "not present locally")."""
    url = dead_socket(tmp_path / "dead.sock")
    with pytest.raises(EngineUnreachable) as caught:
        probe(Candidate("docker", url, "DOCKER_HOST"))
    assert url in caught.value.message
    assert "DOCKER_HOST" in caught.value.message
    assert "Connection refused" in caught.value.message
    assert caught.value.hint


@pytest.mark.parametrize(
    "answer",
    [b"", b"\n", b"SSH-2.0-OpenSSH\r\n", b"HTTP/1.1 200", b"\xff" * 100, b"HTTP/x\r\n\r\n"],
)
def test_probe_rejects_another_server(tmp_path: Path, answer: bytes) -> None:
    """Whatever listens there."""
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(tmp_path / "s"))
        listener.listen()

        def serve() -> None:
            connection, _ = listener.accept()
            with connection:
                connection.recv(1000)
                connection.sendall(answer)

        threading.Thread(target=serve, daemon=True).start()
        with pytest.raises(EngineUnreachable):
            probe(Candidate("docker", f"unix://{tmp_path}/s", "test"))


def test_probe_gives_up_on_a_silent_server(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """In seconds."""
    monkeypatch.setattr(module, "PROBE_SECONDS", 0.2)
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(tmp_path / "s"))
        listener.listen()
        with pytest.raises(EngineUnreachable):
            probe(Candidate("docker", f"unix://{tmp_path}/s", "test"))


@pytest.mark.parametrize(
    "url",
    [
        *("", "docker", "/var/run/docker.sock", "fd://", "file:///x"),
        *("unix://", "unix://[x", "tcp://", "tcp://:2375", "http://", "http://]", "tcp://[::1"),
        *("tcp://localhost:port", "tcp://127.0.0.1:99999", "tcp://127.0.0.1:-1"),
        *("ssh://", "ssh://host:port", "ssh://me:password@host"),
    ],
)
def test_probe_rejects_an_invalid_address(url: str) -> None:
    """The variable is named: no engine that is started would answer there."""
    with pytest.raises(UsageError, match="DOCKER_HOST: not an engine's address") as caught:
        probe(Candidate("docker", url, "DOCKER_HOST"))
    assert "tcp://host:port" in caught.value.hint


def test_probe_rejects_windows_named_pipes() -> None:
    """It is an engine's address, and not a mistake."""
    with pytest.raises(EngineUnreachable, match="named pipes") as caught:
        probe(Candidate("docker", "npipe:////./pipe/docker_engine", "DOCKER_HOST"))
    assert "WSL" in caught.value.hint


def test_probe_raises_the_problem_of_a_candidate() -> None:
    """A context that is gone, say."""
    problem = EngineUnreachable("no such context")
    with pytest.raises(EngineUnreachable, match="no such context"):
        probe(Candidate("docker", "", "DOCKER_CONTEXT=gone", problem=problem))


@pytest.mark.parametrize(
    "url",
    [
        "tcp://\N{FULLWIDTH SOLIDUS}x",
        "unix://" + "/x" * 200,
        "unix:///tmp/\udcff.sock",
        "tcp://127.0.0.1:1",
    ],
)
def test_probe_raises_only_imgload_errors(url: str) -> None:
    """A path that is too long, or in no encoding, a host that cannot be."""
    with pytest.raises(ImgloadError):
        probe(Candidate("docker", url, "DOCKER_HOST"))


def descriptors() -> int:
    """How many files this process has open."""
    return len(list(Path("/proc/self/fd").iterdir()))


def test_probe_leaves_no_connection_open(tmp_path: Path) -> None:
    """Probing a hundred times takes no hundred descriptors."""
    with engine(tmp_path / "d", DOCKER) as url:
        before = descriptors()
        for _ in range(20):
            with contextlib.suppress(EngineUnreachable):
                probe(Candidate("docker", url, "test"))
        assert descriptors() - before < 10
