"""The read side of the registry: requests of nodes, and of other clients."""

from __future__ import annotations

import contextlib
import http.client
import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack

import pytest

from imgload.oci.digest import Digest
from imgload.registry import http_server, read_server
from imgload.registry.blob_store import BlobStore, StoredBlob
from imgload.registry.read_server import serving
from tests.unit.registry.test_server_bounds import resident, say

SECRET = "0123456789abcdef" * 2
MANIFEST = b'{"schemaVersion":2}'
TYPE = "application/vnd.oci.image.manifest.v1+json"
LAYER = bytes(range(256)) * 4096


@pytest.fixture
def store() -> Iterator[BlobStore]:
    store = BlobStore()
    yield store
    store.close()


@pytest.fixture
def sent() -> list[tuple[str, Digest, int]]:
    return []


@pytest.fixture
def server(
    store: BlobStore, sent: list[tuple[str, Digest, int]]
) -> contextlib.AbstractContextManager[int]:
    def count(node: str, digest: Digest, size: int) -> None:
        sent.append((node, digest, size))

    return serving("127.0.0.1", store, {SECRET: "n1"}, count)


@pytest.fixture
def port(server: contextlib.AbstractContextManager[int]) -> Iterator[int]:
    with server as port:
        yield port


def request(port: int, path: str, method: str = "GET") -> tuple[int, dict[str, str], bytes]:
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=10)
    connection.request(method, path)
    response = connection.getresponse()
    body = response.read()
    connection.close()
    return response.status, dict(response.headers), body


def add_blob(store: BlobStore, content: bytes) -> Digest:
    blob, digest = StoredBlob(len(content)), Digest.of(content)
    store.add_blob(digest, blob)
    blob.append(content)
    return digest


def test_a_blob_is_served_and_counted(
    store: BlobStore,
    server: contextlib.AbstractContextManager[int],
    sent: list[tuple[str, Digest, int]],
) -> None:
    digest = add_blob(store, LAYER)
    path = f"/v2/{SECRET}/library/app/blobs/{digest}?ns=docker.io"
    with server as port:
        status, headers, body = request(port, path)
    assert (status, body) == (200, LAYER)
    assert headers["Docker-Content-Digest"] == str(digest)
    assert sum(size for _, _, size in sent) == len(LAYER)
    assert {(node, blob) for node, blob, _ in sent} == {("n1", digest)}


def test_a_blob_can_be_read_while_it_is_written(store: BlobStore, port: int) -> None:
    blob, digest = StoredBlob(len(LAYER)), Digest.of(LAYER)
    bodies: list[bytes] = []
    path = f"/v2/{SECRET}/library/app/blobs/{digest}"
    readers = [
        threading.Thread(target=lambda: bodies.append(request(port, path)[2])) for _ in range(3)
    ]
    for reader in readers[:2]:
        reader.start()  # waits for a blob that the store does not have yet
    store.add_blob(digest, blob)
    blob.append(LAYER[:1000])
    readers[2].start()
    blob.append(LAYER[1000:])
    for reader in readers:
        reader.join(10)
    assert bodies == [LAYER] * 3


def test_a_manifest_is_served_by_its_tag_and_its_digest(store: BlobStore, port: int) -> None:
    digest = Digest.of(MANIFEST)
    store.add_document(digest, TYPE, MANIFEST)
    store.add_name("n1", "docker.io/library/app:dev", digest)
    for reference in ("dev", str(digest)):
        path = f"/v2/{SECRET}/library/app/manifests/{reference}?ns=docker.io"
        for method, body in (("GET", MANIFEST), ("HEAD", b"")):
            status, headers, received = request(port, path, method)
            assert (status, received) == (200, body)
            assert headers["Content-Type"] == TYPE
            assert headers["Docker-Content-Digest"] == str(digest)


@pytest.mark.parametrize(
    "path",
    [
        "/",
        "/v2",
        f"/v2/{'0' * 32}/",
        f"/v2/{'0' * 32}/library/app/manifests/dev?ns=docker.io",
        f"/v2/{SECRET}/library/app/manifests/other?ns=docker.io",
        f"/v2/{SECRET}/library/app/blobs/{Digest.of(b'other')}",
        f"/v2/{SECRET}/library/app/blobs/nothing",
        f"/v2/{SECRET}/../../etc/passwd",
    ],
)
def test_nothing_else_is_served(store: BlobStore, port: int, path: str) -> None:
    digest = Digest.of(MANIFEST)
    store.add_document(digest, TYPE, MANIFEST)
    store.add_name("n1", "docker.io/library/app:dev", digest)
    store.complete()
    assert request(port, path)[0] == 404


@pytest.mark.parametrize("method", ["PUT", "POST", "PATCH", "DELETE", "OPTIONS"])
def test_the_server_only_reads(port: int, method: str) -> None:
    assert request(port, f"/v2/{SECRET}/library/app/blobs/uploads/", method)[0] >= 400


def test_an_incomplete_blob_breaks_the_connection(store: BlobStore, port: int) -> None:
    blob, digest = StoredBlob(len(LAYER)), Digest.of(LAYER)
    store.add_blob(digest, blob)
    blob.append(LAYER[:1000])
    threading.Timer(0.2, blob.fail).start()
    with pytest.raises(http.client.IncompleteRead):
        request(port, f"/v2/{SECRET}/library/app/blobs/{digest}")


def test_the_port_is_closed_at_the_end(store: BlobStore) -> None:
    with serving("127.0.0.1", store, {}, lambda *_: None) as port:
        pass
    with pytest.raises(ConnectionRefusedError):
        request(port, "/v2/")


def blob_request(digest: Digest) -> bytes:
    return f"GET /v2/{SECRET}/library/app/blobs/{digest} HTTP/1.1\r\n\r\n".encode()


MIB = 1 << 20
HEAD = b"GET /v2/ HTTP/1.1\r\n"
HOSTILE: dict[str, tuple[int, Callable[[Digest], bytes]]] = {
    "silent": (2 * http_server.MAX_STRANGERS, lambda _: b""),
    "slow heads": (100, lambda _: HEAD + b"X: half of a li"),
    "huge heads": (60, lambda _: HEAD + (b"X: " + b"x" * 65_000 + b"\r\n") * 20),
    "huge lines": (60, lambda _: b"GET /" + b"x" * MIB),
    "wrong paths, pipelined": (20, lambda _: (HEAD + b"\r\n") * 10_000),
    "a blob that nobody reads": (60, blob_request),
    "blobs that nobody reads, pipelined": (20, lambda digest: blob_request(digest) * 100),
    "a blob that never comes": (60, lambda _: blob_request(Digest.of(b"never"))),
    "a body": (60, lambda _: HEAD + b"Content-Length: 99999999999\r\n\r\n" + bytes(MIB)),
}
"""By name: a number of connections, and what each of them sends; none reads an answer."""


def connect(port: int) -> socket.socket:
    connection = socket.create_connection(("127.0.0.1", port), timeout=10)
    connection.settimeout(0.2)
    return connection


def wait_for_threads(count: int) -> None:
    deadline = time.monotonic() + 20
    while threading.active_count() > count and time.monotonic() < deadline:
        time.sleep(0.02)


@pytest.mark.parametrize("case", HOSTILE.values(), ids=HOSTILE)
def test_a_node_is_served_beside_hostile_clients(
    store: BlobStore, case: tuple[int, Callable[[Digest], bytes]]
) -> None:
    """With bounded memory and threads, which all end with the server."""
    (count, data), content = case, LAYER * 16  # more than the buffers of a socket
    digest, threads, memory = add_blob(store, content), threading.active_count(), resident()
    with ExitStack() as stack:
        with serving("127.0.0.1", store, {SECRET: "n1"}, lambda *_: None) as port:
            for _ in range(count):
                say(stack.enter_context(connect(port)), data(digest))
            path = f"/v2/{SECRET}/library/app/blobs/{digest}?ns=docker.io"
            assert request(port, path)[2] == content
            most = http_server.MAX_STRANGERS + http_server.MAX_ADMITTED
            assert threading.active_count() - threads < most + 40
            assert resident() - memory < 60 * MIB
            store.complete()
        wait_for_threads(threads)
        assert threading.active_count() <= threads


def test_pipelined_requests_are_answered_in_order(store: BlobStore, port: int) -> None:
    contents = [bytes([number]) * 1000 for number in range(5)]
    requests = b"".join(blob_request(add_blob(store, content)) for content in contents)
    with connect(port) as connection, connection.makefile("rb") as answers:
        connection.sendall(requests)
        for content in contents:
            assert answers.readline().split()[1] == b"200"
            while answers.readline().strip():
                pass
            assert answers.read(len(content)) == content


@pytest.mark.parametrize("sent", [b"", HEAD, HEAD + b"\r\n"])
def test_an_idle_connection_is_closed(
    port: int, monkeypatch: pytest.MonkeyPatch, sent: bytes
) -> None:
    """Before, within and after a request."""
    monkeypatch.setattr("imgload.registry.read_server._Handler.timeout", 0.05)
    with connect(port) as connection:
        connection.settimeout(10)
        say(connection, sent)
        while connection.recv(1000):
            pass


def test_a_reader_that_stops_reading_is_dropped(
    store: BlobStore, port: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A load would otherwise wait for it."""
    monkeypatch.setattr(read_server, "_IDLE_SECONDS", 1)
    digest, threads = add_blob(store, LAYER * 16), threading.active_count()
    with connect(port) as connection:
        say(connection, blob_request(digest))
        wait_for_threads(threads)
        assert threading.active_count() <= threads


def test_connections_of_nodes_are_bounded(
    store: BlobStore, port: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One more is refused, until another closes."""
    monkeypatch.setattr(http_server, "MAX_ADMITTED", 3)
    digest, path = add_blob(store, b"x"), f"/v2/{SECRET}/"
    with ExitStack() as stack:
        answers = []
        for _ in range(5):
            connection = stack.enter_context(connect(port))
            connection.settimeout(10)
            say(connection, f"GET {path} HTTP/1.1\r\n\r\n".encode())
            answers.append(connection.recv(12))
        assert answers == [b"HTTP/1.1 200"] * 3 + [b"HTTP/1.1 404"] * 2
    deadline = time.monotonic() + 5
    while (status := request(port, f"{path}library/app/blobs/{digest}")[0]) != 200:
        assert time.monotonic() < deadline, status
