"""Engines on the clients of the SDKs that the caller already has."""

from __future__ import annotations

import json
import socketserver
import ssl
import struct
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler
from pathlib import Path
from types import SimpleNamespace
from typing import Any, ClassVar

import docker
import podman
import pytest
from docker.tls import TLSConfig

from imgload.core.errors import EngineFailed, EngineUnreachable, UsageError
from imgload.engines.base import Container
from imgload.engines.docker import Docker
from imgload.engines.endpoint import Endpoint, Tls
from imgload.engines.podman import Podman
from tests.lab.certificates import make_certificates
from tests.unit.engines.pings import DOCKER, PODMAN
from tests.unit.engines.pings import engine as pinged

NODE = {"Id": "c1", "Names": ["/kind-worker"], "State": "running", "Labels": {"a": "b"}}
CONTAINER = Container("c1", "kind-worker", "running", {"a": "b"})


class Handler(BaseHTTPRequestHandler):
    """An engine with one container, whose commands print their input."""

    headers_of_all: ClassVar[dict[str, str]] = DOCKER
    paths: ClassVar[list[str]] = []

    def answer(self, document: object) -> None:
        body = json.dumps(document).encode()
        self.send_response(200)
        for name, value in self.headers_of_all.items():
            self.send_header(name, value)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def do_GET(self) -> None:
        self.paths.append(self.path)
        is_exec = self.path.endswith("/exec/e1/json")
        self.answer({"Running": False, "ExitCode": 3} if is_exec else [NODE])

    def do_POST(self) -> None:
        self.paths.append(self.path)
        self.rfile.read(int(self.headers["Content-Length"]))
        if not self.path.endswith("/start"):
            self.answer({"Id": "e1"})
            return
        self.wfile.write(b"HTTP/1.1 101 UPGRADED\r\nConnection: Upgrade\r\nUpgrade: tcp\r\n\r\n")
        payload = b"it" if isinstance(self.connection, ssl.SSLSocket) else self.rfile.read()
        self.wfile.write(struct.pack(">BxxxL", 1, len(payload)) + payload)
        self.close_connection = True

    def address_string(self) -> str:
        return "local"

    def log_message(self, *_: object) -> None:
        pass


@contextmanager
def serving(
    address: Path | None, headers: dict[str, str], tls: ssl.SSLContext | None = None
) -> Iterator[tuple[str, list[str]]]:
    """Yield the address of an engine on a socket or a port, and the paths of its requests."""
    handler = type("One", (Handler,), {"headers_of_all": headers, "paths": []})
    server: Any
    if address:
        server = socketserver.ThreadingUnixStreamServer(str(address), handler)
    else:
        server = socketserver.ThreadingTCPServer(("127.0.0.1", 0), handler)
    if tls:
        server.socket = tls.wrap_socket(server.socket, server_side=True)
    server.daemon_threads = True
    threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True).start()
    with server:
        url = f"unix://{address}" if address else f"tcp://127.0.0.1:{server.server_address[1]}"
        yield url, handler.paths  # type: ignore[attr-defined]
        server.shutdown()


@pytest.mark.parametrize("over", ["unix", "tcp"])
@pytest.mark.parametrize("form", [docker.DockerClient, docker.APIClient])
def test_docker_uses_the_session_of_a_client(tmp_path: Path, form: type, over: str) -> None:
    path = tmp_path / "engine.sock" if over == "unix" else None
    with serving(path, DOCKER) as (url, paths):
        client = form(base_url=url, version="1.40")
        engine = Docker(client)
        assert engine.endpoint == Endpoint("docker", url)
        assert (engine.endpoint.version, engine.endpoint.tls) == ("1.40", None)
        assert "client" in engine.endpoint.origin
        assert engine.streams_exec
        assert engine.containers("a") == [CONTAINER]
        ended = engine.exec("c1", ["cat"], stdin=[b"some ", b"input"])
        assert (ended.exit_status, ended.stdout) == (3, b"some input")
        engine.close()
        assert client.containers  # the client is the caller's, and stays open
        assert Docker(client).containers("a") == [CONTAINER]
    assert {path.split("/")[1] for path in paths} == {"_ping", "v1.40"}


@pytest.mark.parametrize("over", ["unix", "tcp"])
def test_podman_uses_the_session_of_a_client(tmp_path: Path, over: str) -> None:
    path = tmp_path / "engine.sock" if over == "unix" else None
    with serving(path, PODMAN) as (url, paths):
        engine = Podman(podman.PodmanClient(base_url=url))
        assert engine.endpoint == Endpoint("podman", url)
        assert engine.endpoint.version == "4.3.1"
        assert engine.containers("a") == [CONTAINER]
        assert engine.exec("c1", ["cat"], stdin=[b"input"]).stdout == b"input"
    assert paths[1].startswith("/v4.3.1/containers/json")


@pytest.fixture(scope="module")
def certificates(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("certificates")
    make_certificates(folder)
    return folder


@pytest.mark.parametrize("verify", [True, False])
def test_a_client_with_tls_is_an_endpoint_with_tls(certificates: Path, *, verify: bool) -> None:
    """The input of a command cannot be closed alone then."""
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH, cafile=certificates / "ca.pem")
    context.load_cert_chain(certificates / "server-cert.pem", certificates / "server-key.pem")
    context.verify_mode = ssl.CERT_REQUIRED
    ca, cert, key = (certificates / name for name in ("ca.pem", "cert.pem", "key.pem"))
    tls = TLSConfig(client_cert=(str(cert), str(key)), ca_cert=str(ca), verify=verify)
    with serving(None, DOCKER, context) as (url, _):
        engine = Docker(docker.DockerClient(base_url=url, version="1.41", tls=tls))
        assert engine.endpoint.url == url
        assert engine.endpoint.tls == Tls(ca if verify else None, cert, key, verify)
        assert not engine.streams_exec
        assert engine.containers("a") == [CONTAINER]
        assert engine.exec("c1", ["cat"]).stdout == b"it"


def ssh_client(kind: str, monkeypatch: pytest.MonkeyPatch) -> Any:
    if kind == "podman":
        return podman.PodmanClient(base_url="ssh://me@far:2222/run/user/1/podman.sock?secure=True")
    client = docker.APIClient(base_url="tcp://127.0.0.1:1", version="1.41")
    adapter = SimpleNamespace(ssh_host="me@far:2222")
    monkeypatch.setattr(
        client, "_custom_adapter", adapter, raising=False
    )  # the SDK needs paramiko for its own
    return client


@pytest.mark.parametrize(
    ("kind", "of", "socket"),
    [
        ("docker", Docker, "/var/run/docker.sock"),
        ("podman", Podman, "/run/user/1/podman.sock"),
    ],
)
def test_an_ssh_client_is_replaced_by_a_tunnel_to_its_address(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kind: str, of: Any, socket: str
) -> None:
    """Its own connections are pipes, whose directions cannot be closed one by one."""
    (tmp_path / "ssh").write_text(
        f"#!{sys.executable}\n"
        "import os, sys\n"
        "local, remote = sys.argv[sys.argv.index('-L') + 1].split(':')\n"
        f"open({str(tmp_path / 'argv')!r}, 'w').write(' '.join(sys.argv))\n"
        f"os.symlink({str(tmp_path / 'engine.sock')!r}, local)\n"
        "print('imgload: ready', flush=True)\n"
        "sys.stdin.read()\n"
    )
    (tmp_path / "ssh").chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path))
    headers = PODMAN if kind == "podman" else DOCKER
    with serving(tmp_path / "engine.sock", headers):
        engine = of(ssh_client(kind, monkeypatch))
        assert engine.endpoint.url.startswith("ssh://me@far:2222")
        assert (engine.streams_exec, engine.endpoint.tls) == (True, None)
        assert engine.exec("c1", ["cat"], stdin=[b"input"]).stdout == b"input"
        engine.close()
    argv = (tmp_path / "argv").read_text()
    assert "-l me -p 2222" in argv
    assert f":{socket} -- far " in argv


@pytest.mark.parametrize(
    ("of", "headers", "client"),
    [
        (Docker, PODMAN, lambda url: docker.DockerClient(base_url=url, version="1.41")),
        (Podman, DOCKER, lambda url: podman.PodmanClient(base_url=url)),
    ],
)
def test_a_client_of_the_other_engine_is_refused(
    tmp_path: Path, of: Any, headers: dict[str, str], client: Any
) -> None:
    """Podman also answers the requests of Docker's SDK, but with image IDs of its own form."""
    with (
        serving(tmp_path / "engine.sock", headers) as (url, _),
        pytest.raises(EngineFailed, match=r"is not (docker|podman)"),
    ):
        of(client(url))


@pytest.mark.parametrize("of", [Docker, Podman])
@pytest.mark.parametrize("wrong", ["unix:///run/docker.sock", 5, object(), docker])
def test_another_type_is_a_usage_error(of: Any, wrong: object) -> None:
    with pytest.raises(UsageError, match=r"Docker|Podman"):
        of(wrong)


def test_a_client_of_the_other_sdk_is_a_usage_error() -> None:
    with pytest.raises(UsageError):
        Docker(podman.PodmanClient(base_url="unix:///gone"))  # type: ignore[arg-type]
    with pytest.raises(UsageError):
        Podman(docker.APIClient(base_url="unix:///gone", version="1.41"))  # type: ignore[arg-type]


def test_a_client_whose_engine_is_gone_is_unreachable(tmp_path: Path) -> None:
    client = docker.DockerClient(base_url=f"unix://{tmp_path}/gone.sock", version="1.41")
    with pytest.raises(EngineUnreachable, match="nobody answers"):
        Docker(client)


@pytest.mark.parametrize("of", [Docker, Podman])
def test_without_a_client_the_first_engine_of_the_kind_is_used(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, of: Any
) -> None:
    """Each variable may lead to the other kind."""
    with pinged(tmp_path / "d", DOCKER) as d, pinged(tmp_path / "p", PODMAN) as p:
        monkeypatch.setenv("DOCKER_HOST", p)
        monkeypatch.setenv("CONTAINER_HOST", d)
        engine = of()
        assert engine.endpoint.url == (d if of is Docker else p)
        assert engine.endpoint.version
        engine.close()


def test_without_a_client_an_absent_engine_is_an_engine_error(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Another kind that answers does not count."""
    with pinged(tmp_path / "p", PODMAN) as p:
        monkeypatch.setenv("DOCKER_HOST", f"unix://{tmp_path}/gone")
        monkeypatch.setenv("CONTAINER_HOST", p)
        with pytest.raises(EngineUnreachable, match="no Docker answers") as caught:
            Docker()
    assert f"unix://{tmp_path}/gone" in caught.value.message
    assert caught.value.hint


def test_a_server_that_is_no_engine_is_refused(tmp_path: Path) -> None:
    with (
        serving(tmp_path / "engine.sock", {"Server": "other"}) as (url, _),
        pytest.raises(EngineUnreachable, match="not Docker or Podman"),
    ):
        Docker(docker.DockerClient(base_url=url, version="1.41"))
