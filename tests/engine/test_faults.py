"""Broken connections, stalled engines and failing nodes are reported, and nothing is left."""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
import threading
from pathlib import Path
from typing import Any

import attrs
import pytest

import imgload
from imgload.engines import exec_stream as attached
from imgload.engines import http as wire
from tests.engine.aftermath import Setup, settled, until
from tests.engine.conftest import Images, cases, cri_id, forget, unique
from tests.engine.relay import Fault, relay
from tests.lab import Lab

MIB = 1 << 20
CLUSTERS = {"docker": "lab-d21", "docker28": "lab-e21", "podman": "lab-p21"}
PULLING = 300
"""Bytes of an exec's connection after its request: more when the node has pulled."""
VARIABLES = ("DOCKER_HOST", "CONTAINER_HOST")


def _load(
    setup: Setup, url: str, tag: str, cluster: str, *options: str
) -> tuple[int, dict[str, Any]]:
    """Load with the command; return the exit status and the document."""
    command = [sys.executable, "-m", "imgload", "load", tag, "-c", cluster, "-o", "json", *options]
    environ = setup.environ(**dict.fromkeys(VARIABLES, url))
    done = subprocess.run(command, env=environ, capture_output=True, text=True, check=False)
    assert "Traceback" not in done.stderr
    return done.returncode, json.loads(done.stdout)


def _error(document: dict[str, Any]) -> dict[str, str]:
    """Return the only error of a document, the run's or a node's."""
    errors = [document.get("error")]
    errors += [node["error"] for image in document["images"] for node in image["nodes"]]
    [error] = filter(None, errors)
    return dict(error)


@attrs.frozen
class Cut:
    """A connection that is cut, and the expected end of the run."""

    source: str
    pattern: str
    status: int
    message: str = ""
    after: int = 0
    skip: int = 0
    transport: str = "auto"
    used: str = "pull"


CUTS = {
    "inspecting": Cut("docker", "GET .*/images/.*/json", 5, "inspecting the image"),
    "listing": Cut("docker", "GET .*/containers/json", 5, "listing containers"),
    "survey": Cut("docker", "POST .*/exec/.*/start", 0),
    "save": Cut("docker", "GET .*/images/get", 0, after=MIB),
    "import": Cut("docker", "POST .*/exec/.*/start", 1, "connection", MIB, 1, "import"),
    "pull": Cut("docker", "POST .*/exec/.*/start", 0, after=PULLING, skip=1, used="import"),
    "podman's save": Cut("podman", "GET .*/images/export", 0, after=MIB),
    "podman's import": Cut("podman", "POST .*/exec/.*/start", 1, "connection", MIB, 1, "import"),
    "podman's pull": Cut("podman", "POST .*/exec/.*/start", 0, "", PULLING, 1, used="import"),
    "push": Cut("docker28", "POST .*/push", 0, skip=1),
    "identification": Cut("docker28", "POST .*/push", 0),
}


@pytest.mark.parametrize(
    "case", cases(CUTS, CUTS.keys() - {"podman's import", "podman's save", "podman's pull"})
)
def test_a_cut_connection_fails_cleanly_or_falls_back(
    lab: Lab, images: Images, tmp_path: Path, case: Cut
) -> None:
    """A stream that ends early is not accepted; another transport is used if there is one."""
    engine, tag = lab.engine(case.source), unique()
    node = lab.cluster(CLUSTERS[case.source]).nodes[0]
    images.build(engine, tag, b"x" * (4 * MIB))
    setup = Setup(node, (engine,), tmp_path / "temp")
    setup.temp.mkdir()
    before = setup.state()
    fault = Fault(case.pattern, "cut", case.after, case.skip)
    with relay(engine, tmp_path, fault) as proxy:
        options = ("--transport", case.transport)
        status, document = _load(setup, proxy.url, tag, CLUSTERS[case.source], *options)
    assert fault.reached.is_set(), proxy.requests
    assert status == case.status, document
    if status:
        assert case.message in _error(document)["message"]
        assert settled(setup, before) == before
    else:
        name = f"docker.io/library/{tag}"
        after = attrs.evolve(before, records=before.records | {name})
        assert document["images"][0]["nodes"][0]["transport"] == case.used
        assert cri_id(node, name)
        assert settled(setup, after) == after
        forget(node, name)


STALLS = {
    "inspecting": ("GET .*/images/.*/json", 0, 0, "no answer for too long"),
    "survey": ("POST .*/exec/.*/start", 0, 0, "no answer for too long"),
    "survey's output": ("POST .*/exec/.*/start", 2000, 0, "printed nothing for 1 seconds"),
    "import": ("POST .*/exec/.*/start", 3 * MIB, 1, "for 1 seconds"),
}


@pytest.mark.parametrize("case", cases(STALLS, ("survey", "import")))
def test_a_stalled_engine_times_out(
    lab: Lab,
    images: Images,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    case: tuple[str, int, int, str],
) -> None:
    """After too long without data the run ends with an error that names the operation."""
    pattern, after, skip, message = case
    tag = unique()
    images.build(lab.docker, tag, b"x" * (8 * MIB))
    node = lab.cluster("lab-d21").nodes[0]
    setup = Setup(node, (lab.docker,), tmp_path / "temp")
    setup.temp.mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(setup.temp))
    before = setup.state()
    lose_patience(monkeypatch, after=1)
    fault = Fault(pattern, "hold", after, skip)
    with relay(lab.docker, tmp_path, fault) as proxy:
        for variable in VARIABLES:
            monkeypatch.setenv(variable, proxy.url)
        with pytest.raises(imgload.ImgloadError, match=message):
            imgload.load(tag, cluster="lab-d21", transport="import")
        assert fault.reached.is_set()
    assert settled(setup, before) == before


def test_a_stalled_pull_is_replaced_by_an_import(
    lab: Lab, images: Images, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The engine has stopped forwarding the output of the pull."""
    node, tag = lab.cluster("lab-d21").nodes[0], unique()
    images.build(lab.docker, tag)
    setup = Setup(node, (lab.docker,), tmp_path / "temp")
    setup.temp.mkdir()
    before = setup.state()
    lose_patience(monkeypatch, after=3)
    fault = Fault("POST .*/exec/.*/start", "hold", PULLING, 1)
    with relay(lab.docker, tmp_path, fault) as proxy:
        for variable in VARIABLES:
            monkeypatch.setenv(variable, proxy.url)
        report = imgload.load(tag, cluster="lab-d21")
        assert fault.reached.is_set()
    assert report.images[0].nodes[0].transport == "import"
    name = f"docker.io/library/{tag}"
    after = attrs.evolve(before, records=before.records | {name})
    assert settled(setup, after) == after
    forget(node, name)


def lose_patience(monkeypatch: pytest.MonkeyPatch, after: int) -> None:
    """Shorten the times without data after which an engine counts as stalled, in seconds."""
    for module, name in ((wire, "CONTROL_SECONDS"), (attached, "SILENT_SECONDS")):
        monkeypatch.setattr(module, name, float(after))
    for name in ("STALL_SECONDS", "UNPACK_SECONDS"):
        monkeypatch.setattr(attached, name, after)
    monkeypatch.setattr("imgload.engines.docker.STREAM_SECONDS", float(after))


BREAKAGES = {
    "stopped": ["stop", "-t", "0", "{node}"],
    "removed": ["rm", "-f", "{node}"],
    "containerd killed": ["exec", "{node}", "sh", "-c", "kill -9 $(pidof containerd)"],
}
VICTIMS = {
    f"{engine}, {fault}, {transport}": (engine, fault, transport)
    for engine in ("docker", "podman")
    for fault in BREAKAGES
    for transport in ("pull", "import")
}


@pytest.mark.parametrize("case", cases(VICTIMS, ("docker, stopped, pull",)))
def test_a_failing_node_does_not_stop_the_others(
    lab: Lab, images: Images, tmp_path: Path, case: tuple[str, str, str]
) -> None:
    """During the transfer: the other node is verified, exit status 1, the report is exact.

    The node restarts containerd, and the next load succeeds. A pull may survive that restart.
    """
    engine, breakage, transport = lab.engine(case[0]), *case[1:]
    victim = lab.make_cluster(name="victim", engine=case[0], roles=("control-plane", "worker"))
    good, bad = victim.nodes
    tag = unique()
    images.build(engine, tag, b"x" * (8 * MIB))
    setup = Setup(good, (engine,), tmp_path / "temp")
    setup.temp.mkdir()
    fault = Fault("GET .*/images/(get|export)", "hold", 2 * MIB)
    command = [bad.name if word == "{node}" else word for word in BREAKAGES[breakage]]

    def strike() -> None:
        try:
            assert fault.reached.wait(20)
            until(lambda: f"images {transport}" in bad.exec("ps", "-o", "args"))
            engine.cli(*command)
        finally:
            fault.release.set()

    threading.Thread(target=strike, daemon=True).start()
    try:
        with relay(engine, tmp_path, fault) as proxy:
            options = ("--transport", transport)
            status, document = _load(setup, proxy.url, tag, "victim", *options)
        results = {node["node"]: node for node in document["images"][0]["nodes"]}
        assert results[good.name]["transport"] == transport
        assert results[good.name]["ok"]
        assert results[bad.name]["ok"] == (status == 0)
        if status == 0:  # the node's `ctr images pull` has connected to the new containerd
            assert (breakage, transport) == ("containerd killed", "pull")
            assert cri_id(bad, tag) == cri_id(good, tag)
        else:
            assert status == 1
            assert bad.name in results[bad.name]["error"]["message"]
        if breakage == "containerd killed":
            bad.wait()
            assert _load(setup, engine.url, tag, "victim")[0] == 0
    finally:
        victim.remove()
