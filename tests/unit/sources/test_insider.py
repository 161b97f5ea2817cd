"""What somebody who knows the repository can do while an engine pushes: nothing to the image."""

from __future__ import annotations

import contextlib
import http.client
import json
import socket
from collections.abc import Iterator

import pytest

from imgload.oci.digest import Digest
from imgload.registry.server import receiving
from imgload.registry.sink import ManifestSink
from imgload.sources.push import PushIncomplete
from tests.unit.sources.test_push import BASE, BLOBS, IMAGE, NOTHING, Nodes, pushed
from tests.unit.sources.test_push import Engine as Client


@contextlib.contextmanager
def request(repository: str, place: str, *headers: str) -> Iterator[socket.socket]:
    """Begin a PUT whose body is to follow."""
    host, _, port = repository.partition("/")[0].partition(":")
    with socket.create_connection((host, int(port)), timeout=5) as connection:
        head = "\r\n".join((f"PUT {place} HTTP/1.1", "Host: x", *headers, "", ""))
        connection.sendall(head.encode())
        yield connection


def status(connection: socket.socket) -> int:
    response = http.client.HTTPResponse(connection)
    response.begin()
    return response.status


def begun(repository: str) -> str:
    """Return the place of a new upload."""
    path = repository.partition("/")[2]
    _, headers = Client(repository).ask("POST", f"/v2/{path}/blobs/uploads/")
    return str(headers["Location"])


def test_a_second_request_for_an_upload_is_refused() -> None:
    """Its end would give the way of another blob free, and two would write into a node."""
    nodes = Nodes.holding(worker=NOTHING)
    raw = IMAGE.blobs[0]
    with receiving(nodes) as repository:
        nodes.begin(pushed())
        place = f"{begun(repository)}?digest={BLOBS[0]}"
        with request(repository, place, f"Content-Length: {len(raw)}") as first:
            first.sendall(raw[:-1])
            while not nodes.is_writing:
                pass
            with request(repository, place, "Transfer-Encoding: chunked") as second:
                second.sendall(b"0\r\n\r\n")
                assert status(second) == 404
            assert nodes.is_writing
            first.sendall(raw[-1:])
            assert status(first) == 201
        assert not nodes.is_writing


def test_a_blob_ends_once() -> None:
    """Whoever ends it again would free the way of the next one."""
    nodes = Nodes.holding(worker=NOTHING)
    nodes.begin(pushed())
    first = nodes.upload(BLOBS[0], len(IMAGE.blobs[0]))
    assert nodes.is_writing
    first.write(IMAGE.blobs[0])
    first.finish(BLOBS[0])
    second = nodes.upload(BLOBS[1], len(IMAGE.blobs[1]))
    with pytest.raises(Exception, match="already complete"):
        first.finish(BLOBS[0])
    first.abandon()
    assert nodes.is_writing
    second.abandon()
    assert not nodes.is_writing


def test_a_length_other_than_the_layers_does_not_go_into_a_node() -> None:
    """Nodes would take as much as anybody sends."""
    nodes = Nodes.holding(worker=NOTHING)
    nodes.begin(pushed())
    nodes.upload(BLOBS[0], 1 << 50)
    assert not nodes.is_writing


def test_nothing_is_taken_once_the_push_has_ended() -> None:
    """A blob that came now would be written between the image's last documents."""
    nodes = Nodes.holding(worker=BASE)
    with receiving(nodes) as repository:
        nodes.begin(pushed())
        client = Client(repository)
        client.push(IMAGE)
        nodes.end()
        with pytest.raises(PushIncomplete):
            nodes.upload(BLOBS[0], len(IMAGE.blobs[0]))
        assert client.blob(IMAGE.blobs[0]) >= 400


def other_manifest() -> bytes:
    """Return a manifest with the image's config, and layers that are not the image's."""
    value = json.loads(IMAGE.manifest)
    value["layers"].reverse()
    return json.dumps(value).encode()


@pytest.mark.parametrize("reported", [True, False])
def test_a_manifest_beside_the_engines_is_not_believed(*, reported: bool) -> None:
    """The engine reports which one is its own; where it does not, none of two is taken."""
    nodes = Nodes.holding(worker=BASE)
    with receiving(nodes) as repository:
        manifest = IMAGE.digest if reported else None
        nodes.begin(pushed(manifest=manifest))
        client = Client(repository)
        path = repository.partition("/")[2]
        client.ask("PUT", f"/v2/{path}/manifests/x", other_manifest())
        client.push(IMAGE)
        if reported:
            first = nodes.end().layers[0]
            assert (first.descriptor.digest, first.diff_id) == (
                BLOBS[0],
                Digest.of(IMAGE.layers[0]),
            )
        else:
            with pytest.raises(PushIncomplete, match="several manifests"):
                nodes.end()


def test_a_blob_larger_than_the_image_is_not_read_to_its_end() -> None:
    """Chunks without end would keep a thread, and a processor, busy for ever."""
    nodes = Nodes.holding(worker=NOTHING)
    with receiving(nodes) as repository:
        nodes.begin(pushed(known={}, exact=False, quota=1000))
        client = Client(repository, sized=False)
        assert client.blob(bytes(2000)) == 400


def test_more_blobs_than_the_image_has_are_refused() -> None:
    """Each is in memory, or an open file."""
    nodes = Nodes.holding(worker=NOTHING)
    with receiving(nodes) as repository:
        nodes.begin(pushed(known={}, exact=False))
        client = Client(repository, sized=False)
        answers = [client.blob(b"%d" % number) for number in range(len(BLOBS) + 40)]
    assert answers.count(201) == len(BLOBS) + 32
    assert answers[-1] == 400


AMBIGUOUS = {
    "both": (b"Content-Length: 2\r\nTransfer-Encoding: chunked", b"2\r\n{}\r\n0\r\n\r\n"),
    "two lengths": (b"Content-Length: 2\r\nContent-Length: 2", b"{}"),
    "another coding": (b"Transfer-Encoding: gzip, chunked", b"2\r\n{}\r\n0\r\n\r\n"),
}


@pytest.mark.parametrize("case", AMBIGUOUS)
def test_a_body_of_ambiguous_length_is_refused(case: str) -> None:
    """The bounds would look at one of the lengths, and the reading at the other."""
    headers, body = AMBIGUOUS[case]
    intake = ManifestSink()
    with receiving(intake) as repository:
        place = f"/v2/{repository.partition('/')[2]}/manifests/x"
        with request(repository, place, *headers.decode().split("\r\n")) as connection:
            connection.sendall(body)
            assert status(connection) == 400
    assert intake.taken == {}


BROKEN = {
    "a chunk that is longer": b"1\r\nxyz\r\n0\r\n\r\n",
    "a length without an end": b"1;" + b"x" * 2000 + b"\r\nx\r\n0\r\n\r\n",
    "trailers without end": b"0\r\n" + b"a: b\r\n" * 100,
}


@pytest.mark.parametrize("case", BROKEN)
def test_chunks_that_are_not_well_formed_end_the_connection(case: str) -> None:
    """What follows would be taken for another request."""
    nodes = Nodes.holding(worker=NOTHING)
    with receiving(nodes) as repository:
        nodes.begin(pushed(known={}, exact=False))
        place = f"{begun(repository)}?digest={Digest.of(b'x')}"
        with request(repository, place, "Transfer-Encoding: chunked") as connection:
            connection.sendall(BROKEN[case])
            with contextlib.suppress(ConnectionResetError):
                assert b" 201 " not in connection.recv(100)


def test_trailers_are_read_to_their_end() -> None:
    """The next request begins behind them (RFC 9112, section 7.1.2)."""
    nodes = Nodes.holding(worker=NOTHING)
    with receiving(nodes) as repository:
        nodes.begin(pushed(known={}, exact=False))
        place = f"{begun(repository)}?digest={Digest.of(b'x')}"
        with request(repository, place, "Transfer-Encoding: chunked") as connection:
            connection.sendall(b"1\r\nx\r\n0\r\nA: b\r\nC: d\r\n\r\n")
            assert b" 201 " in connection.recv(1000)
            connection.sendall(b"GET /v2/ HTTP/1.1\r\nHost: x\r\n\r\n")
            assert status(connection) == 200
