"""Engines that restart, and nodes that are paused, during a load."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import attrs
import pytest

import imgload
from imgload.core.errors import NodeStalled
from imgload.engines import exec_stream as attached
from tests.engine.aftermath import Setup, settled, until
from tests.engine.conftest import Images, cases, cri_id, forget, unique
from tests.engine.relay import Fault, relay
from tests.lab import Lab
from tests.lab.engine import Engine

MIB = 1 << 20
SAVE = "GET .*/images/(get|export)"
PUSH = "POST .*/push"
EXEC = "POST .*/exec/.*/start"


@attrs.frozen
class Restart:
    """A daemon that ends during an operation, and restarts immediately if `back` is set."""

    engine: str
    fault: Callable[[], Fault]
    transport: str
    back: bool
    status: int


def _restarts(engine: str) -> Iterator[tuple[str, Restart]]:
    save, push = (lambda: Fault(SAVE, "hold", MIB)), (lambda: Fault(PUSH, "hold"))
    yield f"{engine}, save, restarts", Restart(engine, save, "auto", back=True, status=0)
    yield f"{engine}, push, restarts", Restart(engine, push, "delta", back=True, status=0)
    for doing, fault in (("save", save), ("push", push)):
        transport = "auto" if doing == "save" else "delta"
        dead = Restart(engine, fault, transport, back=False, status=5)
        yield f"{engine}, {doing}, dies", dead


RESTARTS = dict([*_restarts("podman"), *_restarts("docker28-graphdriver")])


@contextmanager
def _when_reached(fault: Fault, act: Callable[[], object]) -> Iterator[None]:
    """Run an action when the fault is reached, then release it."""

    def strike() -> None:
        try:
            if fault.reached.wait(20):
                act()
        finally:
            fault.release.set()

    thread = threading.Thread(target=strike)
    thread.start()
    yield
    thread.join()


def _load(environ: dict[str, str], *args: str) -> tuple[int, dict[str, Any]]:
    command = [sys.executable, "-m", "imgload", "load", *args, "-o", "json"]
    done = subprocess.run(command, env=environ, capture_output=True, text=True, check=False)
    assert "Traceback" not in done.stderr
    return done.returncode, json.loads(done.stdout)


def _end(engine: Engine, *, back: bool) -> None:
    """End the daemon; kill Podman, which would wait for its connections to end."""
    if engine.daemon.pid and engine.name == "podman":
        os.kill(engine.daemon.pid, signal.SIGKILL)
        until(lambda: not engine.daemon.pid)
    engine.daemon.stop()
    if back:
        engine.daemon.start()


@pytest.mark.parametrize("case", cases(RESTARTS, ("podman, save, restarts",)))
def test_a_load_handles_a_restart_of_its_engine(
    lab: Lab, images: Images, tmp_path: Path, case: Restart
) -> None:
    """After a restart, another transport is used; otherwise exit status 5 and no leftovers."""
    engine, tag = lab.engine(case.engine), unique()
    node = lab.cluster("lab-d21").nodes[0]
    image = images.build(engine, tag, b"x" * (8 * MIB))
    setup = Setup(node, (engine,), tmp_path / "temp")
    setup.temp.mkdir()
    before = setup.state()
    fault = case.fault()
    name = f"docker.io/library/{tag}"
    with relay(engine, tmp_path, fault) as proxy:
        args = (tag, "-c", "lab-d21", "--transport", case.transport, "--from", proxy.url)
        try:
            with _when_reached(fault, lambda: _end(engine, back=case.back)):
                status, document = _load(setup.environ(), *args)
        finally:
            engine.daemon.start()
        assert fault.reached.is_set(), proxy.requests
        assert status == case.status, document
        if status:
            assert proxy.url in document["error"]["message"]
            assert document["error"]["hint"]
            assert settled(setup, before, but="tags").records == before.records
            status, document = _load(setup.environ(), *args)
            assert status == 0, document
    after = attrs.evolve(before, records=before.records | {name})
    assert settled(setup, after) == after
    assert cri_id(node, name) == image
    forget(node, name)


@pytest.mark.long
@pytest.mark.parametrize("host", ["docker28-graphdriver", "podman"])
def test_a_load_fails_cleanly_if_the_nodes_engine_restarts(
    lab: Lab, images: Images, tmp_path: Path, host: str
) -> None:
    """Docker stops its nodes, Podman does not. Exit status 1, and no name is left.

    A killed containerd keeps a partial blob, and the lease of the import, for a day.
    """
    engine, tag = lab.engine(host), unique()
    cluster = lab.make_cluster(name="lab-again", engine=host)
    node = cluster.nodes[0]
    image = images.build(lab.docker, tag, b"x" * (8 * MIB))
    setup = Setup(node, (lab.docker,), tmp_path / "temp")
    setup.temp.mkdir()
    args = (tag, "-c", "lab-again", "--from", lab.docker.url, "--transport", "import")
    variables = ("DOCKER_HOST", "CONTAINER_HOST")
    try:
        before = setup.state()
        fault = Fault(EXEC, "hold", 2 * MIB, 1)
        with (
            relay(engine, tmp_path, fault) as proxy,
            _when_reached(fault, lambda: _end(engine, back=True)),
        ):
            environ = setup.environ(**dict.fromkeys(variables, proxy.url))
            status, document = _load(environ, *args)
        assert fault.reached.is_set(), proxy.requests
        [result] = document["images"][0]["nodes"]
        assert (status, result["ok"]) == (1, False), document
        assert node.name in result["error"]["message"]
        engine.cli("start", node.name)
        node.wait()
        after = settled(setup, before, but="ingests")
        assert attrs.evolve(after, ingests=before.ingests, leases=before.leases) == before
        environ = setup.environ(**dict.fromkeys(variables, engine.url))
        assert _load(environ, *args)[0] == 0
        assert cri_id(node, f"docker.io/library/{tag}") == image
    finally:
        cluster.remove()


PAUSES = {
    f"{engine}, {how}": (engine, how == "for a moment")
    for engine in ("docker", "podman")
    for how in ("for a moment", "for good")
}


@pytest.mark.parametrize("case", cases(PAUSES, ()))
def test_a_load_handles_a_node_paused_during_the_import(
    lab: Lab,
    images: Images,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    case: tuple[str, bool],
) -> None:
    """A short pause delays the load; after a long one the node fails, the other is verified."""
    engine, tag = lab.engine(case[0]), unique()
    name, image_id = f"docker.io/library/{tag}", images.build(engine, tag, b"x" * (24 * MIB))
    cluster = lab.make_cluster(name="lab-paused", engine=case[0], roles=("control-plane", "worker"))
    good, bad = cluster.nodes
    setup = Setup(bad, (engine,), tmp_path / "temp")
    setup.temp.mkdir()
    for constant in ("STALL_SECONDS", "UNPACK_SECONDS"):
        monkeypatch.setattr(attached, constant, 30 if case[1] else 1)
    try:
        before = setup.state()
        fault = Fault(EXEC, "hold", 2 * MIB, 2)
        with relay(engine, tmp_path, fault) as proxy:
            for variable in ("DOCKER_HOST", "CONTAINER_HOST"):
                monkeypatch.setenv(variable, proxy.url)
            with _when_reached(fault, lambda: _pause(engine, bad.name, for_good=not case[1])):
                results = {node.node: node for node in _results(tag)}
        assert results[good.name].ok
        assert cri_id(good, name) == image_id
        if case[1]:
            assert results[bad.name].ok
            assert cri_id(bad, name) == image_id
        else:
            error = results[bad.name].error
            assert isinstance(error, NodeStalled)
            assert bad.name in error.message
            engine.cli("unpause", bad.name)
            assert settled(setup, before) == before
    finally:
        cluster.remove()


def _pause(engine: Engine, node: str, *, for_good: bool) -> None:
    engine.cli("pause", node)
    if not for_good:
        threading.Timer(3, lambda: engine.cli("unpause", node)).start()


def _results(tag: str) -> tuple[imgload.NodeResult, ...]:
    try:
        return imgload.load(tag, cluster="lab-paused", transport="import").images[0].nodes
    except imgload.LoadFailed as error:
        return error.report.images[0].nodes
