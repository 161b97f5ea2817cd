"""`imgload skaffold`, called as Skaffold calls a custom builder."""

from __future__ import annotations

import re
import secrets
import shutil
import time
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

import attrs
import pytest
import yaml

from imgload.registry.server import receiving
from tests.engine.aftermath import leftover_tags
from tests.engine.conftest import Images, cri_id, forget, records, unique
from tests.engine.relay import Fault, relay
from tests.engine.skaffold import CLUSTERS, RegistryContents, Skaffold
from tests.engine.test_load import config_digest
from tests.lab import Lab, Node

MIB = 1 << 20
EXAMPLE = Path(__file__).parents[2] / "examples/skaffold"
Start = Callable[[str], Skaffold]


@attrs.frozen
class Failure:
    """A failing call, with its expected exit status and output."""

    options: str
    status: int
    output: str
    changed: dict[str, str] = attrs.field(factory=dict)


FAILURES = [
    Failure("", 2, "IMAGE=app:dev BUILD_CONTEXT=. imgload", {"BUILD_CONTEXT": ""}),
    Failure("", 2, "your own shell exports", {"IMAGE": "mine:v1"}),
    Failure("--target x -- true", 2, "--target=x"),
    Failure("-- nosuch-program", 2, "nosuch-program"),
    Failure("--builder podman", 5, "podman.socket"),
    Failure("", 4, "kubectl config use-context", {"KUBECONFIG": "/nowhere"}),
    Failure("-c nosuch", 4, "no cluster 'nosuch'"),
    Failure("-- false", 1, "false failed with exit status 1"),
    Failure("--file nosuch", 1, "docker build failed"),
    Failure("-- true", 3, "the build has left no"),
]
MANIFEST_LIST = """
set -e
podman manifest exists "$IMAGE" && podman manifest rm "$IMAGE"
podman manifest create "$IMAGE"
for platform in $BUILD_FOR; do
    echo "$platform" >platform
    image=$(podman build --isolation chroot --platform "$platform" --manifest "$IMAGE" -q .)
    [ "$platform" != linux/amd64 ] || echo "$image" >../id
done
mv ../id id
"""
TREE = """sh -c 'sleep 611; true' & sleep 612"""


@pytest.fixture
def start(lab: Lab, tmp_path: Path) -> Iterator[Start]:
    """Return a function that returns Skaffold with an engine and its own artifact."""
    made: list[Skaffold] = []

    def start(engine: str) -> Skaffold:
        image = unique(f"skaffold{secrets.token_hex(4)}")
        made.append(Skaffold.on(lab, engine, tmp_path / f"user{len(made)}", image))
        change(made[-1])
        return made[-1]

    yield start
    for skaffold in made:
        skaffold.clear()


def change(skaffold: Skaffold) -> None:
    """Change one line of the application."""
    (skaffold.folder / "app.py").write_text(f"print('{secrets.token_hex(8)}')\n")


def node_of(lab: Lab, engine: str) -> Node:
    return lab.cluster(CLUSTERS[engine]).nodes[0]


def full_name(name: str) -> str:
    return f"docker.io/library/{name}"


@pytest.mark.parametrize("engine", CLUSTERS)
def test_the_image_that_skaffold_deploys_is_on_the_nodes(
    lab: Lab, start: Start, engine: str
) -> None:
    """As $IMAGE and as the tag with the ID of the Docker API, for the first build and rebuilds.

    On Docker's containerd image store that ID is a manifest's digest; the nodes also get a tag with
    the image ID. With Podman there is no Docker: DOCKER_HOST is Podman's socket.
    """
    skaffold, node = start(engine), node_of(lab, engine)
    (skaffold.folder / "Dockerfile").write_text("FROM scratch\nCOPY base /\nCOPY app.py /\n")
    (skaffold.folder / "base").write_bytes(secrets.token_bytes(2 * MIB))
    before = records(node)
    for build in ("first", "rebuild", "rebuild"):
        change(skaffold)
        ended = skaffold.build()
        assert ended.status == 0, ended.output
        assert "step 1/3" in ended.output.lower(), "the builder's own output"
        deployed = skaffold.deployed()
        image_id = config_digest(skaffold.engine, skaffold.image)
        by_id = f"{skaffold.repository}:{image_id.removeprefix('sha256:')}"
        names = {full_name(name) for name in (skaffold.image, deployed, by_id)}
        assert [cri_id(node, name) for name in names] == [image_id] * len(names)
        assert f"{full_name(skaffold.image)} {image_id[7:19]} -> 1 node" in ended.output
        assert names <= records(node)
        assert len(names) == (3 if engine == "docker28" else 2)
        if build == "rebuild":
            assert "MiB" not in ended.output.partition("sending")[2], "only changed layers are sent"
    assert leftover_tags(skaffold.engine) == []
    forget(node, *(records(node) - before))


@pytest.mark.parametrize("engine", ["docker", "docker28"])
def test_a_tag_by_id_never_refers_to_another_image(
    lab: Lab, start: Start, images: Images, tmp_path: Path, engine: str
) -> None:
    """While the first build is loaded, another process moves the tag $IMAGE."""
    skaffold, node, other = start(engine), node_of(lab, engine), unique("other")
    images.build(skaffold.engine, other)
    moving = Fault(r"GET \S*/images/\S+/json", "hold", skip=3)
    with relay(skaffold.engine, tmp_path, moving) as proxy:
        process = skaffold.start("imgload skaffold", DOCKER_HOST=proxy.url)
        assert moving.reached.wait(30)
        built = config_digest(skaffold.engine, skaffold.image)
        skaffold.engine.cli("tag", other, skaffold.image)
        moving.release.set()
        output, _ = process.communicate(timeout=60)
    by_id = full_name(f"{skaffold.repository}:{built.removeprefix('sha256:')}")
    assert process.returncode == 0, output
    assert cri_id(node, by_id) == built
    assert cri_id(node, full_name(skaffold.image)) == built
    forget(node, full_name(skaffold.image))


def test_a_present_image_is_verified_and_not_sent(lab: Lab, start: Start) -> None:
    """A build from the cache; of several platforms only the nodes' one is built."""
    skaffold, node = start("docker"), node_of(lab, "docker")
    for platforms in ("linux/amd64", "linux/amd64,linux/arm64", "all"):
        ended = skaffold.build(PLATFORMS=platforms)
        assert ended.status == 0, ended.output
        assert ("building only for linux/amd64" in ended.output) is (platforms != "linux/amd64")
    assert "-> 1 node; verified" in ended.output, "nothing was sent"
    other = skaffold.build(PLATFORMS="linux/arm64,linux/s390x")
    assert other.status == 6
    assert "the nodes are linux/amd64" in other.output
    forget(node, full_name(skaffold.image))


@pytest.mark.parametrize("engine", ["docker", "podman"])
def test_the_example_builds_and_loads(lab: Lab, start: Start, engine: str) -> None:
    """With its build command, in a copy of its folder, on a base that needs no registry."""
    skaffold, node = start(engine), node_of(lab, engine)
    shutil.copytree(EXAMPLE, skaffold.folder, dirs_exist_ok=True)
    [artifact] = yaml.safe_load((EXAMPLE / "skaffold.yaml").read_text())["build"]["artifacts"]
    ended = skaffold.build(f"{artifact['custom']['buildCommand']} --build-arg BASE=scratch")
    assert ended.status == 0, ended.output
    assert cri_id(node, full_name(skaffold.deployed()))
    forget(node, full_name(skaffold.image))


def test_no_load_only_builds(lab: Lab, start: Start) -> None:
    """It needs no cluster."""
    skaffold = start("docker")
    ended = skaffold.build("imgload skaffold --no-load", KUBECONFIG="/nowhere")
    assert ended.status == 0, ended.output
    assert skaffold.deployed()
    assert full_name(skaffold.image) not in records(node_of(lab, "docker"))


@pytest.mark.parametrize("engine", ["docker", "podman"])
def test_a_custom_command_builds_the_image(lab: Lab, start: Start, engine: str) -> None:
    """Any command that leaves $IMAGE in an engine."""
    skaffold, node = start(engine), node_of(lab, engine)
    ended = skaffold.build(f'exec imgload skaffold -- {engine} build -t "$IMAGE" .')
    assert ended.status == 0, ended.output
    assert cri_id(node, full_name(skaffold.deployed())) == skaffold.engine.image_id(skaffold.image)
    forget(node, full_name(skaffold.image))


def test_a_custom_command_builds_a_manifest_list(lab: Lab, start: Start) -> None:
    """The nodes get its image for their platform, by name and by IDs, also after a rebuild."""
    skaffold, node = start("podman"), node_of(lab, "podman")
    (skaffold.folder / "build").write_text(MANIFEST_LIST)
    for platforms in ("linux/arm64 linux/amd64", "linux/amd64 linux/arm64"):
        change(skaffold)
        ended = skaffold.build("exec imgload skaffold -- sh ./build", BUILD_FOR=platforms)
        assert ended.status == 0, ended.output
        [image_id] = (skaffold.folder / "id").read_text().split()
        for name in (skaffold.image, f"{skaffold.repository}:{image_id}", skaffold.deployed()):
            assert cri_id(node, full_name(name)) == f"sha256:{image_id}"
    skaffold.engine.cli("manifest", "rm", skaffold.image)
    forget(node, full_name(skaffold.image))


@pytest.mark.parametrize("failure", FAILURES, ids=lambda failure: failure.output)
def test_an_unverified_build_is_a_failure(lab: Lab, start: Start, failure: Failure) -> None:
    """Skaffold deploys after exit status 0; the nodes are unchanged."""
    skaffold, node = start("docker"), node_of(lab, "docker")
    before = records(node)
    ended = skaffold.build(f"imgload skaffold {failure.options}", **failure.changed)
    assert (ended.status, "Traceback" in ended.output) == (failure.status, False), ended.output
    assert failure.output in ended.output
    assert records(node) == before


def test_docker_desktops_context_selects_its_kind_cluster(
    lab: Lab, start: Start, tmp_path: Path
) -> None:
    """Its container is called like that of a kind cluster; without it, nothing is built."""
    skaffold = start("docker")
    (tmp_path / "context").write_text("current-context: docker-desktop\n")
    build = partial(skaffold.build, KUBECONFIG=str(tmp_path / "context"))
    made = lab.make_cluster(name="desktop", engine="docker")
    try:
        ended = build()
        assert ended.status == 0, ended.output
        image = skaffold.engine.image_id(skaffold.image)
        assert cri_id(made.nodes[0], full_name(skaffold.image)) == image
    finally:
        made.remove()
    change(skaffold)
    refused = build()
    assert refused.status == 4
    assert "Docker's own images" in refused.output
    assert skaffold.engine.image_id(skaffold.image) == image


def test_an_older_image_in_skaffolds_engine_is_refused(lab: Lab, start: Start) -> None:
    """Skaffold would deploy it; without such an image, a note names the variable to set."""
    skaffold = start("docker")
    podman = Skaffold(lab.podman, skaffold.folder, skaffold.image, {})
    both = {
        "CONTAINER_HOST": lab.podman.url,
        "PATH": f"{Path(lab.podman.client[0]).parent}:{skaffold.exported['PATH']}",
    }
    noted = skaffold.build("imgload skaffold --builder podman", **both)
    assert noted.status == 0, noted.output
    assert f"set DOCKER_HOST={lab.podman.url}" in noted.output
    assert skaffold.build("imgload skaffold --no-load").status == 0
    change(skaffold)
    refused = skaffold.build("imgload skaffold --builder podman", **both)
    assert refused.status == 3
    assert f"run Skaffold with DOCKER_HOST={lab.podman.url}" in refused.output
    podman.clear()
    forget(node_of(lab, "docker"), full_name(skaffold.image))


@pytest.mark.parametrize("engine", ["docker", "docker28", "podman"])
def test_a_push_does_not_load(lab: Lab, start: Start, tmp_path: Path, engine: str) -> None:
    """The registry has the printed digest; a push that is refused is a failure."""
    skaffold, node = start(engine), node_of(lab, engine)
    before = records(node)
    registry = RegistryContents()
    with receiving(registry) as repository:
        conf = tmp_path / "registries.conf"
        host = repository.partition("/")[0]
        conf.write_text(f'[[registry]]\nlocation = "{host}"\ninsecure = true\n')
        pushing = Skaffold(skaffold.engine, skaffold.folder, f"{repository}:v1", skaffold.exported)
        changed = {"PUSH_IMAGE": "true", "CONTAINERS_REGISTRIES_CONF": str(conf)}
        ended = pushing.build(KUBECONFIG="/nowhere", **changed)
        refused = pushing.build(IMAGE=f"{host}/other:v1", IMAGE_REPO=f"{host}/other", **changed)
        pushing.clear()
    assert ended.status == 0, ended.output
    assert ended.output.split()[-1] in map(str, registry.taken)
    assert (refused.status, "push failed" in refused.output) == (1, True), refused.output
    assert records(node) == before
    skaffold.engine.remove_image(f"{host}/other:v1")


@pytest.mark.parametrize(("shell", "status"), [("exec ", {130}), ("", {130, -2, -9})])
def test_a_cancelled_build_ends_all_processes(
    lab: Lab, start: Start, tmp_path: Path, shell: str, status: set[int]
) -> None:
    """Within Skaffold's two seconds; a shell that does not pass the signal on is killed."""
    skaffold = start("docker")
    process = skaffold.start(f'{shell}imgload skaffold -- sh -c "echo started; {TREE}"')
    assert process.stdout
    assert process.stdout.readline() == "started\n"
    begun = time.monotonic()
    ended = skaffold.cancel(process)
    assert ended.status in status
    assert time.monotonic() - begun < (2 if shell else 4)
    assert "interrupted" in ended.output
    assert "Traceback" not in ended.output
    assert lab.docker.cli("ps", "-q", "--filter", f"ancestor={skaffold.image}") == ""
    assert not [line for line in _processes() if "sleep 611" in line or "sleep 612" in line]
    assert [path for path in (tmp_path / "user0").iterdir() if "imgload-" in path.name] == []


@pytest.mark.parametrize(
    ("engine", "size", "seconds"), [("docker", 60, 0.3), ("docker28", 60, 0), ("podman", 100, 0.3)]
)
def test_a_cancelled_load_leaves_nothing(
    lab: Lab, start: Start, engine: str, size: int, seconds: float
) -> None:
    """No name on the node, no temporary tag in the engine, and no running transfer."""
    skaffold, node = start(engine), node_of(lab, engine)
    (skaffold.folder / "big").write_bytes(secrets.token_bytes(size * MIB))
    assert skaffold.build("imgload skaffold --no-load").status == 0
    before = records(node)
    process = skaffold.start("exec imgload skaffold -- true")
    assert process.stdout
    while not process.stdout.readline().startswith("sending"):
        assert process.poll() is None
    time.sleep(seconds)
    begun = time.monotonic()
    ended = skaffold.cancel(process)
    assert (ended.status, "interrupted" in ended.output) == (130, True), ended.output
    assert time.monotonic() - begun < 2
    while re.search("images (pull|import)", node.exec("ps", "-o", "args")):
        assert time.monotonic() - begun < 10
    assert records(node) == before
    assert leftover_tags(skaffold.engine) == []


def _processes() -> Iterator[str]:
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            yield path.read_bytes().replace(b"\0", b" ").decode(errors="replace")
        except (FileNotFoundError, ProcessLookupError):
            continue


@pytest.mark.long
@pytest.mark.parametrize("engine", ["docker", "docker28", "podman"])
def test_a_rebuild_takes_little_longer_than_its_build(
    start: Start, images: Images, engine: str
) -> None:
    """At most 0.6 s in the best of five rebuilds, on a base of 100 MiB that is already loaded."""
    skaffold, base = start(engine), unique("base")
    images.build(skaffold.engine, base, secrets.token_bytes(100 * MIB))
    (skaffold.folder / "Dockerfile").write_text(f"FROM {base}\nCOPY app.py /\n")
    assert skaffold.build().status == 0
    extra = []
    for _ in range(5):
        alone, _ = _timed(skaffold, f'{Path(skaffold.engine.client[0]).name} build -t "$IMAGE" .')
        loaded, output = _timed(skaffold, "imgload skaffold")
        assert "compresses" not in output, "the first load has compressed the base"
        extra.append(loaded - alone)
    assert min(extra) <= 0.6, extra


def _timed(skaffold: Skaffold, command: str) -> tuple[float, str]:
    change(skaffold)
    begun = time.monotonic()
    ended = skaffold.build(command)
    assert ended.status == 0, ended.output
    return time.monotonic() - begun, ended.output
