"""The in-process registry, over a real socket."""

import contextlib
import http.client
import json
import socket
import ssl
import struct
import threading
from collections.abc import Iterator
from urllib.parse import quote

import attrs
import pytest

from imgload.oci.digest import Digest
from imgload.registry import sink as module
from imgload.registry.http_server import MAX_STRANGERS
from imgload.registry.server import receiving
from imgload.registry.sink import ManifestSink

MANIFEST = json.dumps({"schemaVersion": 2, "x": "y" * 1000}).encode()
DIGEST = Digest.of(MANIFEST)


@attrs.frozen
class Receiver:
    """A registry that claims every blob, and its address."""

    repository: str
    intake: ManifestSink

    @property
    def manifests(self) -> dict[Digest, bytes]:
        return self.intake.taken

    @staticmethod
    @contextlib.contextmanager
    def listening() -> "Iterator[Receiver]":
        intake = ManifestSink()
        with receiving(intake) as repository:
            yield Receiver(repository, intake)


@pytest.fixture
def receiver() -> Iterator[Receiver]:
    with Receiver.listening() as listening:
        yield listening


def address(receiver: Receiver) -> tuple[str, int]:
    host, _, port = receiver.repository.partition("/")[0].partition(":")
    return host, int(port)


def inside(receiver: Receiver, rest: str) -> str:
    return f"/v2/{receiver.repository.partition('/')[2]}/{rest}"


def ask(
    receiver: Receiver, method: str, path: str, body: bytes | None = None
) -> http.client.HTTPResponse:
    connection = http.client.HTTPConnection(*address(receiver), timeout=5)
    connection.request(method, path, body)
    response = connection.getresponse()
    response.read()
    return response


def say(receiver: Receiver, *parts: bytes) -> bytes:
    """Send raw bytes, close the sending side, and return the whole answer."""
    with socket.create_connection(address(receiver), timeout=5) as connection:
        for part in parts:
            connection.sendall(part)
        with contextlib.suppress(OSError):
            connection.shutdown(socket.SHUT_WR)
        with contextlib.suppress(ConnectionResetError):
            return b"".join(iter(lambda: connection.recv(65536), b""))
    return b""


def put(receiver: Receiver, headers: bytes, body: bytes = b"", name: str = "latest") -> bytes:
    path = inside(receiver, f"manifests/{name}").encode()
    return say(receiver, b"PUT " + path + b" HTTP/1.1\r\nHost: x\r\n" + headers + b"\r\n\r\n", body)


def test_the_base_path_answers_200(receiver: Receiver) -> None:
    """The first request of every client (OCI distribution spec, end-1)."""
    assert ask(receiver, "GET", "/v2/").status == 200


def test_the_repository_is_on_loopback_and_random() -> None:
    """Nobody else can push to it."""
    with Receiver.listening() as one, Receiver.listening() as two:
        assert one.repository.startswith("127.0.0.1:")
        assert one.repository.partition("/")[2] != two.repository.partition("/")[2]
        assert len(one.repository.rpartition("/")[2]) == 32


def test_a_manifest_is_kept_under_its_own_digest(receiver: Receiver) -> None:
    """Unchanged, pushed by tag or by digest."""
    response = ask(receiver, "PUT", inside(receiver, "manifests/latest"), MANIFEST)
    assert response.status == 201
    assert response.getheader("Docker-Content-Digest") == str(DIGEST)
    assert receiver.manifests == {DIGEST: MANIFEST}
    assert ask(receiver, "PUT", inside(receiver, f"manifests/{DIGEST}"), MANIFEST).status == 201


def test_several_requests_share_one_connection(receiver: Receiver) -> None:
    """HTTP/1.1, as the engines use it."""
    connection = http.client.HTTPConnection(*address(receiver), timeout=5)
    for number in range(3):
        connection.request("PUT", inside(receiver, f"manifests/t{number}"), b"%d" % number)
        response = connection.getresponse()
        response.read()
        assert response.status == 201
    assert len(receiver.manifests) == 3


def test_manifests_claims_every_blob(receiver: Receiver) -> None:
    """So that the engine sends no layer."""
    path = inside(receiver, f"blobs/{DIGEST}")
    response = ask(receiver, "HEAD", path)
    assert response.status == 200
    assert response.getheader("Docker-Content-Digest") == str(DIGEST)


@pytest.mark.parametrize(
    "path",
    [
        "/",
        "/v2",
        "/v2/other/blobs/{digest}",
        "/v2/imgload/blobs/{digest}",
        "/v2/imgload/{zeros}/blobs/{digest}",
        "{inside}blobs/sha256:short",
        "{inside}blobs/{digest}/x",
        "{inside}blobs/../blobs/{digest}",
        "{inside}../../etc/passwd",
        "{inside}manifests/latest",
    ],
)
def test_a_path_outside_the_repository_is_404(receiver: Receiver, path: str) -> None:
    """Another repository, another path, a path with dots."""
    text = path.format(digest=DIGEST, inside=inside(receiver, ""), zeros="0" * 32)
    assert ask(receiver, "HEAD", text).status == 404


@pytest.mark.parametrize(
    "name",
    [
        "..",
        "-x",
        "../latest",
        "..%2flatest",
        "a/b",
        "a b",
        "",
        "x" * 141,
        "é",
        f"sha256:{'0' * 64}",
        "sha256:short",
        f"sha512:{'0' * 128}",
        "md5:" + "0" * 32,
    ],
)
def test_a_manifest_under_a_wrong_name_is_refused(receiver: Receiver, name: str) -> None:
    """A path, an invalid name, or another digest."""
    path = inside(receiver, "manifests/" + quote(name, safe="/%:."))
    assert ask(receiver, "PUT", path, MANIFEST).status in {400, 404}
    assert receiver.manifests == {}


def test_a_manifest_for_another_repository_is_refused(receiver: Receiver) -> None:
    """And not kept."""
    for path in ("/v2/other/manifests/latest", "/v2/manifests/latest", "/manifests/latest"):
        assert ask(receiver, "PUT", path, MANIFEST).status in {400, 404}
    assert receiver.manifests == {}


@pytest.mark.parametrize(
    "headers",
    [
        b"X: y",
        b"Content-Length: 0",
        b"Content-Length: -1",
        b"Content-Length: +5",
        b"Content-Length: 5x",
        b"Content-Length: ",
        b"Content-Length: 99999999999999999999",
        b"Content-Length: \xb2",
        b"Content-Length: " + b"9" * 5000,
    ],
    ids=lambda raw: repr(raw[:30]),
)
def test_an_absent_or_absurd_length_is_refused(receiver: Receiver, headers: bytes) -> None:
    """At most 8 MiB are read, and there is always an answer."""
    assert put(receiver, headers, b"5\r\nhello\r\n").startswith(b"HTTP/1.1 400 ")
    assert receiver.manifests == {}


def test_an_interrupted_body_is_not_kept(receiver: Receiver) -> None:
    """A push by tag has no digest to check."""
    put(receiver, b"Content-Length: 1000", b"half of it")
    assert receiver.manifests == {}


def test_the_number_of_manifests_is_bounded(
    receiver: Receiver, monkeypatch: pytest.MonkeyPatch
) -> None:
    """So that an endless push ends."""
    monkeypatch.setattr(module, "MAX_UPLOADS", 3)
    statuses = [
        ask(receiver, "PUT", inside(receiver, "manifests/t"), b"%d" % n).status for n in range(5)
    ]
    assert statuses == [201, 201, 201, 400, 400]
    assert len(receiver.manifests) == 3


@pytest.mark.parametrize("method", ["DELETE", "PATCH", "OPTIONS", "BREW"])
def test_other_methods_are_refused(receiver: Receiver, method: str) -> None:
    """None starts an upload."""
    assert ask(receiver, method, inside(receiver, "blobs/uploads/")).status >= 400
    assert receiver.manifests == {}


def test_tls_is_answered_in_plain_http(receiver: Receiver) -> None:
    """Docker's containerd store falls back to HTTP only then."""
    incoming, outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
    hello = ssl.create_default_context().wrap_bio(incoming, outgoing, server_hostname="x")
    with contextlib.suppress(ssl.SSLWantReadError):
        hello.do_handshake()
    answer = say(receiver, outgoing.read())
    head, _, body = answer.partition(b"\r\n\r\n")
    assert head.startswith(b"HTTP/1.1 400 Bad Request\r\n")
    assert b"Content-Length: %d" % len(body) in head
    assert ask(receiver, "GET", "/v2/").status == 200


@pytest.mark.parametrize(
    "junk", [b"\n", b"\0\n", b"GET\r\n\r\n", b"GET / HTTP/9.9\r\n\r\n", b"x" * 70_000, b"\xff\n"]
)
def test_junk_is_ignored_silently(
    receiver: Receiver, junk: bytes, capfd: pytest.CaptureFixture[str]
) -> None:
    """A library prints nothing."""
    say(receiver, junk)
    assert ask(receiver, "GET", "/v2/").status == 200
    assert capfd.readouterr() == ("", "")


def test_a_reset_connection_is_ignored_silently(
    receiver: Receiver, capfd: pytest.CaptureFixture[str]
) -> None:
    """Such as that of an engine killed during a push."""
    with socket.create_connection(address(receiver), timeout=5) as connection:
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        path = inside(receiver, "manifests/latest").encode()
        connection.sendall(b"PUT " + path + b" HTTP/1.1\r\nContent-Length: 100\r\n\r\nx")
        assert ask(receiver, "GET", "/v2/").status == 200
    assert ask(receiver, "GET", "/v2/").status == 200
    assert capfd.readouterr() == ("", "")


def test_an_absurd_length_prints_nothing(
    receiver: Receiver, capfd: pytest.CaptureFixture[str]
) -> None:
    """No thread's traceback on the user's terminal."""
    put(receiver, b"Content-Length: \xb2")
    assert capfd.readouterr() == ("", "")


def test_the_port_is_closed_afterwards() -> None:
    """Also when the push failed."""
    with contextlib.suppress(ZeroDivisionError), Receiver.listening() as listening:
        raise ZeroDivisionError
    with pytest.raises(ConnectionRefusedError):
        socket.create_connection(address(listening), timeout=5)


def test_idle_connections_do_not_block_the_engine() -> None:
    """Of hundreds few have threads, and the push goes on."""
    before = threading.active_count()
    with contextlib.ExitStack() as stack, receiving(ManifestSink()) as repository:
        host, _, path = repository.partition("/")
        port = int(host.rpartition(":")[2])
        engine = http.client.HTTPConnection("127.0.0.1", port, timeout=10)
        for _ in range(3):
            for _ in range(MAX_STRANGERS):
                stack.enter_context(socket.create_connection(("127.0.0.1", port), timeout=10))
            engine.request("PUT", f"/v2/{path}/manifests/x", b"{}")
            answer = engine.getresponse()
            answer.read()
            assert answer.status == 201
        assert threading.active_count() - before < MAX_STRANGERS + 20
        engine.close()
