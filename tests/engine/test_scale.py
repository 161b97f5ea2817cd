"""Much of everything: 200 loads, 30 nodes, 2,000 images, 10 GB. Minutes each, hence ``long``.

Each test prints a row for the table in docs/reliability-scale.md, and what it leaves is checked.
"""

from __future__ import annotations

import gc
import json
import os
import resource
import threading
from collections.abc import Callable, Iterator
from contextlib import suppress
from functools import partial
from pathlib import Path

import pytest

import imgload
from imgload.engines import exec_stream as attached
from imgload.loader.events import BytesSent, Event
from tests.engine.aftermath import Scene, settled
from tests.engine.conftest import Images, cri_id, forget, records, unique
from tests.engine.relay import relay
from tests.engine.scale import (
    GIB,
    MIB,
    TEMPORARY,
    Run,
    build_layers,
    discard,
    import_layer,
    require_disk,
    run,
    save_many,
)
from tests.lab import Cluster, CommandError, Lab, Node
from tests.lab.engine import Engine
from tests.lab.nodeimage import CONFIGS

pytestmark = pytest.mark.long
MEMORY = 80 << 10
"""KiB that imgload may take, whatever it loads."""
VARIABLES = {"docker": "DOCKER_HOST", "podman": "CONTAINER_HOST"}
PAIRS = (("docker", "lab-d21"), ("podman", "lab-p21"))
_FRUGAL = CONFIGS["2.1"].replace("tolerate_", "enable_cdi = false\n  tolerate_", 1)
"""One inotify instance less a node, of which a machine may have as few as 128."""
Print = Callable[[Run, str], None]


@pytest.fixture
def told(request: pytest.FixtureRequest, capsys: pytest.CaptureFixture[str]) -> Print:
    """Prints the row of a run, when all of it is proven and it took little memory."""

    def tell(done: Run, what: str) -> None:
        assert done.status == 0, done.stderr
        assert done.peak < MEMORY
        with capsys.disabled():
            print(f"\n{done.row(what, request.node.callspec.params['source'])}")  # noqa: T201

    return tell


@pytest.fixture
def clean(lab: Lab, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Nothing is left on the first nodes, in the engines, and in the temporary folder."""
    temp = tmp_path / "temporary"
    temp.mkdir()
    monkeypatch.setenv(TEMPORARY, str(temp))
    engines = (lab.docker, lab.podman)
    scenes = [Scene(lab.cluster(name).nodes[0], engines, temp) for _, name in PAIRS]
    before = [scene.look() for scene in scenes]
    yield
    for scene, then in zip(scenes, before, strict=True):
        assert settled(scene, then) == then


def _descriptors() -> int:
    return len([*Path("/proc/self/fd").iterdir()])


def _resident() -> int:
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * resource.getpagesize()


@pytest.mark.parametrize(("source", "cluster"), PAIRS)
@pytest.mark.usefixtures("clean")
def test_two_hundred_loads_leak_nothing(
    lab: Lab, images: Images, tmp_path: Path, source: str, cluster: str
) -> None:
    """Memory, descriptors, disk and the node's records do not grow; each load is proven."""
    engine, node = lab.engine(source), lab.cluster(cluster).nodes[0]
    tag, base = unique(), unique("base")
    images.build(engine, base, b"x" * MIB)
    before = records(node)
    marks: list[tuple[int, int]] = []
    for number in range(200):
        images.build(engine, tag, b"%d" % number, base=base)
        assert imgload.load(tag, cluster=cluster, source=engine.url).ok
        if number in {49, 199}:
            gc.collect()
            marks.append((_resident(), _descriptors()))
    (memory, descriptors), (memory_after, descriptors_after) = marks
    assert memory_after < memory + 8 * MIB
    assert descriptors_after <= descriptors
    assert records(node) - before == {f"docker.io/library/{tag}"}
    assert sum(f.stat().st_size for f in (tmp_path / "cache").rglob("*")) < MIB
    forget(node, f"docker.io/library/{tag}")


@pytest.fixture
def many(lab: Lab, source: str) -> Iterator[Cluster]:
    """A cluster of thirty nodes."""
    roles = ("control-plane", *["worker"] * 29)
    made = lab.make_cluster(name="lab-30", engine=source, roles=roles, config=_FRUGAL)
    yield made
    made.remove()


@pytest.mark.parametrize("source", ["docker", "podman"])
@pytest.mark.usefixtures("clean")
def test_thirty_nodes_are_loaded_in_parallel(
    lab: Lab, images: Images, many: Cluster, source: str, told: Print
) -> None:
    """All at once, all proven; the second build moves its own layer only."""
    tag, base, engine = unique(), unique("base"), lab.engine(source)
    images.build(engine, base, os.urandom(20 * MIB))
    for what in ("cold", "the first rebuild", "the second"):
        image = images.build(engine, tag, base=base)
        done = run("load", tag, "-c", "lab-30", "--from", engine.url, "--output", "json")
        told(done, f"30 nodes, {what}")
        assert {cri_id(node, f"docker.io/library/{tag}") for node in many.nodes} == {image}
    assert {node["action"] for node in done.nodes()} == {"delta"}
    assert max(node["bytes_sent"] for node in done.nodes()) < MIB
    assert len(json.loads(run("images", "-c", "lab-30", "--output", "json").stdout)["nodes"]) == 30


@pytest.mark.parametrize(("source", "cluster"), [("docker", "lab-d3"), ("podman", "lab-p3")])
def test_a_stalled_node_does_not_block_the_others(
    lab: Lab, images: Images, source: str, cluster: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """All are sent to at the pace of the slowest, but not for ever."""
    monkeypatch.setattr(attached, "STALL_SECONDS", 15)
    engine, nodes, tag = lab.engine(source), lab.cluster(cluster).nodes, unique()
    image = images.build(engine, tag, os.urandom(100 * MIB))
    first = threading.Lock()

    def pause(event: Event) -> None:
        if isinstance(event, BytesSent) and first.acquire(blocking=False):
            engine.cli("pause", nodes[1].name)

    try:
        with pytest.raises(imgload.LoadFailed) as failed:
            imgload.load(tag, cluster=cluster, source=engine.url, on_event=pause)
    finally:
        with suppress(CommandError):
            engine.cli("unpause", nodes[1].name)
    [result] = failed.value.report.images
    assert [node.node for node in result.nodes if not node.ok] == [nodes[1].name]
    assert min(node.seconds for node in result.nodes) < 90
    name = f"docker.io/library/{tag}"
    assert {cri_id(node, name) for node in (nodes[0], nodes[2])} == {image}
    for node in (nodes[0], nodes[2]):
        forget(node, name)


@pytest.mark.parametrize(("source", "cluster"), PAIRS)
@pytest.mark.usefixtures("clean")
def test_two_thousand_stored_images_add_no_requests(
    lab: Lab, tmp_path: Path, source: str, cluster: str, told: Print
) -> None:
    """In the engine and on the node: a load asks no more often, and sends no more, than usual."""
    engine, node, tag = lab.engine(source), lab.cluster(cluster).nodes[0], unique()
    asked = ("-c", cluster, "--output", "json")
    names = [f"docker.io/many/app:{number}" for number in range(2000)]
    before = _everything(node)

    def load(what: str) -> None:
        with relay(engine, tmp_path) as between, pytest.MonkeyPatch.context() as patch:
            patch.setenv(VARIABLES[source], between.url)
            told(run("load", tag, "--from", between.url, *asked), f"2,000 images: {what}")
        (tmp_path / f"{engine.name}.sock").unlink()
        assert between.execs <= 5
        assert 0 < len(between.requests) < 50
        assert between.sent < MIB + 100_000

    try:
        for start in range(0, 2000, 500):
            save_many(tmp_path / "many.tar", range(start, start + 500))
            engine.cli("load", "-q", "-i", tmp_path / "many.tar")
            node.ctr("images", "import", "-", stdin=(tmp_path / "many.tar").read_bytes())
        build_layers(engine, tag, 1, MIB)
        load("a new one")
        load("present")
        engine.build(tag, {"more": b"y"}, base=tag)
        load("a rebuild")
        told(run("images", *asked), "2,000 images: images")
        told(run("prune", "--dry-run", *asked), "2,000 images: prune --dry-run")
    finally:
        forget(node, f"docker.io/library/{tag}")
        _remove(engine, node, names)
        _forget_but(node, before)
        discard(engine, tag)


def _remove(engine: Engine, node: Node, names: list[str]) -> None:
    for start in range(0, len(names), 200):
        node.ctr("images", "rm", *names[start : start + 200])
        engine.cli("rmi", *(n.removeprefix("docker.io/") for n in names[start : start + 200]))


def _everything(node: Node) -> set[str]:
    """Return the names of all records on a node, CRI's own by ID among them."""
    return set(node.ctr("images", "ls", "-q").split())


def _forget_but(node: Node, before: set[str]) -> None:
    """Remove what has been added: the node is other tests', too."""
    added = _everything(node) - before
    if added:
        node.ctr("images", "rm", "--sync", *added)


@pytest.mark.parametrize("source", ["archive"])
@pytest.mark.usefixtures("clean")
def test_a_thousand_images_are_loaded_with_one_command(
    lab: Lab, tmp_path: Path, source: str, told: Print
) -> None:
    """More than fits into one command line, and each of them proven."""
    node, file = lab.cluster("lab-d21").nodes[0], tmp_path / source
    save_many(file, range(1000))
    before = _everything(node)
    try:
        done = run("load", "--from", file, "-c", "lab-d21", "--output", "json")
        told(done, "1,000 images in one archive")
        assert len(done.nodes()) == 1000
    finally:
        _forget_but(node, before)


@pytest.mark.parametrize(("source", "cluster"), [*PAIRS, ("docker28", "lab-e21")])
@pytest.mark.usefixtures("clean")
def test_ten_gigabytes_take_little_memory_and_no_disk(
    lab: Lab, source: str, cluster: str, told: Print
) -> None:
    """Ten layers of 1 GiB; memory stays flat, and the host's disk empty (minikube #17983)."""
    require_disk(lab, 45 * GIB)
    engine, node, tag = lab.engine(source), lab.cluster(cluster).nodes[0], unique()
    try:
        build_layers(engine, tag, 10, GIB)
        load = partial(run, "load", tag, "-c", cluster, "--from", engine.url, "--output", "json")
        done = load()
        told(done, "10 layers of 1 GiB")
        assert done.written < MIB
        told(load(), "10 layers of 1 GiB: present")
    finally:
        forget(node, f"docker.io/library/{tag}")
        discard(engine, tag)


@pytest.mark.parametrize(("source", "cluster"), PAIRS)
@pytest.mark.usefixtures("clean")
def test_a_layer_above_8_gib_is_loaded(
    lab: Lab, tmp_path: Path, source: str, cluster: str, told: Print
) -> None:
    """9.9 GiB in one member of what is saved, and of what is sent; from a file as well."""
    require_disk(lab, 45 * GIB)
    engine, node, tag = lab.engine(source), lab.cluster(cluster).nodes[0], unique()
    name = f"docker.io/library/{tag}"
    try:
        image = import_layer(engine, tag, 99 * GIB // 10)
        asked = ("-c", cluster, "--output", "json")
        told(run("load", tag, "--from", engine.url, *asked), "1 layer of 9.9 GiB")
        assert cri_id(node, name) == image
        forget(node, name)
        engine.cli("save", "-o", tmp_path / "image.tar", tag)
        discard(engine, tag)
        again = run("load", tag, "--from", tmp_path / "image.tar", *asked)
        told(again, "1 layer of 9.9 GiB, archive")
    finally:
        forget(node, name)
        discard(engine, tag)
