"""The read side of the registry: what a node may ask, and what nobody else learns."""

from __future__ import annotations

import contextlib
import http.client
import threading
from collections.abc import Iterator

import pytest

from imgload.oci.digest import Digest
from imgload.registry.blob_store import BlobStore, StoredBlob
from imgload.registry.read_server import serving

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
        "/v2/",
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
