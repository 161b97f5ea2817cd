"""Pushes to registries that fail or misbehave, over real HTTP."""

from __future__ import annotations

import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

from imgload.core.errors import ArchiveInvalid, RegistryError
from imgload.oci.digest import Digest
from imgload.oci.document import DOCKER_MANIFEST, INDEX, MANIFEST
from imgload.oci.reference import Reference
from imgload.tools.remote_registry.configure import RegistryUrl
from imgload.tools.remote_registry.push import (
    ForwardedUpload,
    ForwardingSink,
    RegistryClient,
    media_type,
    repositories,
)

BLOB = Digest.of(b"blob")
Reply = Callable[[BaseHTTPRequestHandler], None]


@contextmanager
def answering(reply: Reply) -> Iterator[RegistryClient]:
    class Handler(BaseHTTPRequestHandler):
        def _reply(self) -> None:
            reply(self)

        do_GET = do_HEAD = do_POST = do_PUT = do_PATCH = _reply  # noqa: N815

        def log_message(self, *_: object) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        server.daemon_threads = True
        threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True).start()
        yield RegistryClient(RegistryUrl("http", f"127.0.0.1:{server.server_address[1]}"))
        server.shutdown()


def says(status: int, body: bytes = b"", **headers: str) -> Reply:
    def reply(handler: BaseHTTPRequestHandler) -> None:
        handler.send_response(status)
        for name, value in headers.items():
            handler.send_header(name.replace("_", "-"), value)
        handler.send_header("Content-Length", str(len(body)))
        handler.end_headers()
        handler.wfile.write(body)

    return reply


def test_check_reports_a_refused_connection() -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        url = RegistryUrl("http", f"127.0.0.1:{taken.getsockname()[1]}")
        with pytest.raises(RegistryError, match="Connection refused") as caught:
            RegistryClient(url).check()
    assert caught.value.hint.endswith(f"curl {url}/v2/")


def test_errors_include_the_registrys_message() -> None:
    """OCI distribution spec, "Error Codes"."""
    body = b'{"errors": [{"code": "DENIED", "message": "read only"}]}'
    with (
        answering(says(403, body)) as client,
        pytest.raises(RegistryError, match="403 DENIED: read only"),
    ):
        client.put_manifest("app", "dev", b"{}")


@pytest.mark.parametrize(
    "body", [b"<html>", b'{"errors": 1}', b'{"errors": [1]}', b"\xff\x00", b"[" * 100_000]
)
def test_errors_include_the_status_of_a_server_that_is_no_registry(body: bytes) -> None:
    with answering(says(404, body)) as client, pytest.raises(RegistryError, match="status 404"):
        client.check()


def test_an_unauthorized_request_suggests_docker_push() -> None:
    with answering(says(401)) as client, pytest.raises(RegistryError) as caught:
        client.check()
    assert "docker push" in caught.value.hint


@pytest.mark.parametrize("location", ["http://elsewhere:80/v2/x", "//elsewhere/x", ""])
def test_upload_refuses_a_redirect_to_another_host(location: str) -> None:
    """Layers must not go to a host that a registry names."""
    with (
        answering(says(202, Location=location)) as client,
        pytest.raises(RegistryError, match="redirects the upload"),
    ):
        client.start_upload("app")


def test_manifest_refuses_a_response_beyond_8_mib() -> None:
    with (
        answering(says(200, bytes((8 << 20) + 1))) as client,
        pytest.raises(RegistryError, match="more than"),
    ):
        client.manifest("app", "dev")


def write_for_ever(upload: ForwardedUpload) -> None:
    for _ in range(200):
        upload.write(bytes(1 << 20))


def test_write_fails_when_the_registry_closes_the_connection() -> None:
    def reply(handler: BaseHTTPRequestHandler) -> None:
        if handler.command == "POST":
            says(202, Location="/v2/app/blobs/uploads/1?state=a")(handler)
        handler.close_connection = True

    with answering(reply) as client:
        upload = ForwardingSink(client, "app").upload(None, None)
        with pytest.raises(RegistryError):
            write_for_ever(upload)
        upload.abandon()


def test_upload_sends_chunks_and_commits_the_digest() -> None:
    """The size of a blob is not known before its end."""
    received = []

    def reply(handler: BaseHTTPRequestHandler) -> None:
        if handler.command == "PATCH":
            assert handler.headers["Transfer-Encoding"] == "chunked"
            while size := int(handler.rfile.readline(), 16):
                received.append(handler.rfile.read(size))
                handler.rfile.readline()
            handler.rfile.readline()
        received.append(f"{handler.command} {handler.path}".encode())
        status = 201 if handler.command == "PUT" else 202
        says(status, Location="/v2/app/blobs/uploads/1?state=a")(handler)

    with answering(reply) as client:
        sink = ForwardingSink(client, "app")
        upload = sink.upload(None, None)
        for chunk in (b"bl", b"", b"ob"):
            upload.write(chunk)
        upload.finish(BLOB)
    target = b"/v2/app/blobs/uploads/1?state=a"
    assert received == [
        b"POST /v2/app/blobs/uploads/",
        *(b"bl", b"ob", b"PATCH " + target),
        b"PUT " + target + f"&digest={BLOB}".encode(),
    ]
    assert sink.sent == [4]


def test_forwarding_sink_keeps_the_first_error() -> None:
    """An engine reports only that its push failed."""
    with answering(says(500, b"disk full")) as client:
        sink = ForwardingSink(client, "app")
        for ask in (lambda: sink.upload(None, None), lambda: sink.stat_blob(BLOB)):
            with pytest.raises(RegistryError):
                ask()
        assert "beginning an upload: status 500 disk full" in str(sink.error)


@pytest.mark.parametrize(
    ("raw", "kind"),
    [
        (b'{"mediaType": "%s"}' % DOCKER_MANIFEST.encode(), DOCKER_MANIFEST),
        (b'{"manifests": []}', INDEX),
        (b"{}", MANIFEST),
        (b'{"mediaType": "a\\r\\nX: y"}', MANIFEST),
        (b'{"mediaType": 5, "manifests": []}', INDEX),
    ],
)
def test_media_type_is_one_of_four(raw: bytes, kind: str) -> None:
    """A document's own value goes into a header only if it is one of them."""
    assert media_type(raw) == kind


def test_media_type_refuses_a_document_that_is_not_an_object() -> None:
    with pytest.raises(ArchiveInvalid):
        media_type(b"[]")


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("app:dev", ("app", "library/app")),
        ("me/app:dev", ("me/app",)),
        ("ghcr.io/me/app:dev", ("me/app",)),
        ("localhost:5001/app:dev", ("app",)),
    ],
)
def test_repositories_include_library_for_docker_hubs_official_images(
    name: str, expected: tuple[str, ...]
) -> None:
    assert repositories(Reference.parse(name)) == expected
