"""The tag that a push needs, and the address that it goes to: no image is lost or goes astray."""

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
from tests.engine.aftermath import strays, until
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
"""A registry of somebody else's, at a port of the engine's own loopback."""


def image_id(engine: Engine, name: str) -> str:
    return engine.cli("image", "inspect", "--format", "{{.Id}}", name).strip()


@pytest.mark.parametrize("used", [False, True], ids=["unused", "used"])
@pytest.mark.parametrize("source", STORES)
def test_an_image_that_is_rebuilt_during_its_push_is_kept(
    lab: Lab, images: Images, source: str, *, used: bool
) -> None:
    """It has no name then but ours: it stays in the engine by its ID, and ours goes."""
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
        assert strays(engine) == []
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
    """He is asked for an image that is not there, and gets none of ours."""
    engine, node, tag = lab.engine(source), lab.cluster("lab-d21").nodes[0], unique()
    images.build(engine, tag, os.urandom(1 << 20))
    fault = Fault("GET .*/distribution/|POST .*/push", "hold")
    with relay(engine, tmp_path, fault) as between:
        command = [sys.executable, "-m", "imgload", "load", tag, "-c", "lab-d21", "-o", "json"]
        command += ["--from", between.url, "--transport", "delta"]
        with subprocess.Popen(command, stdout=subprocess.PIPE) as process:
            assert fault.reached.wait(20), between.requests
            port = re.search(r"127\.0\.0\.1(?::|%3A)(\d+)", " ".join(between.requests))
            assert port
            enter = ["nsenter", f"--net=/proc/{engine.daemon.pid}/ns/net", sys.executable, "-c"]
            with subprocess.Popen(
                [*enter, LISTENER, port.group(1)], stdout=subprocess.PIPE, text=True
            ) as listener:
                heard: list[str] = []
                assert listener.stdout
                lines = listener.stdout
                until(lambda: bool(lines.readline()))
                threading.Thread(target=lambda: heard.extend(lines), daemon=True).start()
                fault.release.set()
                said, _ = process.communicate(timeout=60)
                listener.send_signal(signal.SIGTERM)
    assert json.loads(said)["ok"]
    assert not any("/push" in request for request in between.requests)
    assert heard, "the engine asked nobody"
    assert not [line for line in heard if line.startswith(("POST", "PUT", "PATCH"))]
    assert strays(engine) == []
    assert cri_id(node, f"docker.io/library/{tag}")
    forget(node, f"docker.io/library/{tag}")


@pytest.mark.parametrize("source", ["docker", "docker28"])
def test_a_leftover_tag_is_removed_through_another_address_of_the_engine(
    lab: Lab, images: Images, tmp_path: Path, source: str
) -> None:
    """The run that was killed reached it through a relay; the next one reaches it itself."""
    engine, cluster, tag = lab.engine(source), STORES[source], unique()
    node, base = lab.cluster(cluster).nodes[0], unique("base")
    images.build(engine, base, os.urandom(1 << 20))
    images.build(engine, tag, base=base)
    fault = Fault("POST .*/push", "hold")
    with relay(engine, tmp_path, fault) as between:
        command = [sys.executable, "-m", "imgload", "load", tag, "-c", cluster]
        command += ["--transport", "delta", "--from"]
        with subprocess.Popen([*command, between.url], stderr=subprocess.DEVNULL) as process:
            assert fault.reached.wait(20), between.requests
            process.kill()
    until(lambda: strays(engine) != [])
    again = subprocess.run([*command, engine.url], capture_output=True, text=True, check=False)
    assert again.returncode == 0, again.stderr
    assert strays(engine) == []
    forget(node, f"docker.io/library/{tag}")
