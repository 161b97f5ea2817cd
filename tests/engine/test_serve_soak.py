"""`imgload serve` under mixed load for a long time: nothing leaks.

``IMGLOAD_SOAK_SECONDS=3600 pytest -m long tests/engine/test_serve_soak.py`` takes an hour.
"""

from __future__ import annotations

import contextlib
import http.client
import os
import random
import re
import secrets
import socket
import threading
import time
from collections.abc import Callable
from pathlib import Path

import attrs
import pytest

from tests.engine.aftermath import leftover_tags, until
from tests.engine.attack import CLIMBING
from tests.engine.conftest import Images, forget, unique
from tests.engine.test_load import config_digest
from tests.engine.test_registry import CERTS, state
from tests.engine.test_serve import serving
from tests.lab import Lab, Node
from tests.lab.cri import CriError
from tests.lab.engine import Engine
from tests.lab.shell import CommandError

SECONDS = float(os.environ.get("IMGLOAD_SOAK_SECONDS", "120"))
_IDLE_SECONDS = 150.0
"""containerd keeps the connections of a pull open for a while, and the server for two minutes."""
_HOST = re.compile(r'\[host\."http://([\d.]+):(\d+)(/v2/[0-9a-f]{32})"\]')
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


@attrs.define
class Load:
    """Actions that run in parallel until the end, and the image IDs that each name has had."""

    ids: dict[str, set[str]] = attrs.field(factory=dict)
    pulls: int = 0
    wrong: list[str] = attrs.field(factory=list)
    errors: list[BaseException] = attrs.field(factory=list)
    _over: threading.Event = attrs.field(factory=threading.Event)
    _threads: list[threading.Thread] = attrs.field(factory=list)

    def repeat(self, act: Callable[[], None], pause: float) -> None:
        def run() -> None:
            while not self._over.wait(pause):
                try:
                    act()
                except (CriError, CommandError, OSError, http.client.HTTPException):
                    continue  # the image or its engine is absent at the moment
                except BaseException as error:  # noqa: BLE001 - raised by `end`
                    self.errors.append(error)
                    return

        thread = threading.Thread(target=run)
        self._threads.append(thread)
        thread.start()

    def end(self) -> None:
        self._over.set()
        for thread in self._threads:
            thread.join()
        if self.errors:
            raise self.errors[0]

    def rebuild(self, images: Images, engine: Engine, name: str, base: str) -> None:
        """Build a name again; it may be pulled before the builder knows the image ID."""
        images.build(engine, name, secrets.token_bytes(20_000), base=base)
        self.ids.setdefault(name, set()).add(config_digest(engine, name))

    def pull(self, node: Node) -> None:
        name = random.choice(list(self.ids))
        pulled = node.cri().pull_image(name)
        self.pulls += 1
        time.sleep(1)
        if pulled not in self.ids[name]:
            self.wrong.append(f"{name}: {pulled}")
        if random.random() < 0.3:
            forget(node, name)


def _attack(node: Node) -> None:
    """Send requests that no node sends, to the server and below the node's own path."""
    match = _HOST.search(node.exec("cat", f"{CERTS}/_default/hosts.toml"))
    assert match
    host, port, root = match[1], int(match[2]), match[3]
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


@pytest.mark.long
def test_nothing_leaks_under_mixed_load(lab: Lab, images: Images, tmp_path: Path) -> None:
    """Three nodes, rebuilds, deletions, restarts of an engine, and hostile requests."""
    nodes = lab.cluster("lab-d3").nodes
    engines = (lab.docker, lab.podman)
    before = [state(node) for node in nodes]
    load = Load()
    names = {engine.name: [unique(engine.name) for _ in range(3)] for engine in engines}
    bases = {engine.name: unique("base") for engine in engines}
    for engine in engines:
        images.build(engine, bases[engine.name], os.urandom(2_000_000))
        for name in names[engine.name]:
            load.rebuild(images, engine, name, bases[engine.name])

    def rebuild(engine: Engine) -> None:
        load.rebuild(images, engine, random.choice(names[engine.name]), bases[engine.name])

    def restart() -> None:
        lab.podman.stop()
        lab.podman.start()

    with serving("-c", "lab-d3", nodes=3) as server:
        for name in load.ids:
            nodes[0].cri().pull_image(name)
        first = Usage.of(server.process.pid)
        for node in nodes:
            load.repeat(lambda node=node: load.pull(node), 0.2)  # type: ignore[misc]
        for engine in engines:
            load.repeat(lambda engine=engine: rebuild(engine), 2)  # type: ignore[misc]
        load.repeat(lambda: lab.docker.remove_image(names["docker"][0]), 7)
        load.repeat(restart, 15)
        load.repeat(lambda: _attack(nodes[0]), 1)
        time.sleep(SECONDS)
        load.end()
        until(lambda: Usage.of(server.process.pid).settled(first), _IDLE_SECONDS)
        last = Usage.of(server.process.pid)
        assert load.pulls > SECONDS / 10
        assert load.wrong == []
        assert last.memory - first.memory < _MORE_MEMORY, (first, last)
        for engine in engines:
            until(lambda engine=engine: leftover_tags(engine) == [])  # type: ignore[misc]
        blobs = tmp_path / "cache" / "imgload" / "blobs"
        assert [path for path in blobs.iterdir() if path.name.startswith(".")] == []
        assert server.stop() == 0
    assert [state(node) for node in nodes] == before
    for node in nodes:
        forget(node, *load.ids)
