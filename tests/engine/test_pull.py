"""Nodes pull from a registry in this process: transferred bytes, leftovers, and fallbacks."""

from __future__ import annotations

import http.client
import os
import socket
import subprocess
import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path

import pytest

import imgload
from imgload.loader.events import BytesSent, Event, Note
from imgload.oci.digest import Digest
from imgload.registry import read_server
from imgload.registry.http_server import MAX_STRANGERS
from tests.engine.conftest import Images, cri_id, forget, record_digest, unique
from tests.lab import Lab, Node
from tests.lab.suites import NEWEST

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


def test_one_load_pulls_several_images_and_names(lab: Lab, images: Images) -> None:
    """Their common layer is sent once."""
    node, base, tags = lab.cluster("lab-d21").nodes[0], unique(), [unique() for _ in range(3)]
    images.build(lab.docker28, base, os.urandom(4 * MIB))
    ids = [images.build(lab.docker28, tag, os.urandom(MIB), base=base) for tag in tags[:2]]
    lab.docker28.cli("tag", tags[1], tags[2])
    report = imgload.load(tags, cluster="lab-d21", source=lab.docker28.url)
    assert {node.transport for image in report.images for node in image.nodes} == {"pull"}
    sent = sum(node.bytes_sent for image in report.images for node in image.nodes)
    assert 6 * MIB < sent < 1.02 * 6 * MIB + 40_000
    names = [f"docker.io/library/{tag}" for tag in tags]
    on_node = [cri_id(node, name) for name in names]
    assert on_node == [str(image.image_id) for image in report.images]
    assert len(set(on_node)) == len(set(ids)) == 2
    forget(node, *names)
    lab.docker28.remove_image(tags[2])


def test_a_node_without_a_network_imports(
    lab: Lab, images: Images, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Without a note: there is no address to try."""
    node, tag = lab.cluster("lab-r21").nodes[0], unique()
    monkeypatch.setenv("CONTAINER_HOST", node.engine.url)
    image_id = images.build(node.engine, tag, os.urandom(MIB))
    events: list[Event] = []
    report = imgload.load(tag, cluster="lab-r21", source="podman", on_event=events.append)
    assert (sent_by(report), notes_of(events)) == ({"import"}, [])
    assert cri_id(node, f"docker.io/library/{tag}") == image_id
    forget(node, f"docker.io/library/{tag}")


@pytest.mark.parametrize("containerd", ["1.7", NEWEST])
def test_a_node_pulls_past_a_proxy(lab: Lab, images: Images, containerd: str) -> None:
    """Nothing listens at the proxy's address; containerd 2's own pulls would use it."""
    tag, proxy = unique(), "http://127.0.0.1:9"
    variables = ("HTTP_PROXY", "HTTPS_PROXY", "http_proxy", "https_proxy")
    cluster = lab.make_cluster(
        name="lab-proxy",
        engine="docker",
        containerd=containerd,
        run_args=[f"--env={variable}={proxy}" for variable in variables],
    )
    try:
        image_id = images.build(lab.docker, tag, os.urandom(MIB))
        events: list[Event] = []
        report = imgload.load(tag, cluster="lab-proxy", on_event=events.append)
        environ = (cluster.nodes[0].root / "proc/1/environ").read_text()
        assert f"HTTP_PROXY={proxy}" in environ.split("\0")
        assert (sent_by(report), notes_of(events)) == ({"pull"}, [])
        assert cri_id(cluster.nodes[0], f"docker.io/library/{tag}") == image_id
    finally:
        cluster.remove()


HOST_ADDRESS = "10.254.253.252"


@contextmanager
def machine_behind_nat(node: Node) -> Iterator[None]:
    """Relay connections to an address to the loopback, as Docker Desktop does; block others."""
    address, gateway = node.exec("hostname", "-i").split()[0], node.exec("ip", "route").split()[2]
    forward = ["-d", HOST_ADDRESS, "-p", "tcp", "-j", "DNAT", "--to-destination", "127.0.0.1"]
    rules = [
        ["nat", "PREROUTING", "-s", address, *forward],
        ["filter", "INPUT", "-s", address, "-d", gateway, "-p", "tcp", "--syn", "-j", "DROP"],
    ]
    setting = Path("/proc/sys/net/ipv4/conf/all/route_localnet")
    before = setting.read_text()
    setting.write_text("1")
    with ExitStack() as stack:
        stack.callback(setting.write_text, before)
        for table, chain, *rule in rules:
            subprocess.run(["iptables", "-t", table, "-I", chain, *rule], check=True)
            command = ["iptables", "-t", table, "-D", chain, *rule]
            stack.callback(subprocess.run, command, check=True)
        yield


def test_a_node_reaches_this_machine_by_the_name_of_its_vm_host(lab: Lab, images: Images) -> None:
    """As in Docker Desktop, where the gateway belongs to the VM."""
    host = f"--add-host=host.docker.internal:{HOST_ADDRESS}"
    cluster, tag = lab.make_cluster(name="lab-vm", engine="docker", run_args=[host]), unique()
    try:
        image_id = images.build(lab.docker, tag, os.urandom(MIB))
        with machine_behind_nat(cluster.nodes[0]):
            report = imgload.load(tag, cluster="lab-vm")
        assert sent_by(report) == {"pull"}
        assert cri_id(cluster.nodes[0], f"docker.io/library/{tag}") == image_id
    finally:
        cluster.remove()


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


@pytest.fixture
def servers(monkeypatch: pytest.MonkeyPatch) -> list[read_server.ReadServer]:
    """Collect the servers that nodes pull from."""
    opened: list[read_server.ReadServer] = []

    class Watched(read_server.ReadServer):
        def __init__(self, *arguments: object) -> None:
            super().__init__(*arguments)  # type: ignore[arg-type]
            opened.append(self)

    monkeypatch.setattr(read_server, "ReadServer", Watched)
    return opened


def attack(address: tuple[str, int], over: threading.Event) -> None:
    """Keep silent connections and huge heads open."""
    with ExitStack() as stack:
        for number in range(2 * MAX_STRANGERS):
            with suppress(OSError):
                connection = stack.enter_context(socket.create_connection(address, timeout=1))
                connection.sendall(b"GET / HTTP/1.1\r\nX: " + bytes(100_000) if number % 2 else b"")
        over.wait()


def test_a_node_pulls_from_an_attacked_server(
    lab: Lab, images: Images, servers: list[read_server.ReadServer]
) -> None:
    """By other programs on the gateway's network, which do not know the path."""
    node, tag, over = lab.cluster("lab-d21").nodes[0], unique(), threading.Event()
    image_id = images.build(lab.docker, tag, os.urandom(8 * MIB))
    attackers: list[threading.Thread] = []

    def begin(event: Event) -> None:
        if isinstance(event, BytesSent) and not attackers:
            host, port = servers[0].server_address[:2]
            thread = threading.Thread(target=attack, args=((str(host), port), over))
            attackers.append(thread)
            thread.start()
            time.sleep(1)

    try:
        report = imgload.load(tag, cluster="lab-d21", source="docker", on_event=begin)
    finally:
        over.set()
    assert sent_by(report) == {"pull"}
    assert attackers
    attackers[0].join(10)
    assert cri_id(node, f"docker.io/library/{tag}") == image_id
    forget(node, f"docker.io/library/{tag}")


def test_the_server_answers_nobody_without_the_path(
    lab: Lab, images: Images, servers: list[read_server.ReadServer]
) -> None:
    """It listens on the nodes' gateway only, until the load ends."""
    node, tag = lab.cluster("lab-d21").nodes[0], unique()
    images.build(lab.docker28, tag, os.urandom(16 * MIB))
    answers: list[int] = []

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
    assert answers == [404, 200, 404]  # `GET /v2/` shows only that a registry answers
    host, port = servers[0].server_address[:2]
    assert host not in {"0.0.0.0", "127.0.0.1"}
    with pytest.raises(OSError, match="refused"):
        http.client.HTTPConnection(str(host), port, timeout=5).connect()
    assert threading.active_count() <= threads + 1
    forget(node, f"docker.io/library/{tag}")
