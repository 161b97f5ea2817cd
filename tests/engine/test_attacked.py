"""Attacks on the receiver during a push: requests are refused and bounded, and the load ends."""

from __future__ import annotations

import json
import re
import subprocess
import sys
import threading
from pathlib import Path
from typing import Any, Self

import attrs
import pytest

from imgload.registry.http_server import MAX_ADMITTED, MAX_STRANGERS
from tests.engine.aftermath import Setup, settled, until
from tests.engine.attack import Attack, Victim
from tests.engine.conftest import Images, cases, cri_id, forget, unique
from tests.engine.relay import Fault, relay
from tests.engine.test_load import config_digest
from tests.lab import Lab

MIB = 1 << 20
PUSHES = {
    "docker": ("lab-d21", 0, True),
    "docker28": ("lab-e21", 1, False),
    "podman": ("lab-p21", 0, True),
}
"""By engine: the cluster, the number of earlier pushes (to learn the image ID), and crictl."""
READ_BACK = ("name", "image_id", "diff_ids", "unpacked")
ATTACKS = {
    f"{engine}, {attacker}": (engine, attacker == "insider")
    for engine in PUSHES
    for attacker in ("stranger", "insider")
}
"""An insider knows the repository's name, which the engine shows to each of its users."""


@attrs.define
class Peak:
    """The peak number of threads of a process, which is sampled continuously."""

    victim: Victim
    threads: int = 0
    _over: threading.Event = attrs.field(factory=threading.Event)

    def __enter__(self) -> Self:
        threading.Thread(target=self._watch, daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        self._over.set()

    def _watch(self) -> None:
        while not self._over.wait(0.02):
            try:
                self.threads = max(self.threads, self.victim.threads)
            except (OSError, StopIteration):
                return


@pytest.mark.parametrize("case", cases(ATTACKS, ("docker28, stranger",)))
def test_a_load_succeeds_during_an_attack_on_the_receiver(
    lab: Lab, images: Images, tmp_path: Path, case: tuple[str, bool]
) -> None:
    """Requests are refused, threads and memory are bounded, and the image is verified."""
    (source, inside), (cluster, before, crictl) = case, PUSHES[case[0]]
    engine, tag = lab.engine(source), unique()
    images.build(engine, tag, b"x" * (4 * MIB))
    node = lab.cluster(cluster).nodes[0]
    setup = Setup(node, (engine,), tmp_path / "temp")
    setup.temp.mkdir()
    left = setup.state()
    fault = Fault("POST .*/push", "hold", skip=before)
    with relay(engine, tmp_path, fault) as proxy:
        environ = setup.environ(**dict.fromkeys(("DOCKER_HOST", "CONTAINER_HOST"), proxy.url))
        command = [sys.executable, "-m", "imgload", "load", tag, "-c", cluster, "-o", "json"]
        with subprocess.Popen(
            [*command, "--transport", "delta"],
            env=environ,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        ) as process:
            try:
                document = _attacked(process, fault, proxy.requests, inside=inside)
            finally:
                process.kill()
    assert process.returncode == 0, document
    [result] = document["images"][0]["nodes"]
    assert result["ok"]
    assert result["proof"] == {**dict.fromkeys(READ_BACK, True), "cri": True if crictl else None}
    if not inside:
        assert result["action"] in {"delta", "full"}
    name = f"docker.io/library/{tag}"
    after = settled(setup, attrs.evolve(left, records=left.records | {name}))
    assert after == attrs.evolve(left, records=left.records | {name})
    assert cri_id(node, name) == config_digest(engine, tag)
    forget(node, name)


def _attacked(
    process: subprocess.Popen[str], fault: Fault, requests: list[str], *, inside: bool
) -> dict[str, Any]:
    """Attack a load while it waits for a push, and during the push; return its document."""
    assert fault.reached.wait(20), requests
    victim = Victim(process.pid)
    attack = Attack(_port(requests))
    root = _root(requests) if inside else f"/v2/imgload/{'0' * 32}/"
    with Peak(victim) as peak:
        with attack.lasting(root):
            answers = attack.from_inside(root) if inside else attack.from_outside()
            if inside:
                attack.push_unrequested(root)
            until(lambda: attack.connections >= 1000, 20)
            memory = victim.most_memory
            fault.release.set()
            stdout, stderr = process.communicate(timeout=60)
        assert peak.threads < MAX_STRANGERS + MAX_ADMITTED + 40
    assert "Traceback" not in stderr
    assert {status for status in answers.values() if status < 400} <= {0}, answers
    assert memory < 80 * MIB
    document: dict[str, Any] = json.loads(stdout)
    return document


def _port(requests: list[str]) -> int:
    """Return the receiver's port, to which the engine pushes; the nodes have another server."""
    [*_, port] = re.findall(r"127\.0\.0\.1(?::|%3A)([0-9]+)(?:/|%2F)imgload", " ".join(requests))
    return int(port)


def _root(requests: list[str]) -> str:
    """Return the repository that the engine's API shows, as ``docker images`` does."""
    names = re.findall(r"imgload(?:/|%2F)([0-9a-f]{32})", " ".join(requests))
    return f"/v2/imgload/{names[-1]}/"
