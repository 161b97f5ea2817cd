"""What Docker is asked for when it pushes an image to imgload."""

import base64
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler
from pathlib import Path
from socketserver import ThreadingUnixStreamServer

import pytest

from imgload.core.errors import EngineFailed
from imgload.engines.docker import Docker
from imgload.engines.endpoint import Endpoint
from imgload.oci.digest import Digest

REPOSITORY = f"127.0.0.1:5000/imgload/{'0' * 32}"
IMAGE = Digest.of(b"app")


@contextmanager
def recording(path: Path, requests: list[tuple[str, str | None]]) -> Iterator[Docker]:
    """Keep the path and the credentials of each POST; there is nothing to GET."""

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            requests.append((self.path.partition("?")[0], self.headers["X-Registry-Auth"]))
            self.send_response(200)
            self.end_headers()

        def do_GET(self) -> None:
            self.send_response(404)
            self.end_headers()

        def log_message(self, *_: object) -> None:
            pass

        def address_string(self) -> str:
            return "local"

    with ThreadingUnixStreamServer(str(path), Handler) as server:
        threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True).start()
        yield Docker(Endpoint("docker", f"unix://{path}", version="1.41"))
        server.shutdown()


def test_docker_gets_no_registry_credentials_for_a_push(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The header that Docker 20.10 requires has an empty object."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    requests: list[tuple[str, str | None]] = []
    with recording(tmp_path / "docker.sock", requests) as engine:
        with engine.pushing(IMAGE, REPOSITORY) as push:
            push()
        engine.close()
    paths = [path for path, _ in requests]
    credentials = [given for _, given in requests if given is not None]
    assert paths == [f"/v1.41/images/{IMAGE}/tag", f"/v1.41/images/{REPOSITORY}/push"]
    assert [base64.b64decode(given) for given in credentials] == [b"{}"]


def test_docker_gets_no_tag_when_no_note_of_it_can_be_kept(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Without a note, a killed run would leave the tag for good."""
    for variable in ("XDG_CACHE_HOME", "TMPDIR"):
        monkeypatch.setenv(variable, "/proc/nowhere")
    requests: list[tuple[str, str | None]] = []
    with recording(tmp_path / "docker.sock", requests) as engine:
        with pytest.raises(EngineFailed), engine.pushing(IMAGE, REPOSITORY):
            pass
        engine.close()
    assert requests == []
