"""`imgload serve` under mixed load for a long time: nothing leaks.

``IMGLOAD_SOAK_SECONDS=3600 pytest -m long tests/engine/test_serve_soak.py`` takes an hour.
"""

from __future__ import annotations

import contextlib
import http.client
import itertools
import logging
import os
import random
import secrets
import socket
import tarfile
import threading
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import attrs
import pytest

from tests.engine.aftermath import leftover_tags, until
from tests.engine.attack import CLIMBING
from tests.engine.conftest import Images, forget, unique
from tests.engine.test_discovery import link
from tests.engine.test_load import config_digest
from tests.engine.test_registry import CERTS, state
from tests.engine.test_serve import HOST, serving
from tests.lab import Lab, Node
from tests.lab.cri import CriError
from tests.lab.engine import Engine
from tests.lab.shell import LabError

_LOG = logging.getLogger(__name__)
SECONDS = float(os.environ.get("IMGLOAD_SOAK_SECONDS", "120"))
_IDLE_SECONDS = 150.0
"""containerd keeps the connections of a pull open for a while, and the server for two minutes."""
_RETURN_SECONDS = 60.0
"""The time after which a restarted or new node pulls again."""
RECREATED = "lab-again"
_MORE_MEMORY = 48 << 20
_MORE = 5
"""Files or threads, such as of a request to an engine."""


@attrs.frozen
class Usage:
    """What the server's process occupies: bytes, open files, and threads."""

    memory: int
    files: int
    threads: int

    @classmethod
    def of(cls, pid: int) -> Usage:
        status = dict(
            line.split(":", 1) for line in Path(f"/proc/{pid}/status").read_text().splitlines()
        )
        memory = int(status["VmRSS"].split()[0]) * 1024
        return cls(memory, len(list(Path(f"/proc/{pid}/fd").iterdir())), int(status["Threads"]))

    def settled(self, first: Usage) -> bool:
        return self.files <= first.files + _MORE and self.threads <= first.threads + _MORE


@attrs.frozen
class Pull:
    """A pulled image, and the numbers of the name's last builds at its beginning and end."""

    name: str
    image_id: str
    first: int
    last: int


@attrs.define
class Load:
    """Actions that run in parallel until the end; the builds of each name, and the pulls."""

    begun: dict[str, int] = attrs.field(factory=dict)
    ids: dict[tuple[str, int], str] = attrs.field(factory=dict)
    """The image IDs of the builds that succeeded."""
    pulls: list[Pull] = attrs.field(factory=list)
    errors: list[BaseException] = attrs.field(factory=list)
    _over: threading.Event = attrs.field(factory=threading.Event)
    _threads: list[threading.Thread] = attrs.field(factory=list)

    def repeat(self, act: Callable[[], None], pause: float) -> None:
        def run() -> None:
            while not self._over.wait(pause):
                try:
                    act()
                except (CriError, LabError, OSError, http.client.HTTPException):
                    continue  # the image or its engine is absent at the moment
                except BaseException as error:  # noqa: BLE001 - raised by `end`
                    self.errors.append(error)
                    return

        thread = threading.Thread(target=run)
        self._threads.append(thread)
        thread.start()

    def wait(self, seconds: float) -> None:
        """Wait until the time has passed, or an action has failed."""
        deadline = time.monotonic() + seconds
        while time.monotonic() < deadline and not self.errors:
            time.sleep(1)

    def end(self) -> None:
        self._over.set()
        for thread in self._threads:
            thread.join()
        if self.errors:
            raise self.errors[0]

    def rebuild(self, images: Images, engine: Engine, name: str, base: str) -> None:
        self.begun[name] = number = self.begun.get(name, 0) + 1
        images.build(engine, name, secrets.token_bytes(20_000), base=base)
        with contextlib.suppress(KeyError, tarfile.TarError):  # deleted while it is saved
            self.ids[name, number] = config_digest(engine, name)

    def pull(self, node: Node) -> None:
        name = random.choice(list(self.begun))
        first = self.begun[name]
        image_id = node.cri().pull_image(name)
        self.pulls.append(Pull(name, image_id, first, self.begun[name]))
        if random.random() < 0.3:
            forget(node, name)

    @property
    def wrong(self) -> list[Pull]:
        """The pulls of another image than the newest build, or the one before if it was running."""
        wrong = []
        for pull in self.pulls:
            builds = [(pull.name, number) for number in range(pull.first - 1, pull.last + 1)]
            is_known = all(build in self.ids for build in builds[pull.first == 1 :])
            if is_known and pull.image_id not in {self.ids.get(build) for build in builds}:
                wrong.append(pull)
        return wrong


def _attack(node: Node) -> None:
    """Send requests that no node sends, to the server and below the node's own path."""
    match = HOST.search(node.exec("cat", f"{CERTS}/_default/hosts.toml"))
    if not match:
        return  # the node is being set up again
    host, port, root = match[1], int(match[2]), f"/v2/{match[3]}"
    paths = [f"{root}/{part}/manifests/{part}?ns={part}" for part in CLIMBING]
    paths += [f"/v2/{secrets.token_hex(16)}/app/manifests/dev", "/" + "a" * 70_000, "/v2/"]
    paths += [f"{root}/app/blobs/sha256:{'0' * 64}", f"{root}/app/blobs/x", f"{root}/" + "a/" * 999]
    for path in paths:
        for method in ("GET", "PUT", "HEAD"):
            connection = http.client.HTTPConnection(host, port, timeout=30)
            with contextlib.closing(connection), contextlib.suppress(ValueError):
                connection.request(method, path)
                assert connection.getresponse().status >= 400
    for start in (b"GET ", b"\x16\x03\x01", b"GET / HTTP/1.1\r\n" + b"a: b\r\n" * 50):
        with socket.create_connection((host, port), timeout=30) as cut:
            cut.sendall(start)


@attrs.define
class Interruptions:
    """Engines that restart, also the one that runs the nodes, and a node that is created again.

    After each, every node pulls an image again, which no other action removes.
    """

    lab: Lab
    nodes: list[Node]
    kept: str
    """An image in Docker 28."""
    count: int = 0
    _turn: itertools.cycle[Callable[[], None]] = attrs.field(init=False)

    def __attrs_post_init__(self) -> None:
        self._turn = itertools.cycle((self._podman, self._recreate, self._docker28, self._docker))

    def next(self) -> None:
        next(self._turn)()
        self.count += 1

    def _podman(self) -> None:
        """Images of the other engines are served meanwhile."""
        self.lab.podman.stop()
        self._require_pulls(self.nodes)
        self.lab.podman.start()

    def _recreate(self) -> None:
        cluster = self.lab.make_cluster(name=RECREATED, engine="docker")
        self._require_pulls(cluster.nodes)

    def _docker28(self) -> None:
        self.lab.docker28.stop()
        self.lab.docker28.start()
        self._require_pulls(self.nodes)

    def _docker(self) -> None:
        """The nodes stop with it, and are started again."""
        self.lab.docker.stop()
        self.lab.docker.start()
        self.lab.docker.cli("start", *(node.name for node in self.nodes))
        self._require_pulls(self.nodes)

    def _require_pulls(self, nodes: list[Node]) -> None:
        for node in nodes:
            until(lambda node=node: self._pulls(node), _RETURN_SECONDS)  # type: ignore[misc]

    def _pulls(self, node: Node) -> bool:
        with contextlib.suppress(CriError, LabError, OSError):
            node.cri().pull_image(self.kept)
            forget(node, self.kept)
            return True
        return False


@pytest.mark.long
def test_nothing_leaks_under_mixed_load(
    lab: Lab, images: Images, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Three nodes, rebuilds, deletions, restarts of every engine, and hostile requests."""
    monkeypatch.delenv("DOCKER_HOST")
    monkeypatch.setenv("HOME", str(tmp_path))
    link(tmp_path / ".colima/default/docker.sock", lab.docker.socket)
    link(tmp_path / ".rd/docker.sock", lab.docker28.socket)
    nodes = lab.cluster("lab-d3").nodes
    engines = (lab.docker, lab.podman, lab.docker28)
    before = [state(node) for node in nodes]
    load = Load()
    names = {engine.name: [unique(engine.name) for _ in range(3)] for engine in engines}
    bases = {engine.name: unique("base") for engine in engines}
    for engine in engines:
        images.build(engine, bases[engine.name], os.urandom(2_000_000))
        for name in names[engine.name]:
            load.rebuild(images, engine, name, bases[engine.name])
    kept = unique("kept")
    images.build(lab.docker28, kept, os.urandom(100_000))
    interruptions = Interruptions(lab, nodes, kept)

    def rebuild(engine: Engine) -> None:
        load.rebuild(images, engine, random.choice(names[engine.name]), bases[engine.name])

    def delete(engine: Engine) -> None:
        engine.remove_image(names[engine.name][0])
        engine.cli("image", "prune", "--force")

    with serving("-c", "lab-d3", "-c", RECREATED, nodes=3) as server:
        for name in load.begun:
            nodes[0].cri().pull_image(name)
        first = Usage.of(server.process.pid)
        for node in nodes:
            load.repeat(lambda node=node: load.pull(node), 0.2)  # type: ignore[misc]
        for engine in engines:
            load.repeat(lambda engine=engine: rebuild(engine), 2)  # type: ignore[misc]
            load.repeat(lambda engine=engine: delete(engine), 7)  # type: ignore[misc]
        load.repeat(interruptions.next, 10)
        load.repeat(lambda: _attack(nodes[0]), 1)
        load.wait(SECONDS)
        errors = server.errors()
        _LOG.info("%s; last: %s", Counter(e["error"]["kind"] for e in errors), errors[-5:])
        load.end()
        until(lambda: Usage.of(server.process.pid).settled(first), _IDLE_SECONDS)
        last = Usage.of(server.process.pid)
        _LOG.info("%s, %s", first, last)
        _LOG.info("%d pulls, %d interruptions", len(load.pulls), interruptions.count)
        assert len(load.pulls) > SECONDS / 10
        assert load.wrong == []
        assert interruptions.count > SECONDS / 60
        assert last.memory - first.memory < _MORE_MEMORY, (first, last)
        for engine in engines:
            until(lambda engine=engine: leftover_tags(engine) == [])  # type: ignore[misc]
        blobs = tmp_path / "cache" / "imgload" / "blobs"
        assert [path for path in blobs.iterdir() if path.name.startswith(".")] == []
        assert server.stop() == 0
    assert [state(node) for node in nodes] == before
    for node in nodes:
        forget(node, *load.begun)
