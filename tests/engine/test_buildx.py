"""Builders of docker-buildx outside the engine, and BuildKit's outputs as archives and folders."""

from __future__ import annotations

import re
import secrets
import shlex
import signal
from collections.abc import Iterator
from pathlib import Path

import attrs
import pytest

from imgload.core.state import RUN_FOLDER
from imgload.oci.digest import Digest
from imgload.registry.server import receiving
from imgload.tools.skaffold.layout import BuildFolder
from tests.engine.conftest import cri_id, forget, records, unique
from tests.engine.skaffold import CLUSTERS, RegistryContents, Skaffold
from tests.engine.test_load import config_digest
from tests.lab import Lab, Node
from tests.lab.builder import Buildx

MIB = 1 << 20
NAME = "outside"
PAGE = (Path(__file__).parents[2] / "docs/archives.md").read_text()
RECIPES = re.findall(r"^\$ (docker buildx build .*)$", PAGE, re.MULTILINE)
LOAD = 'imgload load --from - --tag "$IMAGE"'
OUTPUTS = {
    "attested": f"docker buildx build --provenance=true --output type=oci,dest=- . | {LOAD}",
    "platforms": "docker buildx build --platform linux/arm64,linux/amd64 --output type=oci,dest=- ."
    f" | {LOAD}",
    "zstd": "docker buildx build --output type=oci,compression=zstd,force-compression=true,dest=- ."
    f" | {LOAD}",
    "dated": "SOURCE_DATE_EPOCH=0 docker buildx build"
    f" --output type=oci,rewrite-timestamp=true,dest=- . | {LOAD}",
    "several names": 'docker buildx build -t "$IMAGE" -t other:v1 --output type=docker,dest=- .'
    ' | imgload load --from - "$IMAGE"',
}


@pytest.fixture(scope="module")
def buildx(lab: Lab, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Buildx]:
    """A user with a builder whose container shares the network of this machine."""
    user = Buildx.set_up(lab.docker28, tmp_path_factory.mktemp("user") / "docker")
    with user.builder(NAME, "--driver-opt=network=host"):
        yield user


@attrs.frozen
class Bench:
    """A user of Skaffold with a builder outside the engine, and the node of the cluster."""

    skaffold: Skaffold
    node: Node
    folder: Path

    @classmethod
    def make(cls, lab: Lab, buildx: Buildx, engine: str, folder: Path) -> Bench:
        image = unique(f"buildx{secrets.token_hex(4)}")
        skaffold = Skaffold.on(lab, engine, folder / "home", image)
        skaffold.exported.update(
            buildx.environ, BUILDX_BUILDER=NAME, DOCKER_HOST=skaffold.engine.url
        )
        bench = cls(skaffold, lab.cluster(CLUSTERS[engine]).nodes[0], folder / "home")
        bench.write("Dockerfile", b"FROM scratch\nCOPY base /\nCOPY app /\nCOPY app /none/\n")
        bench.write("base", secrets.token_bytes(2 * MIB))
        bench.change()
        return bench

    def write(self, name: str, content: bytes) -> None:
        (self.skaffold.folder / name).write_bytes(content)

    def change(self) -> None:
        self.write("app", secrets.token_bytes(8))

    def build(self, **changed: str) -> str:
        """Build and load; return the output."""
        ended = self.skaffold.build(**changed)
        assert ended.status == 0, ended.output
        self.verify()
        return ended.output

    def verify(self) -> None:
        """Require the names that Skaffold deploys on the node, and no temporary files."""
        deployed, image = self.skaffold.deployed(), self.skaffold.image
        image_id = config_digest(self.skaffold.engine, image)
        for name in (image, deployed, f"{self.skaffold.repository}:{image_id[7:]}"):
            assert cri_id(self.node, f"docker.io/library/{name}") == image_id
        assert self.leftovers() == []

    def leftovers(self) -> list[Path]:
        return list(self.folder.glob(f"{RUN_FOLDER}*"))

    def clear(self) -> None:
        self.skaffold.clear()
        prefix = f"docker.io/library/{self.skaffold.repository}:"
        forget(self.node, *(name for name in records(self.node) if name.startswith(prefix)))


@pytest.fixture
def bench(
    lab: Lab, buildx: Buildx, tmp_path: Path, request: pytest.FixtureRequest
) -> Iterator[Bench]:
    bench = Bench.make(lab, buildx, getattr(request, "param", "docker28"), tmp_path)
    yield bench
    bench.clear()


@pytest.mark.parametrize("bench", CLUSTERS, indirect=True)
def test_skaffold_builds_with_a_builder_outside_the_engine(bench: Bench) -> None:
    """Engine and node get the image; a rebuild sends only new layers."""
    assert "2 MiB" in bench.build().partition("sending")[2]
    bench.change()
    assert "MiB" not in bench.build().partition("sending")[2]


@pytest.mark.long
@pytest.mark.parametrize("bench", CLUSTERS, indirect=True)
def test_a_layer_that_engine_or_node_has_lost_is_sent_again(bench: Bench) -> None:
    """A new cluster has no layers; the engine's user may remove images."""
    bench.build()
    bench.skaffold.clear()
    bench.change()
    assert "MiB" not in bench.build().partition("sending")[2]
    bench.change()
    prefix = f"docker.io/library/{bench.skaffold.repository}:"
    forget(bench.node, *(name for name in records(bench.node) if name.startswith(prefix)))
    bench.build()


def test_known_layers_are_not_transferred(bench: Bench, buildx: Buildx) -> None:
    """BuildKit skips a blob for which the folder has a file, of whatever size."""

    def build(folder: BuildFolder) -> list[int]:
        options = ("--builder", NAME, "--output", folder.output, bench.skaffold.folder)
        buildx("build", *options, env={"BUILDX_NO_DEFAULT_ATTESTATIONS": "1"})
        image = folder.image(bench.skaffold.image)
        blobs.update(image.blobs)
        absent.append(set(image.absent_layers))
        return sorted(path.stat().st_size for path in (folder.path / "blobs/sha256").iterdir())

    blobs: set[Digest] = set()
    absent: list[set[Digest]] = []
    with BuildFolder.make() as folder:
        assert build(folder)[-1] > 2 * MIB
    with BuildFolder.make() as folder:
        folder.omit(blobs)
        assert build(folder)[-1] < MIB
        build(folder)
    assert [len(layers) for layers in absent] == [0, 3, 0]


@pytest.mark.parametrize("recipe", [*RECIPES, *OUTPUTS.values()], ids=[*RECIPES, *OUTPUTS])
def test_outputs_of_buildkit_are_loaded(bench: Bench, tmp_path: Path, recipe: str) -> None:
    """The documented commands, and what else BuildKit's exporters write."""
    command = recipe.replace("app:dev", bench.skaffold.image).replace(
        "layout", f"{tmp_path}/layout"
    )
    before = records(bench.node)
    for _ in range(2 if "layout" in recipe else 1):
        bench.change()
        ended = bench.skaffold.build(f"set -e; {command}")
        assert ended.status == 0, ended.output
    assert "verified" in ended.output
    assert records(bench.node) - before == {f"docker.io/library/{bench.skaffold.image}"}


@pytest.mark.long
def test_an_image_that_only_the_builder_has_is_not_found(bench: Bench) -> None:
    """The hint names the option that also stores it in the engine."""
    image = shlex.quote(bench.skaffold.image)
    ended = bench.skaffold.build(f"docker buildx build -t {image} . && imgload load {image}")
    assert ended.status == 3
    assert "--load" in ended.output.partition("try:")[2]


@pytest.mark.long
def test_a_push_uses_the_builder(bench: Bench) -> None:
    """The registry has the printed digest; neither the engine nor the node gets the image."""
    before, registry = records(bench.node), RegistryContents()
    with receiving(registry) as repository:
        pushing = attrs.evolve(bench.skaffold, image=f"{repository}:v1")
        ended = pushing.build(PUSH_IMAGE="true", KUBECONFIG="/nowhere")
    assert ended.status == 0, ended.output
    assert ended.output.split()[-1] in map(str, registry.taken)
    assert records(bench.node) == before
    assert repository not in bench.skaffold.engine.cli("images", "--format", "{{.Repository}}")


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGKILL])
def test_an_ended_build_leaves_no_files(bench: Bench, number: signal.Signals) -> None:
    """After a SIGKILL, the next run removes them."""
    before = records(bench.node)
    bench.write("base", secrets.token_bytes(40 * MIB))
    process = bench.skaffold.start("exec imgload skaffold")
    assert process.stdout
    while "exporting layers" not in (line := process.stdout.readline()):
        assert line, "the build has ended"
    assert bench.leftovers()
    process.send_signal(number)
    output, _ = process.communicate(timeout=20)
    assert process.returncode == (130 if number == signal.SIGINT else -number), output
    assert records(bench.node) == before
    if number == signal.SIGKILL:
        bench.skaffold.build("imgload load nosuch")
    assert bench.leftovers() == []
