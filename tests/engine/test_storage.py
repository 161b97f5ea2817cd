"""Full and read-only disks of nodes and host are reported, and nothing is left."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import attrs
import pytest

from tests.engine.aftermath import Setup, settled
from tests.engine.conftest import Images, cases, cri_id, forget, unique
from tests.engine.relay import Fault, relay
from tests.lab import Lab, Node

MIB = 1 << 20
CONTENT = "/var/lib/containerd"


def _load(environ: dict[str, str], *args: str) -> tuple[int, dict[str, Any], str]:
    """Load with the command; return the exit status, the document and stderr."""
    command = [sys.executable, "-m", "imgload", "load", *args]
    done = subprocess.run(command, env=environ, capture_output=True, text=True, check=False)
    assert "Traceback" not in done.stderr
    return done.returncode, json.loads(done.stdout) if "json" in args else {}, done.stderr


@attrs.frozen
class DiskFault:
    """A fault of a node's disk, the expected error, and the repair."""

    engine: str
    kind: str
    message: str
    hint: str
    strike: Callable[[Node], object]
    repair: Callable[[Node], object]
    meanwhile: bool = False


def _remount(option: str) -> Callable[[Node], object]:
    return lambda node: node.exec("mount", "-o", f"remount,{option}", "/var")


def _make_read_only(node: Node) -> None:
    """Make the disk read-only, as after a disk error, except for containerd's open files.

    The content folder must exist before, because containerd caches a failure to create it.
    """
    node.ctr("content", "ingest", "x", stdin=b"x")
    node.exec("mount", "-o", "bind", CONTENT, CONTENT)
    node.exec("mount", "-o", "remount,ro,bind", CONTENT)


def _fill(node: Node) -> None:
    node.exec("sh", "-c", "cat /dev/zero >/var/junk 2>/dev/null || :")


def _take_inodes(node: Node) -> None:
    used = node.exec("sh", "-c", "df -i /var | tail -n 1").split()[-4]
    node.exec("mount", "-o", f"remount,nr_inodes={int(used) + 150}", "/var")


def _disk_faults(engine: str) -> dict[str, DiskFault]:
    return {
        f"{engine}, no inodes": DiskFault(
            engine, "node-full", "no space", "df -i", _take_inodes, _remount("nr_inodes=100000")
        ),
        f"{engine}, read-only": DiskFault(
            engine,
            "import-failed",
            "read-only file system",
            "mount",
            _make_read_only,
            lambda node: node.exec("mount", "-o", "remount,rw,bind", CONTENT),
        ),
        f"{engine}, full meanwhile": DiskFault(
            engine,
            "node-full",
            "no space",
            "df",
            _fill,
            lambda node: node.exec("rm", "/var/junk"),
            meanwhile=True,
        ),
    }


DISK_FAULTS = {**_disk_faults("docker"), **_disk_faults("podman")}


@pytest.mark.parametrize("case", cases(DISK_FAULTS, ("docker, no inodes",)))
def test_a_disk_fault_on_a_node_fails_the_load_cleanly(
    lab: Lab, tmp_path: Path, case: DiskFault
) -> None:
    """Exit status 1 with reason and hint; nothing is left; after the repair, a load succeeds."""
    engine, tag, name = lab.engine(case.engine), unique(), f"lab-ill-{case.engine}"
    cluster = lab.make_cluster(name=name, engine=case.engine, var_size="300m")
    files = {f"many/{number}": os.urandom(8) for number in range(400)}
    image = engine.build(tag, layers=[files, {"large": os.urandom(8 * MIB)}])
    node = cluster.nodes[0]
    setup = Setup(node, (engine,), tmp_path / "temp")
    setup.temp.mkdir()
    args = (tag, "-c", name, "--from", case.engine, "-o", "json")
    try:
        before = setup.state()
        fault = Fault("POST .*/exec/.*/start", "hold", 4 * MIB, 1)
        with relay(engine, tmp_path, fault if case.meanwhile else None) as proxy:
            environ = setup.environ(**dict.fromkeys(("DOCKER_HOST", "CONTAINER_HOST"), proxy.url))
            if case.meanwhile:
                threading.Thread(target=_when_reached, args=(fault, case, node)).start()
            else:
                case.strike(node)
            status, document, _ = _load(environ, *args)
        [result] = document["images"][0]["nodes"]
        assert (status, result["ok"], result["error"]["kind"]) == (1, False, case.kind)
        for part in (case.message, node.name):
            assert part in result["error"]["message"]
        assert case.hint in result["error"]["hint"]
        assert settled(setup, before) == before
        case.repair(node)
        status, document, _ = _load(setup.environ(), *args)
        assert status == 0, json.dumps(document)[:3000]
        assert cri_id(node, f"docker.io/library/{tag}") == image
    finally:
        cluster.remove()
        engine.remove_image(tag)


def _when_reached(fault: Fault, case: DiskFault, node: Node) -> None:
    try:
        if fault.reached.wait(20):
            case.strike(node)
    finally:
        fault.release.set()


@contextmanager
def _small(folder: Path, options: str) -> Iterator[Path]:
    """Mount a small file system on a folder."""
    folder.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", options, "imgload-test", folder], check=True)
    try:
        yield folder
    finally:
        subprocess.run(["umount", "-l", folder], check=True)


HOSTS = {"full": "size=64k", "read-only": "size=64k,ro"}


@pytest.mark.parametrize("options", cases(HOSTS, ("full",)))
def test_a_load_works_with_an_unwritable_cache_folder(
    lab: Lab, images: Images, tmp_path: Path, options: str
) -> None:
    """The image is verified, without a message; no partial file is left in the folder."""
    engine, tag = lab.docker28, unique()
    node = lab.cluster("lab-e21").nodes[0]
    setup = Setup(node, (engine,), tmp_path / "temp")
    setup.temp.mkdir()
    with _small(tmp_path / "small", options) as folder:
        if "ro" not in options:
            (folder / "imgload").mkdir()
            subprocess.run(["dd", "if=/dev/zero", f"of={folder}/junk"], check=False)
        before = setup.state()
        existing = sorted(folder.rglob("*"))
        environ = setup.environ(
            XDG_CACHE_HOME=str(folder), DOCKER_HOST=engine.url, CONTAINER_HOST=engine.url
        )
        for _ in range(2):
            images.build(engine, tag)
            status, _, err = _load(environ, tag, "-c", "lab-e21")
            assert (status, "No space" in err, "Read-only" in err) == (0, False, False), err
        assert [p for p in sorted(folder.rglob("*")) if p not in existing and p.is_file()] == []
        name = f"docker.io/library/{tag}"
        expected = attrs.evolve(before, records=before.records | {name})
        assert settled(setup, expected) == expected
    forget(node, name)


@pytest.mark.parametrize(
    ("source", "size"),
    [("docker", "1m"), ("docker", "4m"), pytest.param("podman", "1m", marks=pytest.mark.long)],
)
def test_a_full_temporary_folder_causes_a_full_load(
    lab: Lab, images: Images, tmp_path: Path, source: str, size: str
) -> None:
    """A blob cannot be stored until the end of the push: a note, and the image is sent whole."""
    engine, tag = lab.engine(source), unique()
    cluster = {"docker": "lab-d21", "podman": "lab-p21"}[source]
    node = lab.cluster(cluster).nodes[0]
    image = images.build(engine, tag, os.urandom(4 * MIB))
    with _small(tmp_path / "temp", f"size={size}") as folder:
        setup = Setup(node, (engine,), folder)
        before = setup.state()
        args = (tag, "-c", cluster, "--from", source, "--transport", "delta")
        status, _, stderr = _load(setup.environ(), *args)
        assert status == 0, stderr
        assert "sending the images whole" in stderr
        assert f"{folder}: No space left on device" in stderr
        name = f"docker.io/library/{tag}"
        expected = attrs.evolve(before, records=before.records | {name})
        assert settled(setup, expected) == expected
    assert cri_id(node, name) == image
    forget(node, name)
