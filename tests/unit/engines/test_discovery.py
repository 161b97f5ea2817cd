"""Which engine answers where, asked over real sockets."""

import contextlib
import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler
from pathlib import Path
from socketserver import ThreadingUnixStreamServer

import pytest

from imgload.engines import discovery
from imgload.engines.base import Endpoint
from imgload.engines.discovery import Candidate, Discovery, candidates, discover, probe
from imgload.errors import EngineError, EngineUnreachable, ImgloadError, UsageError

PODMAN = {"Libpod-Api-Version": "4.3.1", "Api-Version": "1.41"}
DOCKER = {"Api-Version": "1.41", "Server": "Docker/20.10"}


@contextmanager
def engine(path: Path, headers: dict[str, str]) -> Iterator[str]:
    """Answer pings on a socket as an engine does."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(200 if self.path == "/_ping" else 404)
            for name, value in headers.items():
                self.send_header(name, value)
            self.end_headers()
            self.wfile.write(b"OK")

        def address_string(self) -> str:
            return "local"

        def log_message(self, *_: object) -> None:
            pass

    with ThreadingUnixStreamServer(str(path), Handler) as server:
        server.daemon_threads = True
        threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True).start()
        yield f"unix://{path}"
        server.shutdown()


def environ(docker: str, podman: str) -> dict[str, str]:
    return {"DOCKER_HOST": docker, "CONTAINER_HOST": podman}


@pytest.mark.parametrize(("headers", "kind"), [(PODMAN, "podman"), (DOCKER, "docker")])
def test_the_ping_settles_what_an_engine_is(
    tmp_path: Path, headers: dict[str, str], kind: str
) -> None:
    """Podman's socket is often set as DOCKER_HOST (kind #2038)."""
    with engine(tmp_path / "e.sock", headers) as url:
        for claimed in ("docker", "podman"):
            answer = probe(Candidate(claimed, url, "test"))
            assert (answer.kind, answer.url) == (kind, url)


def test_every_engine_that_answers_is_found(tmp_path: Path) -> None:
    """Docker and Podman side by side."""
    with engine(tmp_path / "d", DOCKER) as docker, engine(tmp_path / "p", PODMAN) as podman:
        found = discover(environ(docker, podman))
    assert found.require() == (Endpoint("docker", docker), Endpoint("podman", podman))
    assert found.errors == ()
    assert [e.origin for e in found.endpoints] == ["DOCKER_HOST", "CONTAINER_HOST"]


def test_one_engine_reached_by_two_paths_is_one(tmp_path: Path) -> None:
    """A link to Podman's socket in Docker's place; asked twice, an image would be ambiguous."""
    with engine(tmp_path / "podman.sock", PODMAN) as url:
        link = tmp_path / "docker.sock"
        link.symlink_to(tmp_path / "podman.sock")
        assert len(discover(environ(f"unix://{link}", url)).endpoints) == 1


def test_a_dead_engine_does_not_hide_the_living(tmp_path: Path) -> None:
    """Why the other does not answer is kept."""
    with engine(tmp_path / "p", PODMAN) as podman:
        found = discover(environ(f"unix://{tmp_path}/absent.sock", podman))
    assert found.require() == (Endpoint("podman", podman),)
    [error] = found.errors
    assert isinstance(error, EngineUnreachable)


def dead_socket(path: Path) -> str:
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(path))
    return f"unix://{path}"


def test_a_socket_without_a_daemon_says_where_it_was_found(tmp_path: Path) -> None:
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
def test_what_is_no_engine_is_unreachable(tmp_path: Path, answer: bytes) -> None:
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


def test_an_engine_that_never_answers_is_given_up(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """In seconds."""
    monkeypatch.setattr(discovery, "PROBE_SECONDS", 0.2)
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(tmp_path / "s"))
        listener.listen()
        with pytest.raises(EngineUnreachable):
            probe(Candidate("docker", f"unix://{tmp_path}/s", "test"))


@pytest.mark.parametrize(
    "url", ["", "docker", "/var/run/docker.sock", "npipe:////./x", "file:///x"]
)
def test_what_is_no_address_is_wrong_usage(url: str) -> None:
    """The variable is named."""
    with pytest.raises(UsageError, match="DOCKER_HOST"):
        probe(Candidate("docker", url, "DOCKER_HOST"))


@pytest.mark.parametrize(
    "url",
    [
        "tcp://127.0.0.1:port",
        "tcp://127.0.0.1:99999",
        "tcp://127.0.0.1:-1",
        "tcp://[::1",
        "http://]",
        "tcp://\N{FULLWIDTH SOLIDUS}x",
        "unix://" + "/x" * 200,
        "unix://",
        "unix:///tmp/\udcff.sock",
        "tcp://127.0.0.1:1",
    ],
)
def test_a_bad_address_is_an_error_of_ours(url: str) -> None:
    """A port that is no number, brackets that do not close, a path that is too long."""
    with pytest.raises(ImgloadError):
        probe(Candidate("docker", url, "DOCKER_HOST"))


def test_ssh_is_believed_without_asking() -> None:
    """The SDK makes that connection."""
    answer = probe(Candidate("podman", "ssh://user@host", "CONTAINER_HOST"))
    assert answer == Endpoint("podman", "ssh://user@host")


def test_a_variable_replaces_the_usual_places(tmp_path: Path) -> None:
    """Without one, the sockets that exist are candidates."""
    given = environ("unix:///a", "unix:///b")
    assert [(c.kind, c.url, c.explicit) for c in candidates(given)] == [
        ("docker", "unix:///a", True),
        ("podman", "unix:///b", True),
    ]
    (tmp_path / "podman").mkdir()
    path = tmp_path / "podman/podman.sock"
    path.touch()
    usual = {"DOCKER_HOST": "unix:///a", "XDG_RUNTIME_DIR": str(tmp_path)}
    assert (f"unix://{path}", False) in [(c.url, c.explicit) for c in candidates(usual)]


def test_no_engine_at_all_is_told_with_both_ways_out() -> None:
    """Start one, or name one."""
    with pytest.raises(EngineUnreachable) as caught:
        Discovery((), ()).require()
    assert "--from" in caught.value.hint
    with pytest.raises(EngineError, match="first"):
        Discovery((), (EngineError("first"), EngineError("second"))).require()


def test_a_wrong_variable_is_told_even_when_another_engine_answers(tmp_path: Path) -> None:
    """It was set on purpose."""
    with engine(tmp_path / "p", PODMAN) as podman, pytest.raises(UsageError):
        discover(environ("not an address", podman))


def descriptors() -> int:
    """How many files this process has open."""
    return len(list(Path("/proc/self/fd").iterdir()))


def test_no_connection_is_left_open(tmp_path: Path) -> None:
    """Probing a hundred times takes no hundred descriptors."""
    with engine(tmp_path / "d", DOCKER) as url:
        before = descriptors()
        for _ in range(20):
            with contextlib.suppress(EngineUnreachable):
                probe(Candidate("docker", url, "test"))
        assert descriptors() - before < 10
