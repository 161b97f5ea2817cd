"""HTTP over an engine's socket, against a real server on a unix socket."""

from __future__ import annotations

import json
import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import pytest

from imgload.core.errors import EngineFailed, EngineUnreachable
from imgload.engines.docker import Docker
from imgload.engines.endpoint import Endpoint
from imgload.engines.http import Answer, Request, Wire
from imgload.engines.http_engine import parse_json
from imgload.engines.podman import Podman
from tests.unit.bounds import memory_below, within

Reply = Callable[[socket.socket, bytes], None]


@contextmanager
def served(folder: Path, reply: Reply) -> Iterator[Endpoint]:
    """Answer each connection's request with what a function sends."""
    path = folder / "engine.sock"
    with socket.socket(socket.AF_UNIX) as server:
        server.bind(str(path))
        server.listen()
        threading.Thread(target=_serve, args=(server, reply), daemon=True).start()
        yield Endpoint("docker", f"unix://{path}", version="1.41")
        with suppress(OSError):
            server.shutdown(socket.SHUT_RDWR)


def _serve(server: socket.socket, reply: Reply) -> None:
    with suppress(OSError):
        while True:
            connection, _ = server.accept()
            with connection, suppress(OSError):
                head = b""
                while b"\r\n\r\n" not in head:
                    head += connection.recv(65536)
                reply(connection, head)


def says(data: bytes) -> Reply:
    return lambda connection, _head: connection.sendall(data)


def document(value: object, status: str = "200 OK") -> bytes:
    body = json.dumps(value).encode()
    return f"HTTP/1.1 {status}\r\nContent-Length: {len(body)}\r\n\r\n".encode() + body


def ask(endpoint: Endpoint, request: Request) -> Answer:
    return Wire(endpoint).send(request)


def test_a_document_is_read_whole(tmp_path: Path) -> None:
    """With its status."""
    with (
        served(tmp_path, says(document({"a": 1}, "404 Not Found"))) as endpoint,
        ask(endpoint, Request("GET", "/x")) as answer,
    ):
        assert (answer.status, parse_json(answer.read())) == (404, {"a": 1})


def test_parameters_are_escaped(tmp_path: Path) -> None:
    """An image's name or a filter must not become another request."""
    heads: list[bytes] = []

    def reply(connection: socket.socket, head: bytes) -> None:
        heads.append(head)
        connection.sendall(document({}))

    with served(tmp_path, reply) as endpoint:
        params = [("names", "a b&c=d"), ("names", "e\r\nX: y")]
        ask(endpoint, Request("GET", "/images/get", params)).close()
    assert heads[0].startswith(
        b"GET /images/get?names=a+b%26c%3Dd&names=e%0D%0AX%3A+y HTTP/1.1\r\n"
    )


def test_a_chunked_body_is_a_stream(tmp_path: Path) -> None:
    """In pieces of at most 1 MiB, in constant memory."""

    def reply(connection: socket.socket, _head: bytes) -> None:
        connection.sendall(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n")
        for _ in range(640):
            connection.sendall(b"10000\r\n" + bytes(65536) + b"\r\n")
        connection.sendall(b"0\r\n\r\n")

    with (
        served(tmp_path, reply) as endpoint,
        memory_below(8 << 20),
        ask(endpoint, Request("GET", "/x")) as answer,
    ):
        assert sum(map(len, answer.chunks())) == 640 * 65536


def test_an_endless_line_comes_in_parts(tmp_path: Path) -> None:
    """In constant memory."""

    def reply(connection: socket.socket, _head: bytes) -> None:
        connection.sendall(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n")
        connection.sendall(b"4\r\na\nb\n\r\n")
        for _ in range(640):
            connection.sendall(b"10000\r\n" + bytes(65536) + b"\r\n")
        connection.sendall(b"0\r\n\r\n")

    with (
        served(tmp_path, reply) as endpoint,
        memory_below(8 << 20),
        ask(endpoint, Request("GET", "/x")) as answer,
    ):
        lengths = [len(line) for line in answer.lines()]
    assert (lengths[:2], sum(lengths[2:])) == ([1, 1], 640 * 65536)
    assert max(lengths) <= 2 << 20


@pytest.mark.parametrize(
    "body",
    [
        b"Transfer-Encoding: chunked\r\n\r\n10\r\nhalf",
        b"Transfer-Encoding: chunked\r\n\r\nnonsense\r\n",
        b"Transfer-Encoding: chunked\r\n\r\n4\r\nfour\r\n",
    ],
)
def test_a_stream_that_is_cut_off_is_an_error(tmp_path: Path, body: bytes) -> None:
    """A dead daemon must not look like the end of an archive."""
    with served(tmp_path, says(b"HTTP/1.1 200 OK\r\n" + body)) as endpoint:
        engine = Docker(endpoint)
        with pytest.raises(EngineFailed), engine.save(["app"], None) as archive:
            list(archive)


@pytest.mark.parametrize("kind", [Docker, Podman])
def test_a_large_image_may_be_spooled_for_longer(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kind: type[Docker | Podman]
) -> None:
    """Docker 20.10 and Podman write all of an archive to their disk before its first byte."""
    monkeypatch.setattr("imgload.engines.http.STREAM_SECONDS", 0.1)
    monkeypatch.setattr("imgload.engines.http._SPOOLED_A_SECOND", 1 << 30)

    def reply(connection: socket.socket, request: bytes) -> None:
        assert b"/images/" in request
        time.sleep(0.5)
        with suppress(OSError):  # it may not have waited
            connection.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n{}")

    with served(tmp_path, reply) as endpoint:
        engine = kind(endpoint)
        with pytest.raises(EngineFailed), engine.save(["app"], None, 1 << 20) as archive:
            list(archive)
        with engine.save(["app"], None, 20 << 30) as archive:
            assert b"".join(archive) == b"{}"


def test_a_body_shorter_than_announced_is_an_error(tmp_path: Path) -> None:
    """As a stream, and as a document."""
    short = b"HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\n{}"
    with served(tmp_path, says(short)) as endpoint:
        engine = Docker(endpoint)
        with pytest.raises(EngineFailed):
            engine.find("app")
        with pytest.raises(EngineFailed), engine.save(["app"], None) as archive:
            list(archive)


@pytest.mark.parametrize("data", [b"", b"SSH-2.0-x\r\n", b"HTTP/1.1 999999 x\r\n\r\n", b"\0" * 99])
def test_another_protocol_is_an_engine_error(tmp_path: Path, data: bytes) -> None:
    """Another program has the socket."""
    with (
        served(tmp_path, says(data)) as endpoint,
        pytest.raises((EngineFailed, EngineUnreachable)),
    ):
        Docker(endpoint).find("app")


@pytest.mark.parametrize("body", [b"[", b"[" * 100_000, b"\xff", b""])
def test_invalid_json_is_engine_failed(tmp_path: Path, body: bytes) -> None:
    """However deep it is nested."""
    head = f"HTTP/1.1 200 OK\r\nContent-Length: {len(body)}\r\n\r\n".encode()
    with (
        served(tmp_path, says(head + body)) as endpoint,
        pytest.raises(EngineFailed, match="JSON"),
    ):
        Docker(endpoint).find("app")


def test_an_endless_document_is_refused(tmp_path: Path) -> None:
    """Memory is bounded."""

    def reply(connection: socket.socket, _head: bytes) -> None:
        connection.sendall(b"HTTP/1.1 200 OK\r\n\r\n")
        while True:
            connection.sendall(bytes(1 << 20))

    with (
        served(tmp_path, reply) as endpoint,
        within(20),
        pytest.raises(EngineFailed, match="longer"),
    ):
        Docker(endpoint).find("app")


def test_an_error_has_the_engines_own_message(tmp_path: Path) -> None:
    """And not as a status alone."""
    reply = says(document({"message": "the database is locked"}, "500 Internal Server Error"))
    with (
        served(tmp_path, reply) as endpoint,
        pytest.raises(EngineFailed, match="the database is locked"),
    ):
        Docker(endpoint).containers("x")


def test_a_request_times_out(tmp_path: Path) -> None:
    """After the request's own time."""
    hold = threading.Event()
    with (
        served(tmp_path, lambda _connection, _head: (hold.wait(5), None)[1]) as endpoint,
        pytest.raises(TimeoutError),
    ):
        ask(endpoint, Request("GET", "/x", seconds=0.2))
    hold.set()


def test_a_missing_socket_is_unreachable(tmp_path: Path) -> None:
    """Between discovery and use."""
    endpoint = Endpoint("docker", f"unix://{tmp_path}/gone.sock", version="1.41")
    with pytest.raises(EngineUnreachable, match="nobody answers"):
        Docker(endpoint).find("app")
