"""The pull requirements of the OCI distribution specification (spec.md), against the read side.

Each test names the section, or the endpoint of the table "Endpoints". A repository's name begins
with the secret of a node. "Listing Tags" is claimed as well, "Listing Referrers" is not.
"""

from __future__ import annotations

import contextlib
import http.client
import json
from collections.abc import Iterator
from typing import Any

import attrs
import pytest

from imgload.oci.digest import Digest
from imgload.oci.document import MANIFEST
from imgload.registry.blob_store import BlobStore, StoredBlob
from imgload.registry.read_server import ReadServer
from tests.unit.archives import Image, layer
from tests.unit.registry.test_distribution_push import Answer

SECRET = "0123456789abcdef" * 2
BLOB = layer("a layer")
DIGEST = Digest.of(BLOB)
IMAGE = Image((BLOB,))
OTHER = Digest.of(b"other")
TAGS = ("1.0", "2.0", "dev", "latest")


@attrs.define
class Served:
    """A store that is served, with the number of bytes that were counted."""

    server: ReadServer
    counted: list[int]

    def ask(self, method: str, path: str, **headers: str) -> Answer:
        """Send a request; `path` is below the secret, or a whole one."""
        whole = path if path.startswith("/") else f"/v2/{SECRET}/{path}"
        fields = {name.replace("_", "-"): value for name, value in headers.items()}
        with contextlib.closing(self.connection()) as connection:
            connection.request(method, whole, headers=fields)
            response = connection.getresponse()
            return Answer(response.status, response.headers, response.read())

    def connection(self) -> http.client.HTTPConnection:
        return http.client.HTTPConnection("127.0.0.1", self.server.server_address[1], timeout=5)

    def bytes_counted(self) -> int:
        """Return the number of bytes sent; a client has the last one before it is counted."""
        self.server.wait_until_idle(5)
        return sum(self.counted)

    def tags(self, query: str = "") -> Any:
        """Return the tags of a page."""
        return json.loads(self.ask("GET", f"library/app/tags/list{query}").body)["tags"]


@pytest.fixture
def served() -> Iterator[Served]:
    store, counted = BlobStore(), list[int]()
    for raw in (BLOB, IMAGE.config):
        blob = StoredBlob(len(raw))
        store.add_blob(Digest.of(raw), blob)
        blob.append(raw)
    store.add_document(IMAGE.digest, MANIFEST, IMAGE.manifest)
    for tag in reversed(TAGS):
        store.add_name("n1", f"docker.io/library/app:{tag}", IMAGE.digest)
    store.add_name("n2", "docker.io/library/app:other", IMAGE.digest)
    store.complete()
    nodes = {SECRET: "n1", "f" * 32: "n2"}
    with ReadServer("127.0.0.1", store, nodes, lambda *sent: counted.append(sent[2])) as server:
        server.start()
        yield Served(server, counted)
        server.shutdown()
    store.close()


@pytest.mark.parametrize("path", ["/v2/", ""])
def test_the_base_path_shows_support(served: Served, path: str) -> None:
    """end-1, "Determining Support": most clients ask it without a repository."""
    assert served.ask("GET", path).status == 200


@pytest.mark.parametrize("reference", ["dev", str(IMAGE.digest)])
@pytest.mark.parametrize(
    "name",
    ["library/app", "app", "docker.io/library/app", "docker.io/app"],
)
def test_a_manifest_is_pulled(served: Served, name: str, reference: str) -> None:
    """end-3, "Pulling manifests"; names are normalised as in a pod spec."""
    answer = served.ask("GET", f"{name}/manifests/{reference}")
    assert (answer.status, answer.body) == (200, IMAGE.manifest)
    assert answer.headers["Content-Type"] == MANIFEST
    assert answer.headers["Docker-Content-Digest"] == str(IMAGE.digest)


def test_containerd_names_the_registry_in_a_parameter(served: Served) -> None:
    """containerd's `ns` (docs/hosts.md); without it, the path has another meaning."""
    path = "library/app/manifests/dev"
    assert served.ask("GET", f"{path}?ns=docker.io").status == 200
    assert served.ask("GET", f"{path}?ns=ghcr.io").status == 404


def test_a_blob_is_pulled(served: Served) -> None:
    """end-2, "Pulling blobs"."""
    answer = served.ask("GET", f"library/app/blobs/{DIGEST}")
    assert (answer.status, answer.body) == (200, BLOB)
    assert answer.headers["Docker-Content-Digest"] == str(DIGEST)


@pytest.mark.parametrize("path", [f"blobs/{DIGEST}", "manifests/dev", "tags/list"])
def test_head_answers_like_get_without_a_body(served: Served, path: str) -> None:
    """end-2 and end-3, "Checking if content exists in the registry"."""
    got, head = (served.ask(method, f"library/app/{path}") for method in ("GET", "HEAD"))
    assert (head.status, head.body, head.headers.items()) == (200, b"", got.headers.items())
    assert head.headers["Content-Length"] == str(len(got.body))


@pytest.mark.parametrize("method", ["GET", "HEAD"])
@pytest.mark.parametrize(
    ("path", "code"),
    [
        ("library/app/manifests/absent", "MANIFEST_UNKNOWN"),
        ("library/app/manifests/other", "MANIFEST_UNKNOWN"),
        (f"library/app/manifests/{OTHER}", "MANIFEST_UNKNOWN"),
        ("library/absent/manifests/dev", "MANIFEST_UNKNOWN"),
        ("library/App/manifests/dev", "MANIFEST_UNKNOWN"),
        (f"library/app/blobs/{OTHER}", "BLOB_UNKNOWN"),
        ("library/app/blobs/sha256:short", "BLOB_UNKNOWN"),
        ("library/absent/tags/list", "NAME_UNKNOWN"),
        (f"library/app/referrers/{IMAGE.digest}", "UNSUPPORTED"),
        ("/v2/library/app/manifests/dev", "NAME_UNKNOWN"),
        (f"/v2/{'0' * 32}/library/app/manifests/dev", "NAME_UNKNOWN"),
        ("/", "NAME_UNKNOWN"),
    ],
)
def test_absent_content_is_404(served: Served, method: str, path: str, code: str) -> None:
    """end-2, end-3, end-8a, end-12a; a name of another node is absent."""
    answer = served.ask(method, path)
    assert answer.status == 404
    assert answer.body == b"" if method == "HEAD" else answer.codes == {code}


SIZE = len(BLOB)


@pytest.mark.parametrize(
    ("field", "span"),
    [
        ("bytes=0-0", range(1)),
        ("bytes=0-", range(SIZE)),
        ("bytes=100-199", range(100, 200)),
        (f"bytes={SIZE - 1}-", range(SIZE - 1, SIZE)),
        (f"bytes=10-{SIZE + 100}", range(10, SIZE)),
        ("bytes=-5", range(SIZE - 5, SIZE)),
        (f"bytes=-{SIZE + 5}", range(SIZE)),
    ],
)
def test_a_range_of_a_blob_is_206(served: Served, field: str, span: range) -> None:
    """end-2, "Pulling blobs", "Resumable Pull"; RFC 9110, sections 14.1 and 15.3.7."""
    answer = served.ask("GET", f"library/app/blobs/{DIGEST}", Range=field)
    assert (answer.status, answer.body) == (206, BLOB[span.start : span.stop])
    assert answer.headers["Content-Range"] == f"bytes {span[0]}-{span[-1]}/{SIZE}"
    assert served.bytes_counted() == len(span)


@pytest.mark.parametrize("field", [f"bytes={SIZE}-", f"bytes={SIZE}-{SIZE + 5}", "bytes=-0"])
def test_a_range_beyond_the_blob_is_416(served: Served, field: str) -> None:
    """RFC 9110, section 15.5.17."""
    answer = served.ask("GET", f"library/app/blobs/{DIGEST}", Range=field)
    assert (answer.status, answer.headers["Content-Range"]) == (416, f"bytes */{SIZE}")


@pytest.mark.parametrize(
    "fields",
    [
        {"Range": "bytes=5-1"},
        {"Range": "bytes=0-1,3-4"},
        {"Range": "bytes=-"},
        {"Range": "bytes=" + "9" * 5000 + "-"},
        {"Range": "lines=0-1"},
        {"Range": "bytes=0-1", "If_Range": '"tag"'},
    ],
)
def test_other_ranges_are_ignored(served: Served, fields: dict[str, str]) -> None:
    """RFC 9110, sections 14.2 and 13.1.5."""
    answer = served.ask("GET", f"library/app/blobs/{DIGEST}", **fields)
    assert (answer.status, answer.body) == (200, BLOB)


def test_head_ignores_a_range(served: Served) -> None:
    """RFC 9110, section 14.2."""
    assert served.ask("HEAD", f"library/app/blobs/{DIGEST}", Range="bytes=0-0").status == 200


def test_a_range_is_read_while_the_blob_is_written(served: Served) -> None:
    """Also if it begins within the missing part."""
    content = layer("another")
    blob = StoredBlob(len(content))
    assert isinstance(served.server.store, BlobStore)
    served.server.store.add_blob(Digest.of(content), blob)
    blob.append(content[:10])
    path, middle = f"library/app/blobs/{Digest.of(content)}", len(content) // 2
    with contextlib.closing(served.connection()) as connection:
        connection.request("GET", f"/v2/{SECRET}/{path}", headers={"Range": f"bytes={middle}-"})
        blob.append(content[10:])
        response = connection.getresponse()
        assert (response.status, response.read()) == (206, content[middle:])


def test_tags_are_listed_in_lexical_order(served: Served) -> None:
    """end-8a, "Listing Tags": only those of the node; `name` is the client's."""
    answer = served.ask("GET", "library/app/tags/list")
    assert answer.headers["Content-Type"] == "application/json"
    listed = {"name": f"{SECRET}/library/app", "tags": list(TAGS)}
    assert (answer.status, json.loads(answer.body)) == (200, listed)


@pytest.mark.parametrize(
    ("query", "tags"),
    [
        ("?n=2", TAGS[:2]),
        ("?n=2&last=2.0", TAGS[2:]),
        ("?last=1.5", TAGS[1:]),
        ("?n=100", TAGS),
        ("?n=0", ()),
        ("?last=z", ()),
        ("?n=x", TAGS),
        ("?n=-1", TAGS),
    ],
)
def test_tags_are_listed_in_parts(served: Served, query: str, tags: tuple[str, ...]) -> None:
    """end-8b, "Listing Tags"."""
    assert served.tags(query) == list(tags)


@pytest.mark.parametrize(("count", "pages"), [(1, 4), (3, 2), (4, 1)])
def test_a_link_refers_to_the_next_tags(served: Served, count: int, pages: int) -> None:
    """end-8b; RFC 5988. With n=0 there is none."""
    path, tags = f"/v2/{SECRET}/library/app/tags/list?n={count}&ns=docker.io", list[str]()
    for number in range(pages):
        answer = served.ask("GET", path)
        tags += json.loads(answer.body)["tags"]
        link = answer.headers["Link"]
        assert bool(link) == (number < pages - 1)
        if link:
            target, relation = link.split("; ")
            assert relation == 'rel="next"'
            path = target.strip("<>")
    assert tags == list(TAGS)
    assert served.ask("GET", "library/app/tags/list?n=0").headers["Link"] is None


@pytest.mark.parametrize("method", ["PUT", "POST", "PATCH", "DELETE", "OPTIONS"])
@pytest.mark.parametrize("path", ["manifests/dev", f"blobs/{DIGEST}", "blobs/uploads/"])
def test_other_methods_are_405(served: Served, method: str, path: str) -> None:
    """end-4a to end-7b, end-9, end-10: the registry is read-only."""
    answer = served.ask(method, f"library/app/{path}")
    assert (answer.status, answer.codes) == (405, {"UNSUPPORTED"})
    assert answer.headers["Allow"] == "GET, HEAD"
