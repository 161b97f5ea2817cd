"""200 loads, 30 nodes, 2,000 images, 10 GB. All are ``long``, because they take minutes.

Each test prints a row for the table in docs/reliability-scale.md, and checks for leftovers.
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
from tests.engine.aftermath import Setup, settled
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
from tests.lab.suites import NEWEST

pytestmark = pytest.mark.long
MEMORY = 80 << 10
"""Maximum of imgload's resident memory in KiB, for any load."""
VARIABLES = {"docker": "DOCKER_HOST", "podman": "CONTAINER_HOST"}
PAIRS = (("docker", "lab-d21"), ("podman", "lab-p21"))
_FRUGAL = CONFIGS[NEWEST].replace("tolerate_", "enable_cdi = false\n  tolerate_", 1)
"""Saves one inotify instance per node; some machines have only 128."""
Print = Callable[[Run, str], None]


@pytest.fixture
def print_row(request: pytest.FixtureRequest, capsys: pytest.CaptureFixture[str]) -> Print:
    """Return a function that checks a run and its memory, and prints its row."""

    def check_and_print(done: Run, title: str) -> None:
        assert done.status == 0, done.stderr
        assert done.peak < MEMORY
        with capsys.disabled():
            print(f"\n{done.row(title, request.node.callspec.params['source'])}")  # noqa: T201

    return check_and_print


@pytest.fixture
def clean(lab: Lab, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Assert that nothing is left on the first nodes, in the engines and the temporary folder."""
    temp = tmp_path / "temporary"
    temp.mkdir()
    monkeypatch.setenv(TEMPORARY, str(temp))
    engines = (lab.docker, lab.podman)
    setups = [Setup(lab.cluster(name).nodes[0], engines, temp) for _, name in PAIRS]
    before = [setup.state() for setup in setups]
    yield
    for setup, then in zip(setups, before, strict=True):
        assert settled(setup, then) == then


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
    """Memory, descriptors, disk and the node's records do not grow; each load is verified."""
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
    lab: Lab, images: Images, many: Cluster, source: str, print_row: Print
) -> None:
    """All are verified; the second rebuild sends only its own layer."""
    tag, base, engine = unique(), unique("base"), lab.engine(source)
    images.build(engine, base, os.urandom(20 * MIB))
    for title in ("cold", "the first rebuild", "the second"):
        image = images.build(engine, tag, base=base)
        done = run("load", tag, "-c", "lab-30", "--from", engine.url, "--output", "json")
        print_row(done, f"30 nodes, {title}")
        assert {cri_id(node, f"docker.io/library/{tag}") for node in many.nodes} == {image}
    assert {node["action"] for node in done.nodes()} == {"delta"}
    assert max(node["bytes_sent"] for node in done.nodes()) < MIB
    assert len(json.loads(run("images", "-c", "lab-30", "--output", "json").stdout)["nodes"]) == 30


@pytest.mark.parametrize(("source", "cluster"), [("docker", "lab-d3"), ("podman", "lab-p3")])
def test_a_stalled_node_does_not_block_the_others(
    lab: Lab, images: Images, source: str, cluster: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The slowest node sets the pace only for a limited time."""
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
    lab: Lab, tmp_path: Path, source: str, cluster: str, print_row: Print
) -> None:
    """In the engine and on the node; a load sends no more requests and bytes than usual."""
    engine, node, tag = lab.engine(source), lab.cluster(cluster).nodes[0], unique()
    options = ("-c", cluster, "--output", "json")
    names = [f"docker.io/many/app:{number}" for number in range(2000)]
    before = _everything(node)

    def load(title: str) -> None:
        with relay(engine, tmp_path) as proxy, pytest.MonkeyPatch.context() as patch:
            patch.setenv(VARIABLES[source], proxy.url)
            print_row(run("load", tag, "--from", proxy.url, *options), f"2,000 images: {title}")
        (tmp_path / f"{engine.name}.sock").unlink()
        assert proxy.execs <= 5
        assert 0 < len(proxy.requests) < 50
        assert proxy.sent < MIB + 100_000

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
        print_row(run("images", *options), "2,000 images: images")
        print_row(run("prune", "--dry-run", *options), "2,000 images: prune --dry-run")
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
    """Return the names of all records on a node, including CRI's own by ID."""
    return set(node.ctr("images", "ls", "-q").split())


def _forget_but(node: Node, before: set[str]) -> None:
    """Remove the added records, because other tests use the node, too."""
    added = _everything(node) - before
    if added:
        node.ctr("images", "rm", "--sync", *added)


@pytest.mark.parametrize("source", ["archive"])
@pytest.mark.usefixtures("clean")
def test_a_thousand_images_are_loaded_with_one_command(
    lab: Lab, tmp_path: Path, source: str, print_row: Print
) -> None:
    """More than fit into one command line; each is verified."""
    node, file = lab.cluster("lab-d21").nodes[0], tmp_path / source
    save_many(file, range(1000))
    before = _everything(node)
    try:
        done = run("load", "--from", file, "-c", "lab-d21", "--output", "json")
        print_row(done, "1,000 images in one archive")
        assert len(done.nodes()) == 1000
    finally:
        _forget_but(node, before)


@pytest.mark.parametrize(("source", "cluster"), [*PAIRS, ("docker28", "lab-e21")])
@pytest.mark.usefixtures("clean")
def test_ten_gigabytes_take_little_memory_and_no_disk(
    lab: Lab, source: str, cluster: str, print_row: Print
) -> None:
    """Import ten layers of 1 GiB in constant memory, without temporary files (minikube #17983)."""
    require_disk(lab, 45 * GIB)
    engine, node, tag = lab.engine(source), lab.cluster(cluster).nodes[0], unique()
    try:
        build_layers(engine, tag, 10, GIB)
        options = ("--from", engine.url, "--transport", "import", "--output", "json")
        load = partial(run, "load", tag, "-c", cluster, *options)
        done = load()
        print_row(done, "10 layers of 1 GiB")
        assert done.written < MIB
        print_row(load(), "10 layers of 1 GiB: present")
    finally:
        forget(node, f"docker.io/library/{tag}")
        discard(engine, tag)


@pytest.mark.parametrize(("source", "cluster"), PAIRS)
@pytest.mark.usefixtures("clean")
def test_a_layer_above_8_gib_is_loaded(
    lab: Lab, tmp_path: Path, source: str, cluster: str, print_row: Print
) -> None:
    """9.9 GiB in one member of the saved and of the sent archive; also from a file."""
    require_disk(lab, 45 * GIB)
    engine, node, tag = lab.engine(source), lab.cluster(cluster).nodes[0], unique()
    name = f"docker.io/library/{tag}"
    try:
        image = import_layer(engine, tag, 99 * GIB // 10)
        options = ("-c", cluster, "--output", "json")
        print_row(run("load", tag, "--from", engine.url, *options), "1 layer of 9.9 GiB")
        assert cri_id(node, name) == image
        forget(node, name)
        engine.cli("save", "-o", tmp_path / "image.tar", tag)
        discard(engine, tag)
        again = run("load", tag, "--from", tmp_path / "image.tar", *options)
        print_row(again, "1 layer of 9.9 GiB, archive")
    finally:
        forget(node, name)
        discard(engine, tag)
