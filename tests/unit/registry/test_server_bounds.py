"""Bounds on memory and time that other programs on this machine can take."""

from __future__ import annotations

import contextlib
import http.client
import socket
import threading
import time
from pathlib import Path

import pytest

from imgload.core.errors import ArchiveInvalid
from imgload.oci.digest import Digest
from imgload.registry import http_server, server
from imgload.registry import sink as intake
from imgload.registry.server import receiving
from imgload.registry.sink import ManifestSink

MIB = 1 << 20


def connect(repository: str) -> socket.socket:
    host, _, port = repository.partition("/")[0].partition(":")
    return socket.create_connection((host, int(port)), timeout=5)


def ask(repository: str, method: str, path: str, body: bytes | None = None) -> int:
    connection = http.client.HTTPConnection(repository.partition("/")[0], timeout=5)
    with contextlib.closing(connection):
        connection.request(method, f"/v2/{repository.partition('/')[2]}/{path}", body)
        return connection.getresponse().status


def resident() -> int:
    """Return the resident memory of this process in bytes."""
    return int(Path("/proc/self/statm").read_text().split()[1]) * 4096


def say(connection: socket.socket, data: bytes) -> None:
    """Send, unless the other side has closed the connection."""
    with contextlib.suppress(OSError):
        connection.sendall(data)


def test_headers_are_bounded() -> None:
    """A hundred lines of 64 KiB on each of 250 connections would be 1.6 GB."""
    header = b"X: " + b"x" * 65_000 + b"\r\n"
    with contextlib.ExitStack() as stack, receiving(ManifestSink()) as repository:
        connections = [stack.enter_context(connect(repository)) for _ in range(60)]
        before = resident()
        for connection in connections:
            say(connection, b"GET /v2/ HTTP/1.1\r\n" + header * 20)
        assert ask(repository, "PUT", "manifests/x", b"{}") == 201
        assert resident() - before < 40 * MIB


@pytest.mark.parametrize("size", [100, 15_000])
def test_headers_of_a_usual_length_are_read(size: int) -> None:
    """Tokens and traces may make them long."""
    with receiving(ManifestSink()) as repository, connect(repository) as connection:
        say(connection, b"GET /v2/ HTTP/1.1\r\nX: " + b"x" * size + b"\r\n\r\n")
        assert connection.recv(100).startswith(b"HTTP/1.1 200 ")


def test_no_connection_outlives_the_push() -> None:
    """Otherwise each push of a watch would leave a thread for each."""
    before = threading.active_count()
    with contextlib.ExitStack() as stack:
        for _ in range(3):
            with receiving(ManifestSink()) as repository:
                silent = [stack.enter_context(connect(repository)) for _ in range(10)]
                for connection in silent[:5]:
                    say(connection, b"PUT /v2/other HTTP/1.1\r\nContent-Length: 10\r\n")
                inside = f"PUT /v2/{repository.partition('/')[2]}/manifests/x HTTP/1.1\r\n"
                say(silent[5], inside.encode() + b"Content-Length: 10\r\n\r\nhalf")
                assert ask(repository, "PUT", "manifests/x", b"{}") == 201
        deadline = time.monotonic() + 5
        while threading.active_count() > before and time.monotonic() < deadline:
            time.sleep(0.02)
        assert threading.active_count() <= before


@pytest.mark.parametrize("sent", [b"", b"GET /v2/ HTT"])
def test_an_idle_connection_is_closed(monkeypatch: pytest.MonkeyPatch, sent: bytes) -> None:
    """During the push, before or within a request."""
    monkeypatch.setattr("imgload.registry.server._Handler.timeout", 0.05)
    with receiving(ManifestSink()) as repository, connect(repository) as connection:
        say(connection, sent)
        assert connection.recv(100) == b""


def test_connections_to_the_repository_are_bounded(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """One more is refused, until another closes."""
    monkeypatch.setattr(http_server, "MAX_ADMITTED", 3)
    with contextlib.ExitStack() as stack, receiving(ManifestSink()) as repository:
        inside = f"HEAD /v2/{repository.partition('/')[2]}/blobs/{Digest.of(b'')} HTTP/1.1\r\n\r\n"
        answers = []
        for _ in range(5):
            connection = stack.enter_context(connect(repository))
            say(connection, inside.encode())
            answers.append(connection.recv(12))
        assert answers == [b"HTTP/1.1 200"] * 3 + [b"HTTP/1.1 404"] * 2
        stack.close()
        deadline = time.monotonic() + 5
        while (status := ask(repository, "PUT", "manifests/x", b"{}")) != 201:
            assert time.monotonic() < deadline, status


def test_the_size_of_all_manifests_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    """Two thousand of 8 MiB would be 16 GB."""
    monkeypatch.setattr(intake, "MAX_MANIFEST_BYTES", 2500)
    taken = ManifestSink()
    with receiving(taken) as repository:
        bodies = [bytes([n]) * 1000 for n in range(4)]
        statuses = [ask(repository, "PUT", "manifests/x", body) for body in bodies]
    assert statuses == [201, 201, 400, 400]
    with pytest.raises(ArchiveInvalid, match="too many"):
        taken.manifest(Digest.of(bodies[3]), bodies[3])


def test_all_layers_may_connect_in_parallel() -> None:
    """Docker opens one or two connections for each; one that finds no place waits for a second."""
    with contextlib.ExitStack() as stack:
        crowded = stack.enter_context(server.PushServer(ManifestSink()))
        for _ in range(http_server.MAX_ADMITTED):  # and nobody is let in
            address = ("127.0.0.1", crowded.server_address[1])
            stack.enter_context(socket.create_connection(address, timeout=0.5))
