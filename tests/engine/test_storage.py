"""Disks that are full or read-only, of the node and of the host: told, and nothing is left."""

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

from tests.engine.aftermath import Scene, settled
from tests.engine.conftest import Images, cases, cri_id, forget, unique
from tests.engine.relay import Fault, relay
from tests.lab import Lab, Node

MIB = 1 << 20
CONTENT = "/var/lib/containerd"


def _load(environ: dict[str, str], *args: str) -> tuple[int, dict[str, Any], str]:
    """Load as a user would; return exit status, document, and what was said."""
    command = [sys.executable, "-m", "imgload", "load", *args]
    done = subprocess.run(command, env=environ, capture_output=True, text=True, check=False)
    assert "Traceback" not in done.stderr
    return done.returncode, json.loads(done.stdout) if "json" in args else {}, done.stderr


@attrs.frozen
class Ailment:
    """What is wrong with a node's disk, what is said of it, and how it is mended."""

    engine: str
    kind: str
    said: str
    hint: str
    strike: Callable[[Node], object]
    mend: Callable[[Node], object]
    meanwhile: bool = False


def _remount(option: str) -> Callable[[Node], object]:
    return lambda node: node.exec("mount", "-o", f"remount,{option}", "/var")


def _make_read_only(node: Node) -> None:
    """As after an error of the disk; containerd's open files cannot be made so.

    It remembers that it could not make its content folder, so that there has to be one.
    """
    node.ctr("content", "ingest", "x", stdin=b"x")
    node.exec("mount", "-o", "bind", CONTENT, CONTENT)
    node.exec("mount", "-o", "remount,ro,bind", CONTENT)


def _fill(node: Node) -> None:
    node.exec("sh", "-c", "cat /dev/zero >/var/junk 2>/dev/null || :")


def _take_inodes(node: Node) -> None:
    used = node.exec("sh", "-c", "df -i /var | tail -n 1").split()[-4]
    node.exec("mount", "-o", f"remount,nr_inodes={int(used) + 150}", "/var")


def _ailments(engine: str) -> dict[str, Ailment]:
    return {
        f"{engine}, no inodes": Ailment(
            engine, "node-full", "no space", "df -i", _take_inodes, _remount("nr_inodes=100000")
        ),
        f"{engine}, read-only": Ailment(
            engine,
            "import-failed",
            "read-only file system",
            "mount",
            _make_read_only,
            lambda node: node.exec("mount", "-o", "remount,rw,bind", CONTENT),
        ),
        f"{engine}, full meanwhile": Ailment(
            engine,
            "node-full",
            "no space",
            "df",
            _fill,
            lambda node: node.exec("rm", "/var/junk"),
            meanwhile=True,
        ),
    }


AILMENTS = {**_ailments("docker"), **_ailments("podman")}


@pytest.mark.parametrize("case", cases(AILMENTS, ("docker, no inodes",)))
def test_a_disk_fault_on_a_node_fails_the_load_cleanly(
    lab: Lab, tmp_path: Path, case: Ailment
) -> None:
    """Exit status 1, the reason, what to look at; nothing is left; mended, it is loaded."""
    engine, tag, name = lab.engine(case.engine), unique(), f"lab-ill-{case.engine}"
    cluster = lab.make_cluster(name=name, engine=case.engine, var_size="300m")
    files = {f"many/{number}": os.urandom(8) for number in range(400)}
    image = engine.build(tag, layers=[files, {"large": os.urandom(8 * MIB)}])
    node = cluster.nodes[0]
    scene = Scene(node, (engine,), tmp_path / "temp")
    scene.temp.mkdir()
    args = (tag, "-c", name, "--from", case.engine, "-o", "json")
    try:
        before = scene.look()
        fault = Fault("POST .*/exec/.*/start", "hold", 4 * MIB, 1)
        with relay(engine, tmp_path, fault if case.meanwhile else None) as between:
            environ = scene.environ(**dict.fromkeys(("DOCKER_HOST", "CONTAINER_HOST"), between.url))
            if case.meanwhile:
                threading.Thread(target=_when_reached, args=(fault, case, node)).start()
            else:
                case.strike(node)
            status, document, _ = _load(environ, *args)
        [result] = document["images"][0]["nodes"]
        assert (status, result["ok"], result["error"]["kind"]) == (1, False, case.kind)
        for part in (case.said, node.name):
            assert part in result["error"]["message"]
        assert case.hint in result["error"]["hint"]
        assert settled(scene, before) == before
        case.mend(node)
        status, document, _ = _load(scene.environ(), *args)
        assert status == 0, json.dumps(document)[:3000]
        assert cri_id(node, f"docker.io/library/{tag}") == image
    finally:
        cluster.remove()
        engine.remove_image(tag)


def _when_reached(fault: Fault, case: Ailment, node: Node) -> None:
    try:
        if fault.reached.wait(20):
            case.strike(node)
    finally:
        fault.release.set()


@contextmanager
def _small(folder: Path, options: str) -> Iterator[Path]:
    """Have a small file system in a folder."""
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
    """The image is loaded and proven, nothing is said, and no half of a file stays there."""
    engine, tag = lab.docker28, unique()
    node = lab.cluster("lab-e21").nodes[0]
    scene = Scene(node, (engine,), tmp_path / "temp")
    scene.temp.mkdir()
    with _small(tmp_path / "small", options) as folder:
        if "ro" not in options:
            (folder / "imgload").mkdir()
            subprocess.run(["dd", "if=/dev/zero", f"of={folder}/junk"], check=False)
        before = scene.look()
        there = sorted(folder.rglob("*"))
        environ = scene.environ(
            XDG_CACHE_HOME=str(folder), DOCKER_HOST=engine.url, CONTAINER_HOST=engine.url
        )
        for _ in range(2):
            images.build(engine, tag)
            status, _, said = _load(environ, tag, "-c", "lab-e21")
            assert (status, "No space" in said, "Read-only" in said) == (0, False, False), said
        assert [p for p in sorted(folder.rglob("*")) if p not in there and p.is_file()] == []
        name = f"docker.io/library/{tag}"
        expected = attrs.evolve(before, records=before.records | {name})
        assert settled(scene, expected) == expected
    forget(node, name)


@pytest.mark.parametrize(
    ("source", "size"),
    [("docker", "1m"), ("docker", "4m"), pytest.param("podman", "1m", marks=pytest.mark.long)],
)
def test_a_full_temporary_folder_causes_a_full_load(
    lab: Lab, images: Images, tmp_path: Path, source: str, size: str
) -> None:
    """A blob that has to wait for the push's end cannot: said, and the image is sent whole."""
    engine, tag = lab.engine(source), unique()
    cluster = {"docker": "lab-d21", "podman": "lab-p21"}[source]
    node = lab.cluster(cluster).nodes[0]
    image = images.build(engine, tag, os.urandom(4 * MIB))
    with _small(tmp_path / "temp", f"size={size}") as folder:
        scene = Scene(node, (engine,), folder)
        before = scene.look()
        args = (tag, "-c", cluster, "--from", source, "--transport", "delta")
        status, _, said = _load(scene.environ(), *args)
        assert status == 0, said
        assert "sending the images whole" in said
        assert f"{folder}: No space left on device" in said
        name = f"docker.io/library/{tag}"
        expected = attrs.evolve(before, records=before.records | {name})
        assert settled(scene, expected) == expected
    assert cri_id(node, name) == image
    forget(node, name)
