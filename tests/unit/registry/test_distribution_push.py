"""The push requirements of the OCI distribution specification (spec.md), against the receiver.

Each test names the section, or the endpoint of the table "Endpoints". The receiver serves none of
the content, and its errors have no codes, which the specification allows ("Error Codes").
"""

from __future__ import annotations

import contextlib
import http.client
import json
from collections.abc import Iterator
from functools import partial

import attrs
import pytest

from imgload.core.errors import DigestMismatch
from imgload.oci.digest import Digest
from imgload.oci.document import MANIFEST
from imgload.registry.server import MAX_MANIFEST, receiving
from tests.unit.archives import Image, layer

BLOB = layer("a layer")
DIGEST = Digest.of(BLOB)
IMAGE = Image((BLOB,))
OTHER = Digest.of(b"other")


@attrs.define
class Upload:
    """A blob in memory."""

    sink: StoringSink
    data: bytearray = attrs.field(factory=bytearray)

    def write(self, chunk: bytes) -> None:
        self.data += chunk

    def finish(self, digest: Digest) -> None:
        if Digest.of(bytes(self.data)) != digest:
            raise DigestMismatch("another digest")
        self.sink.blobs[digest] = bytes(self.data)

    def abandon(self) -> None:
        self.sink.abandoned += 1


@attrs.define
class StoringSink:
    """Takes every blob and manifest."""

    blobs: dict[Digest, bytes] = attrs.field(factory=dict)
    manifests: dict[Digest, bytes] = attrs.field(factory=dict)
    abandoned: int = 0

    def stat_blob(self, digest: Digest) -> int | None:
        return len(self.blobs[digest]) if digest in self.blobs else None

    def upload(self, _digest: Digest | None, _size: int | None) -> Upload:
        return Upload(self)

    def manifest(self, digest: Digest, raw: bytes) -> None:
        self.manifests[digest] = raw


@attrs.frozen
class Answer:
    """A response with its whole body."""

    status: int
    headers: http.client.HTTPMessage
    body: bytes

    @property
    def codes(self) -> set[str]:
        """The error codes of the body, which is JSON in the specified form ("Error Codes")."""
        assert self.headers["Content-Type"] == "application/json"
        return {error["code"] for error in json.loads(self.body)["errors"]}


@attrs.frozen
class Client:
    """Sends requests to a repository."""

    repository: str
    sink: StoringSink

    def ask(self, method: str, path: str, body: bytes | None = None, **headers: str) -> Answer:
        """Send a request; `path` is in the repository, or a whole one."""
        host, _, name = self.repository.partition("/")
        whole = path if path.startswith("/") else f"/v2/{name}/{path}"
        fields = {name.replace("_", "-"): value for name, value in headers.items()}
        with contextlib.closing(http.client.HTTPConnection(host, timeout=5)) as connection:
            connection.request(method, whole, body, fields)
            response = connection.getresponse()
            return Answer(response.status, response.headers, response.read())

    def start(self) -> str:
        """Begin an upload; return its location."""
        answer = self.ask("POST", "blobs/uploads/", Content_Length="0")
        assert answer.status == 202
        return answer.headers["Location"]


@pytest.fixture
def client() -> Iterator[Client]:
    sink = StoringSink()
    with receiving(sink) as repository:
        yield Client(repository, sink)


def test_the_base_path_shows_support(client: Client) -> None:
    """end-1, "Determining Support"."""
    assert client.ask("GET", "/v2/").status == 200


def test_a_blob_is_pushed_by_post_then_put(client: Client) -> None:
    """end-4a and end-6, "POST then PUT"."""
    location = client.start()
    kind = {"Content_Type": "application/octet-stream"}
    answer = client.ask("PUT", f"{location}?digest={DIGEST}", BLOB, **kind)
    assert (answer.status, client.sink.blobs) == (201, {DIGEST: BLOB})
    assert answer.headers["Location"].endswith(f"/blobs/{DIGEST}")
    assert answer.headers["Docker-Content-Digest"] == str(DIGEST)


def test_a_blob_is_pushed_by_a_single_post(client: Client) -> None:
    """end-4b, "Single POST"."""
    answer = client.ask("POST", f"blobs/uploads/?digest={DIGEST}", BLOB)
    assert (answer.status, client.sink.blobs) == (201, {DIGEST: BLOB})
    assert answer.headers["Location"].endswith(f"/blobs/{DIGEST}")


@pytest.mark.parametrize("last_in_put", [False, True])
def test_a_blob_is_pushed_in_chunks(client: Client, *, last_in_put: bool) -> None:
    """end-5 and end-6, "Pushing a blob in chunks": `Range` ends at the last byte of the blob."""
    location, middle = client.start(), len(BLOB) // 2
    chunks = [(0, BLOB[:middle]), (middle, BLOB[middle:])]
    for start, chunk in chunks[:1] if last_in_put else chunks:
        end = start + len(chunk) - 1
        answer = client.ask("PATCH", location, chunk, Content_Range=f"{start}-{end}")
        assert (answer.status, answer.headers["Range"]) == (202, f"0-{end}")
        location = answer.headers["Location"]
    rest = BLOB[middle:] if last_in_put else b""
    fields = {"Content_Range": f"{middle}-{len(BLOB) - 1}"} if last_in_put else {}
    answer = client.ask("PUT", f"{location}?digest={DIGEST}", rest, **fields)
    assert (answer.status, client.sink.blobs) == (201, {DIGEST: BLOB})


@pytest.mark.parametrize("method", ["PATCH", "PUT"])
@pytest.mark.parametrize("field", ["10-20", "4-7", "x", "bytes 5-9/10"])
def test_a_chunk_out_of_order_is_416(client: Client, method: str, field: str) -> None:
    """end-5 and end-6; the upload continues where it was, as a GET shows (end-13)."""
    location = client.start()
    assert client.ask("PATCH", location, BLOB[:5], Content_Range="0-4").status == 202
    digest = f"?digest={DIGEST}" if method == "PUT" else ""
    answer = client.ask(method, location + digest, b"later", Content_Range=field)
    assert answer.status == 416
    status = client.ask("GET", location)
    assert (status.status, status.headers["Range"], status.body) == (204, "0-4", b"")
    rest = f"5-{len(BLOB) - 1}"
    location = status.headers["Location"] + f"?digest={DIGEST}"
    assert client.ask("PUT", location, BLOB[5:], Content_Range=rest).status == 201
    assert client.sink.blobs == {DIGEST: BLOB}


def test_an_upload_can_be_cancelled(client: Client) -> None:
    """end-14, "Cancel a blob upload"."""
    location = client.start()
    client.ask("PATCH", location, b"half")
    assert client.ask("DELETE", location).status == 204
    assert client.sink.abandoned == 1
    for ask in (partial(client.ask, "GET"), partial(client.ask, "DELETE")):
        answer = ask(location)
        assert answer.status == 404


def test_a_blob_need_not_be_mounted(client: Client) -> None:
    """end-11, "Mounting a blob": 202 begins an upload instead."""
    answer = client.ask("POST", f"blobs/uploads/?mount={DIGEST}&from=library/app")
    location = answer.headers["Location"]
    assert (answer.status, "?" in location) == (202, False)
    assert client.ask("PUT", f"{location}?digest={DIGEST}", BLOB).status == 201


@pytest.mark.parametrize("digest", [str(OTHER), "sha256:short", "md5:" + "0" * 32, ""])
def test_a_wrong_digest_is_400(client: Client, digest: str) -> None:
    """end-4b and end-6, "Pushing blobs": invalid, unsupported, or of other content."""
    for method, path in (
        ("PUT", f"{client.start()}?digest={digest}"),
        ("POST", f"blobs/uploads/?digest={digest}"),
    ):
        answer = client.ask(method, path, BLOB)
        assert answer.status == 400, method
    assert client.sink.blobs == {}


def test_an_unknown_upload_is_404(client: Client) -> None:
    """end-5, end-6, end-13."""
    location = client.start()[:-16] + "0" * 16
    for method in ("PATCH", "PUT"):
        answer = client.ask(method, f"{location}?digest={DIGEST}", b"x")
        assert answer.status == 404
    assert client.ask("GET", location).status == 404


def test_a_pushed_blob_exists(client: Client) -> None:
    """end-2, "Checking if content exists in the registry"."""
    assert client.ask("HEAD", f"blobs/{DIGEST}").status == 404
    client.ask("POST", f"blobs/uploads/?digest={DIGEST}", BLOB)
    answer = client.ask("HEAD", f"blobs/{DIGEST}")
    assert (answer.status, answer.body) == (200, b"")
    assert answer.headers["Content-Length"] == str(len(BLOB))
    assert answer.headers["Docker-Content-Digest"] == str(DIGEST)


@pytest.mark.parametrize("name", ["v1", "_" + "x" * 127, str(IMAGE.digest)])
def test_a_manifest_is_stored_byte_for_byte(client: Client, name: str) -> None:
    """end-7a, "Pushing Manifests", by tag and by digest; `subject` need not exist."""
    answer = client.ask("PUT", f"manifests/{name}", IMAGE.manifest, Content_Type=MANIFEST)
    assert (answer.status, client.sink.manifests) == (201, {IMAGE.digest: IMAGE.manifest})
    assert answer.headers["Location"].endswith(f"/manifests/{IMAGE.digest}")
    assert answer.headers["Docker-Content-Digest"] == str(IMAGE.digest)


def test_a_manifest_with_another_digest_is_400(client: Client) -> None:
    """end-7a."""
    answer = client.ask("PUT", f"manifests/{OTHER}", IMAGE.manifest)
    assert answer.status == 400
    assert client.sink.manifests == {}


@pytest.mark.parametrize(("size", "status"), [(4 << 20, 201), (MAX_MANIFEST + 1, 413)])
def test_manifests_of_four_megabytes_are_accepted(client: Client, size: int, status: int) -> None:
    """end-7a, "Pushing Manifests": a larger one than the registry accepts is 413."""
    body = bytes(size) if status == 201 else b""  # the answer comes before the body
    answer = client.ask("PUT", "manifests/v1", body, Content_Length=str(size))
    assert answer.status == status


@pytest.mark.parametrize(("size", "status"), [(1000, 201), (MAX_MANIFEST + 1, 413), (0, 400)])
def test_a_manifest_may_come_in_chunks_of_http(client: Client, size: int, status: int) -> None:
    """RFC 9112, section 7.1: the specification's own conformance test sends no length."""
    host, _, name = client.repository.partition("/")
    with contextlib.closing(http.client.HTTPConnection(host, timeout=5)) as connection:
        pieces = (bytes(min(size - start, 1 << 20)) for start in range(0, size, 1 << 20))
        connection.request("PUT", f"/v2/{name}/manifests/v1", pieces, encode_chunked=True)
        assert connection.getresponse().status == status
    assert len(client.sink.manifests) == (status == 201)


def test_deletion_is_not_supported(client: Client) -> None:
    """end-9 and end-10, "Content Management"."""
    for path in ("manifests/v1", f"manifests/{IMAGE.digest}", f"blobs/{DIGEST}"):
        answer = client.ask("DELETE", path)
        assert (answer.status, answer.codes) == (405, {"UNSUPPORTED"})


@pytest.mark.parametrize(
    "path",
    [
        "manifests/v1",
        f"blobs/{DIGEST}",
        "tags/list",
        f"referrers/{DIGEST}",
        "/v2/library/app/manifests/v1",
    ],
)
def test_nothing_can_be_pulled(client: Client, path: str) -> None:
    """end-2, end-3, end-8a, end-12a: 404, which tells a client to use the referrers tag schema."""
    client.ask("POST", f"blobs/uploads/?digest={DIGEST}", BLOB)
    client.ask("PUT", "manifests/v1", IMAGE.manifest)
    assert client.ask("GET", path).status == 404


@pytest.mark.parametrize("path", ["library/app/blobs/uploads/", "imgload/blobs/uploads/"])
def test_another_repository_is_404(client: Client, path: str) -> None:
    """end-4a."""
    answer = client.ask("POST", f"/v2/{path}")
    assert answer.status == 404


def test_other_methods_are_405(client: Client) -> None:
    """RFC 9110, section 15.5.6."""
    answer = client.ask("OPTIONS", "manifests/v1")
    assert (answer.status, answer.codes) == (405, {"UNSUPPORTED"})
    assert {"PATCH", "POST", "PUT"} <= set(answer.headers["Allow"].split(", "))
