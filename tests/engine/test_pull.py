"""Nodes pull from a registry in this process: what travels, what is left, and what is refused."""

from __future__ import annotations

import http.client
import os
import subprocess
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

import imgload
from imgload.loader.events import BytesSent, Event, Note
from imgload.oci.digest import Digest
from imgload.registry import read_server
from tests.engine.conftest import Images, cri_id, forget, record_digest, unique
from tests.lab import Lab, Node

MIB = 1 << 20
SOURCES = ("docker", "docker28", "podman")


def notes_of(events: list[Event]) -> list[str]:
    return [event.text for event in events if isinstance(event, Note)]


def sent_by(report: imgload.Report) -> set[str | None]:
    return {node.transport for node in report.images[0].nodes}


def folders(node: Node) -> str:
    return node.exec("ls", "/tmp", "/run")


@contextmanager
def firewall(node: Node) -> Iterator[None]:
    """Drop the packets from a node to this machine, as ufw does by default."""
    address = node.exec("hostname", "-i").split()[0]
    rule = ["-s", address, "-p", "tcp", "--syn", "-j", "DROP"]
    subprocess.run(["iptables", "-I", "INPUT", *rule], check=True)
    try:
        yield
    finally:
        subprocess.run(["iptables", "-D", "INPUT", *rule], check=True)


@pytest.mark.parametrize("cluster", ["lab-d16", "lab-d17", "lab-d21", "lab-p21"])
@pytest.mark.parametrize("source", SOURCES)
def test_a_node_pulls_exactly_the_missing_blobs(
    lab: Lab, images: Images, source: str, cluster: str
) -> None:
    """Cold, and after a rebuild; nothing is left on the node."""
    engine, node, base, tag = lab.engine(source), lab.cluster(cluster).nodes[0], unique(), unique()
    images.build(engine, base, os.urandom(8 * MIB))
    images.build(engine, tag, os.urandom(MIB), base=base)
    before = folders(node)
    cold = imgload.load(tag, cluster=cluster, source=engine.url)
    images.build(engine, tag, os.urandom(2 * MIB), base=base)
    rebuilt = imgload.load(tag, cluster=cluster, source=engine.url)
    assert [sent_by(report) for report in (cold, rebuilt)] == [{"pull"}, {"pull"}]
    assert 9 * MIB < cold.images[0].nodes[0].bytes_sent < 1.02 * 9 * MIB + 20_000
    assert 2 * MIB < rebuilt.images[0].nodes[0].bytes_sent < 1.02 * 2 * MIB + 20_000
    name = f"docker.io/library/{tag}"
    assert cri_id(node, name) == str(rebuilt.images[0].image_id)
    assert folders(node) == before
    forget(node, name)


def test_a_firewall_is_noticed_within_seconds_and_remembered(lab: Lab, images: Images) -> None:
    """The image is imported; the next load does not try again."""
    node, tag = lab.cluster("lab-d21").nodes[0], unique()
    images.build(lab.docker, tag, os.urandom(MIB))
    with firewall(node):
        events: list[Event] = []
        start = time.monotonic()
        report = imgload.load(tag, cluster="lab-d21", on_event=events.append)
        assert time.monotonic() - start < 10
        assert sent_by(report) == {"import"}
        assert [note for note in notes_of(events) if "cannot connect" in note]
        images.build(lab.docker, tag, os.urandom(MIB))
        again: list[Event] = []
        report = imgload.load(tag, cluster="lab-d21", on_event=again.append)
        assert (sent_by(report), notes_of(again)) == ({"import"}, [])
    assert cri_id(node, f"docker.io/library/{tag}") == str(report.images[0].image_id)
    forget(node, f"docker.io/library/{tag}")


def test_a_full_temporary_folder_makes_the_load_stream(
    lab: Lab, images: Images, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    node, tag = lab.cluster("lab-d21").nodes[0], unique()
    images.build(lab.docker28, tag, os.urandom(8 * MIB))
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=4m", "tmpfs", tmp_path], check=True)
    try:
        monkeypatch.setenv("TMPDIR", str(tmp_path))
        monkeypatch.setattr("tempfile.tempdir", None)
        report = imgload.load(tag, cluster="lab-d21", source=lab.docker28.url)
    finally:
        subprocess.run(["umount", tmp_path], check=True)
    assert sent_by(report) == {"import"}
    forget(node, f"docker.io/library/{tag}")


def test_a_pinned_name_gets_its_own_manifest(lab: Lab, images: Images) -> None:
    node, tag = lab.cluster("lab-d21").nodes[0], unique()
    images.build(lab.docker28, tag, os.urandom(MIB))
    digest = lab.docker28.image_id(tag)
    name = f"{tag.partition(':')[0]}@{digest}"
    report = imgload.load(tag, cluster="lab-d21", source=lab.docker28.url, tag=name)
    assert sent_by(report) == {"pull"}
    assert record_digest(node, f"docker.io/library/{name}") == digest
    forget(node, f"docker.io/library/{name}")


def test_the_server_answers_nobody_without_the_path(
    lab: Lab, images: Images, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It listens on the nodes' gateway only, until the load ends."""
    node, tag = lab.cluster("lab-d21").nodes[0], unique()
    images.build(lab.docker28, tag, os.urandom(16 * MIB))
    servers: list[read_server.ReadServer] = []
    answers: list[int] = []

    class Watched(read_server.ReadServer):
        def __init__(self, *arguments: object) -> None:
            super().__init__(*arguments)  # type: ignore[arg-type]
            servers.append(self)

    monkeypatch.setattr(read_server, "ReadServer", Watched)

    def ask(event: Event) -> None:
        if isinstance(event, BytesSent) and not answers:
            host, port = servers[0].server_address[:2]
            for path in ("/", "/v2/", f"/v2/{'0' * 32}/library/app/blobs/{Digest.of(b'')}"):
                connection = http.client.HTTPConnection(str(host), port, timeout=5)
                connection.request("GET", path)
                answers.append(connection.getresponse().status)
                connection.close()

    threads = threading.active_count()
    report = imgload.load(tag, cluster="lab-d21", source=lab.docker28.url, on_event=ask)
    assert sent_by(report) == {"pull"}
    assert answers == [404] * 3
    host, port = servers[0].server_address[:2]
    assert host not in {"0.0.0.0", "127.0.0.1"}
    with pytest.raises(OSError, match="refused"):
        http.client.HTTPConnection(str(host), port, timeout=5).connect()
    assert threading.active_count() <= threads + 1
    forget(node, f"docker.io/library/{tag}")
