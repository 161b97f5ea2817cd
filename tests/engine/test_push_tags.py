"""The temporary tag and the address of a push: no image is lost, or sent to another server."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import threading
from pathlib import Path

import pytest

import imgload
from imgload.loader.events import Event, SendingStarted
from tests.engine.aftermath import leftover_tags, until
from tests.engine.conftest import Images, cri_id, forget, unique
from tests.engine.relay import Fault, relay
from tests.lab import Lab
from tests.lab.engine import Engine

STORES = {"docker": "lab-d21", "docker28": "lab-e21", "docker28-graphdriver": "lab-d21"}
LISTENER = """
import socket, sys
with socket.create_server(("127.0.0.1", int(sys.argv[1]))) as server:
    print("listening", flush=True)
    while True:
        connection, _ = server.accept()
        with connection:
            data = connection.recv(65536)
            if data.startswith(b"\\x16"):
                connection.sendall(b"HTTP/1.1 400 Bad Request\\r\\nContent-Length: 0\\r\\n\\r\\n")
                continue
            print(data.partition(b"\\r\\n")[0].decode(), flush=True)
            status = b"200 OK" if data.startswith(b"GET /v2/ ") else b"404 Not Found"
            if data.startswith(b"POST"):
                status = b"202 Accepted\\r\\nLocation: /v2/x/blobs/uploads/1"
            connection.sendall(b"HTTP/1.1 " + status + b"\\r\\nConnection: close\\r\\n"
                               b"Content-Length: 0\\r\\n\\r\\n")
"""
"""Another registry, at a port of the engine's loopback."""


def image_id(engine: Engine, name: str) -> str:
    return engine.cli("image", "inspect", "--format", "{{.Id}}", name).strip()


@pytest.mark.parametrize("used", [False, True], ids=["unused", "used"])
@pytest.mark.parametrize("source", STORES)
def test_an_image_that_is_rebuilt_during_its_push_is_kept(
    lab: Lab, images: Images, source: str, *, used: bool
) -> None:
    """Its only name is the temporary tag: the tag is removed, and the image stays by its ID."""
    engine, cluster, tag = lab.engine(source), STORES[source], unique()
    node, base = lab.cluster(cluster).nodes[0], unique("base")
    images.build(engine, base, os.urandom(1 << 20))
    images.build(engine, tag, base=base)
    first = image_id(engine, tag)
    created = engine.cli("create", first, "/x").strip() if used else ""
    rebuilt: list[str] = []

    def rebuild(event: Event) -> None:
        if isinstance(event, SendingStarted) and not rebuilt:
            rebuilt.append(images.build(engine, tag, base=base))

    imgload.load(tag, cluster=cluster, source=engine.url, transport="delta", on_event=rebuild)
    try:
        assert rebuilt
        assert image_id(engine, tag) != first
        assert image_id(engine, first) == first
        assert leftover_tags(engine) == []
        listed = json.loads(engine.cli("image", "inspect", first))[0]
        assert not [n for n in listed["RepoDigests"] or () if "/imgload/" in n]
    finally:
        if created:
            engine.cli("rm", created)
        engine.cli("rmi", "--force", first)
        forget(node, f"docker.io/library/{tag}")


@pytest.mark.parametrize("source", ["docker-cut-off", "docker28-cut-off"])
def test_nothing_is_pushed_to_another_server_on_the_receivers_port(
    lab: Lab, images: Images, tmp_path: Path, source: str
) -> None:
    """That server gets a lookup of a missing image, and no content."""
    engine, node, tag = lab.engine(source), lab.cluster("lab-d21").nodes[0], unique()
    images.build(engine, tag, os.urandom(1 << 20))
    fault = Fault("GET .*/distribution/|POST .*/push", "hold")
    with relay(engine, tmp_path, fault) as proxy:
        command = [sys.executable, "-m", "imgload", "load", tag, "-c", "lab-d21", "-o", "json"]
        command += ["--from", proxy.url, "--transport", "delta"]
        with subprocess.Popen(command, stdout=subprocess.PIPE) as process:
            assert fault.reached.wait(20), proxy.requests
            port = re.search(r"127\.0\.0\.1(?::|%3A)(\d+)", " ".join(proxy.requests))
            assert port
            enter = ["nsenter", f"--net=/proc/{engine.daemon.pid}/ns/net", sys.executable, "-c"]
            with subprocess.Popen(
                [*enter, LISTENER, port.group(1)], stdout=subprocess.PIPE, text=True
            ) as listener:
                received: list[str] = []
                assert listener.stdout
                lines = listener.stdout
                until(lambda: bool(lines.readline()))
                threading.Thread(target=lambda: received.extend(lines), daemon=True).start()
                fault.release.set()
                stdout, _ = process.communicate(timeout=60)
                listener.send_signal(signal.SIGTERM)
    assert json.loads(stdout)["ok"]
    assert not any("/push" in request for request in proxy.requests)
    assert received, "the engine sent no request"
    assert not [line for line in received if line.startswith(("POST", "PUT", "PATCH"))]
    assert leftover_tags(engine) == []
    assert cri_id(node, f"docker.io/library/{tag}")
    forget(node, f"docker.io/library/{tag}")


@pytest.mark.parametrize("source", ["docker", "docker28"])
def test_a_leftover_tag_is_removed_through_another_address_of_the_engine(
    lab: Lab, images: Images, tmp_path: Path, source: str
) -> None:
    """The killed run used a relay, and the next one uses the engine's socket."""
    engine, cluster, tag = lab.engine(source), STORES[source], unique()
    node, base = lab.cluster(cluster).nodes[0], unique("base")
    images.build(engine, base, os.urandom(1 << 20))
    images.build(engine, tag, base=base)
    fault = Fault("POST .*/push", "hold")
    with relay(engine, tmp_path, fault) as proxy:
        command = [sys.executable, "-m", "imgload", "load", tag, "-c", cluster]
        command += ["--transport", "delta", "--from"]
        with subprocess.Popen([*command, proxy.url], stderr=subprocess.DEVNULL) as process:
            assert fault.reached.wait(20), proxy.requests
            process.kill()
    until(lambda: leftover_tags(engine) != [])
    again = subprocess.run([*command, engine.url], capture_output=True, text=True, check=False)
    assert again.returncode == 0, again.stderr
    assert leftover_tags(engine) == []
    forget(node, f"docker.io/library/{tag}")
