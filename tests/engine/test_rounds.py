"""Every public entry point with one, two and ten images, and after rebuilds, on every engine.

Engines differ in their image IDs and in how they save several images. Details of each entry point
are tested elsewhere.
"""

from __future__ import annotations

import json
import secrets
import subprocess
import sys
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TypedDict

import attrs
import pytest

import imgload
from imgload.cli.dropin import run
from imgload.sources.base import TransportOption
from imgload.tools.dropins.tool import KIND
from tests.engine.conftest import cri_id, forget, unique
from tests.engine.kinds import Made, layer, old
from tests.engine.skaffold import CLUSTERS, Skaffold
from tests.engine.test_load import config_digest
from tests.engine.test_watch import watching
from tests.lab import Lab, Node
from tests.lab.engine import Engine
from tests.lab.lab import ENGINES
from tests.unit.archives import pack

CLUSTER = "lab-d21"
COUNTS = (1, 2, 10)
_BASE = layer("base.txt")


class Target(TypedDict):
    """The source and the target of a load."""

    cluster: str
    source: str


@attrs.frozen
class Bench:
    """An engine with images to load, and a node, which another engine may run.

    `built` are the image IDs by their names on a node.
    """

    engine: Engine
    node: Node
    names: tuple[str, ...] = attrs.field(
        factory=lambda: tuple(unique(f"rounds{i}") for i in range(max(COUNTS)))
    )
    built: dict[str, str] = attrs.field(factory=dict)
    _made: list[str] = attrs.field(factory=list)

    def rebuild(self, names: Sequence[str], base: bytes = _BASE) -> None:
        """Load new images with these names and a common layer into the engine."""
        made = [Made(name, (base, layer())) for name in names]
        self.engine.cli("load", stdin=pack(old(made)))
        self.built.update((_full(image.name), image.image_id) for image in made)
        self._made.extend(image.image_id for image in made)

    def clear(self) -> None:
        """Remove the images; in the containerd store untagged images have other IDs."""
        forget(self.node, *self.built)
        names = [name for name in self.names if _full(name) in self.built]
        self.engine.remove_image(*(names if self.engine.has_containerd_store else self._made))

    def on_node(self, names: Sequence[str]) -> dict[str, str | None]:
        """Return CRI's image IDs for these names."""
        return {_full(name): cri_id(self.node, _full(name)) for name in names}

    def in_engine(self, names: Sequence[str]) -> dict[str, str]:
        """Return the image IDs of the last builds with these names."""
        return {_full(name): self.built[_full(name)] for name in names}


def _full(name: str) -> str:
    return f"docker.io/library/{name}"


@pytest.fixture(params=ENGINES)
def bench(
    request: pytest.FixtureRequest, lab: Lab, monkeypatch: pytest.MonkeyPatch
) -> Iterator[Bench]:
    """Only this engine and the one that runs the nodes are available."""
    engine, cluster = lab.engine(request.param), lab.cluster(CLUSTER)
    own = "CONTAINER_HOST" if engine.name == "podman" else "DOCKER_HOST"
    for variable in ("CONTAINER_HOST", "DOCKER_HOST"):
        url = engine.url if variable == own else cluster.engine.url
        monkeypatch.setenv(variable, url)
    made = Bench(engine, cluster.nodes[0])
    yield made
    made.clear()


def test_functions_load_and_verify_several_images(bench: Bench) -> None:
    """`imgload.load` and `imgload.verify`; the node has no layer before."""
    target: Target = {"cluster": CLUSTER, "source": bench.engine.url}
    rounds: dict[int, TransportOption] = {1: "auto", 2: "archive", 10: "auto"}
    for count, transport in rounds.items():
        names = bench.names[:count]
        bench.rebuild(names, base=layer())
        imgload.load(names, transport=transport, **target)
        assert bench.on_node(names) == bench.in_engine(names)
        report = imgload.verify(names, **target)
        assert {i.reference: str(i.image_id) for i in report.images} == bench.in_engine(names)


def _changing(report: imgload.Report) -> list[str]:
    return [i.reference for i in report.images if i.nodes[0].action != "present"]


def test_a_reused_loader_loads_several_images(bench: Bench) -> None:
    """Each round has a rebuilt image, the images of the round before, and new ones."""
    with imgload.Loader.connect(CLUSTER, source=bench.engine.url) as loader:
        for count in COUNTS:
            names = bench.names[:count]
            new = [name for name in names if name == names[0] or _full(name) not in bench.built]
            bench.rebuild(new)
            planned = _changing(loader.load(names, dry_run=True))
            assert planned == [_full(name) for name in new]
            with pytest.raises(imgload.LoadFailed):
                loader.verify(names)
            report = loader.load(names)
            assert _changing(report) == planned
            assert bench.on_node(names) == bench.in_engine(names)
            assert loader.verify(names).ok


def _command(*words: str) -> object:
    """Return the image IDs by name that `imgload WORDS` reports."""
    done = subprocess.run(
        [sys.executable, "-m", "imgload", *words, "--cluster", CLUSTER, "--output", "json"],
        capture_output=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr.decode()
    images = json.loads(done.stdout)["images"]
    return {image["reference"]: image["image_id"] for image in images}


def test_commands_load_and_verify_several_images(bench: Bench) -> None:
    """`imgload load`, `imgload verify`, and `load` of the kind drop-in."""
    for count in COUNTS:
        names = bench.names[:count]
        bench.rebuild(names, base=layer())
        source = ("--from", bench.engine.url)
        assert _command("load", *names, *source) == bench.in_engine(names)
        assert bench.on_node(names) == bench.in_engine(names)
        assert _command("verify", *names, *source) == bench.in_engine(names)
        bench.rebuild(names, base=layer())
        assert run(KIND, ["load", "docker-image", *names, "--name", CLUSTER]) == 0
        assert bench.on_node(names) == bench.in_engine(names)


def test_a_watch_loads_several_images(bench: Bench) -> None:
    """One image is built, then two, then ten, including the earlier ones."""
    with watching("rounds*", "--cluster", CLUSTER, "--from", bench.engine.url) as watcher:
        for count in COUNTS:
            names = bench.names[:count]
            bench.rebuild(names)
            wanted, seen = bench.in_engine(names), dict[str, str]()
            while seen != wanted:
                document = watcher.loaded()
                assert document["ok"], document
                loaded = {image["reference"]: image["image_id"] for image in document["images"]}
                seen |= {name: image for name, image in loaded.items() if name in wanted}
            assert bench.on_node(names) == wanted


@pytest.mark.parametrize("most", [3, max(COUNTS)])
@pytest.mark.parametrize("engine", ENGINES)
def test_skaffold_builds_several_artifacts_in_parallel(
    lab: Lab, tmp_path: Path, engine: str, most: int
) -> None:
    """As with `skaffold build --build-concurrency=0`; the first artifact is built twice."""
    artifacts = [
        Skaffold.on(lab, engine, tmp_path / str(i), unique(f"rounds{i}")) for i in range(most)
    ]
    node = lab.cluster(CLUSTERS[engine]).nodes[0]
    for count in (1, most):
        for artifact in artifacts[:count]:
            (artifact.folder / "app").write_text(secrets.token_hex())
        with ThreadPoolExecutor(count) as pool:
            results = list(pool.map(Skaffold.build, artifacts[:count]))
        assert [result.status for result in results] == [0] * count, results
        for artifact in artifacts[:count]:
            deployed = cri_id(node, _full(artifact.deployed()))
            assert deployed == config_digest(artifact.engine, artifact.image)
    for artifact in artifacts:
        forget(node, _full(artifact.image))
        artifact.clear()
