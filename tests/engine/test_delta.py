"""Only missing layers are sent, measured on real engines and nodes."""

from __future__ import annotations

import os
from functools import partial
from pathlib import Path
from typing import Protocol

import pytest

import imgload
from imgload.loader.events import Event, Note, SendingStarted
from tests.engine.conftest import Images, cri_id, forget, unique
from tests.engine.relay import relay
from tests.lab import Lab, Node
from tests.lab.engine import Engine
from tests.lab.store import Store

MIB = 1 << 20
STORE = "/var/lib/containerd/io.containerd.content.v1.content/blobs"
BASE = 24 * MIB


class Build(Protocol):
    """Builds an image on the test's base with a top layer of `size` bytes; returns its ID."""

    def __call__(self, engine: Engine, tag: str, size: int = 100) -> str: ...


@pytest.fixture
def build(images: Images) -> Build:
    """Build images on a common base of 24 MiB."""
    bases: dict[str, str] = {}

    def build(engine: Engine, tag: str, size: int = 100) -> str:
        if engine.name not in bases:
            bases[engine.name] = unique("base")
            images.build(engine, bases[engine.name], os.urandom(BASE))
        return images.build(engine, tag, os.urandom(size), base=bases[engine.name])

    return build


def blobs(node: Node) -> set[str]:
    """Return the digests in a node's content store."""
    return set(node.ctr("content", "ls", "-q").split())


def stat_blob(node: Node, digest: str) -> int:
    """Return the size of a blob on a node; 0 if it was garbage-collected."""
    path = f"{STORE}/{digest.replace(':', '/')}"
    return int(node.exec("sh", "-c", 'stat -c %s "$1" 2>/dev/null || echo 0', "sh", path))


def actions(report: imgload.Report) -> list[str | None]:
    """Return the action on each node."""
    return [node.action for node in report.images[0].nodes]


def sent(report: imgload.Report) -> list[int]:
    """Return the number of bytes sent to each node."""
    return [node.bytes_sent for node in report.images[0].nodes]


@pytest.mark.parametrize("cluster", ["lab-d16", "lab-d17", "lab-d21", "lab-p21"])
@pytest.mark.parametrize(
    "source", ["docker", "docker26", "docker26-graphdriver", "docker28", "podman", "podman58"]
)
def test_a_rebuild_sends_only_its_new_layer(
    lab: Lab, build: Build, tmp_path: Path, source: str, cluster: str
) -> None:
    """At most the missing blobs and 2 % are sent to the node's engine; the node is complete."""
    engine, node, tag = lab.engine(source), lab.cluster(cluster).nodes[0], unique()
    build(engine, tag)
    assert actions(imgload.load(tag, cluster=cluster, source=engine.url)) == ["full"]
    before = blobs(node)
    build(engine, tag, 2 * MIB)
    host = lab.docker if cluster.startswith("lab-d") else lab.podman
    with relay(host, tmp_path) as proxy, pytest.MonkeyPatch.context() as patch:
        patch.setenv("DOCKER_HOST" if host is lab.docker else "CONTAINER_HOST", proxy.url)
        report = imgload.load(tag, cluster=cluster, source=engine.url)
    missing = sum(stat_blob(node, digest) for digest in blobs(node) - before)
    assert missing > 2 * MIB
    assert actions(report) == ["delta"]
    assert sent(report)[0] <= 1.02 * missing
    assert proxy.sent <= 1.02 * missing + 20_000, "with the requests and the surveys"
    name = f"docker.io/library/{tag}"
    assert cri_id(node, name) == str(report.images[0].image_id)
    assert "incomplete" not in node.ctr("images", "check", f"name=={name}")
    forget(node, name)


@pytest.mark.parametrize("source", ["docker", "docker28", "podman"])
def test_each_node_gets_only_its_missing_layers(lab: Lab, build: Build, source: str) -> None:
    """One node has nothing, two have the base; kind sends everything to nodes without the name."""
    engine, tag = lab.engine(source), unique()
    nodes = lab.cluster("lab-d3").nodes
    build(engine, tag)
    imgload.load(tag, cluster="lab-d3", source=engine.url, nodes=[n.name for n in nodes[1:]])
    build(engine, tag, MIB)
    report = imgload.load(tag, cluster="lab-d3", source=engine.url, transport="delta")
    assert actions(report) == ["full", "delta", "delta"]
    assert sent(report)[0] > BASE
    assert max(sent(report)[1:]) < 1.02 * MIB + 10_000
    for node in nodes:
        assert cri_id(node, f"docker.io/library/{tag}") == str(report.images[0].image_id)
        forget(node, f"docker.io/library/{tag}")


def test_docker_compresses_a_base_once(lab: Lab, build: Build) -> None:
    """The graphdriver store learns a layer at the first rebuild, with a note; not again."""
    tag = unique()
    notes: list[list[str]] = []
    for _ in range(3):
        events: list[Event] = []
        build(lab.docker, tag)
        report = imgload.load(tag, cluster="lab-d21", source="docker", on_event=events.append)
        notes.append([e.text for e in events if isinstance(e, Note)])
    first, second, third = notes
    assert (first, third) == ([], [])
    assert len(second) == 1
    assert "24 MiB of unchanged layers once" in second[0]
    assert sent(report)[0] < 10_000
    forget(lab.cluster("lab-d21").nodes[0], f"docker.io/library/{tag}")


@pytest.mark.parametrize("damage", ["lost", "garbage", "lies"])
def test_a_wrong_cache_does_not_break_a_load(
    lab: Lab, build: Build, tmp_path: Path, damage: str
) -> None:
    """A cache that is deleted, damaged or about other layers: the image is still verified."""
    tag, node = unique(), lab.cluster("lab-d21").nodes[0]
    memory = tmp_path / "cache/imgload/engines.json"
    for _ in range(2):
        build(lab.docker, tag)
        imgload.load(tag, cluster="lab-d21", source="docker")
    text = memory.read_text()
    if damage == "lost":
        memory.unlink()
    else:
        memory.write_text("{" if damage == "garbage" else text.replace("a", "b"))
    build(lab.docker, tag, MIB)
    report = imgload.load(tag, cluster="lab-d21", source="docker")
    assert report.ok
    assert cri_id(node, f"docker.io/library/{tag}") == str(report.images[0].image_id)
    forget(node, f"docker.io/library/{tag}")


@pytest.mark.parametrize("cluster", ["lab-d16", "lab-d21", "lab-p17"])
@pytest.mark.parametrize("source", ["docker", "docker28", "podman"])
def test_layers_collected_during_a_load_are_sent(
    lab: Lab, build: Build, source: str, cluster: str
) -> None:
    """A snapshot that is collected between survey and import causes a full load."""
    engine, node, tag = lab.engine(source), lab.cluster(cluster).nodes[0], unique()
    name = f"docker.io/library/{tag}"
    events: list[Event] = []
    build(engine, tag)
    old = str(imgload.load(tag, cluster=cluster, source=engine.url).images[0].image_id)
    build(engine, tag, MIB)

    def lose(event: Event) -> None:
        if isinstance(event, SendingStarted) and name in node.ctr("images", "ls", "-q"):
            node.ctr("images", "rm", "--sync", name, old)
        events.append(event)

    report = imgload.load(tag, cluster=cluster, source=engine.url, on_event=lose)
    notes = [event.text for event in events if isinstance(event, Note)]
    assert actions(report) == ["full"]
    assert any("whole" in note for note in notes), notes
    assert cri_id(node, name) == str(report.images[0].image_id)
    forget(node, name)


@pytest.mark.parametrize(
    ("source", "form"), [("podman", "oci-archive"), ("podman", "docker-archive"), ("docker28", "")]
)
def test_an_archive_load_omits_layers_on_the_node(
    lab: Lab, build: Build, tmp_path: Path, source: str, form: str
) -> None:
    """If its members are named by digest, as Docker 25 and Podman name them."""
    node, tag, path = lab.cluster("lab-d21").nodes[0], unique(), tmp_path / "image.tar"
    for action in ("full", "delta"):
        build(lab.engine(source), tag, MIB)
        options = ["--format", form] if form else []
        path.write_bytes(lab.engine(source).raw("save", *options, tag))
        report = imgload.load(tag, cluster="lab-d21", source=str(path))
        assert actions(report) == [action]
    assert sent(report)[0] < 1.02 * MIB + 10_000
    assert cri_id(node, f"docker.io/library/{tag}") == str(report.images[0].image_id)
    forget(node, f"docker.io/library/{tag}")


@pytest.mark.parametrize("source", ["docker", "docker28", "podman"])
def test_a_survey_ahead_saves_the_survey_after_the_build(
    lab: Lab, build: Build, tmp_path: Path, source: str
) -> None:
    """Only the import's exec remains, unless the image is present or was removed."""
    engine, node, tag = lab.engine(source), lab.cluster("lab-d21").nodes[0], unique()
    name = f"docker.io/library/{tag}"
    build(engine, tag)
    costs: dict[str, int] = {}
    with relay(lab.docker, tmp_path) as proxy, pytest.MonkeyPatch.context() as patch:
        patch.setenv("DOCKER_HOST", proxy.url)
        origin = (
            proxy.url if source == "docker" else engine.url
        )  # so that the nodes' engine is listed once
        with imgload.Loader.connect("lab-d21", source=origin) as loader:
            for case in ("full", "delta", "present", "lost"):
                if case in {"delta", "lost"}:
                    build(engine, tag)
                loader.survey_ahead(tag)
                if case == "lost":
                    node.cri().remove_image(name)
                    node.ctr("content", "prune", "references")
                before = proxy.execs
                report = loader.load([tag])
                costs[case] = proxy.execs - before
                assert case in {"lost", *actions(report)}
                assert cri_id(node, name) == str(report.images[0].image_id)
    assert {**costs, "lost": 0} == {"full": 1, "delta": 1, "present": 1, "lost": 0}
    forget(node, name)


def test_a_push_leaves_no_labels_in_docker(lab: Lab, build: Build) -> None:
    """It labels each blob with the repository of each successful push (up to 4096 bytes)."""
    engine, node, tag = lab.engine("docker28"), lab.cluster("lab-d21").nodes[0], unique()
    store = Store(engine.paths.run / engine.name / "exec/containerd/containerd.sock", "moby")
    before = set(store.labels())
    for _ in range(3):
        build(engine, tag)
        imgload.load([tag], cluster="lab-d21", source=engine.url)
    traces = [label for label in set(store.labels()) - before if "imgload/" in label[1]]
    assert not traces
    assert "127.0.0.1" not in engine.cli("images")
    forget(node, f"docker.io/library/{tag}")


@pytest.mark.parametrize("reused", [True, False], ids=["a-loader", "the-cache"])
def test_layers_collected_between_two_loads_are_sent(
    lab: Lab, build: Build, *, reused: bool
) -> None:
    """A loader or its successor assumes that the nodes kept its images, and detects a loss."""
    node, tag = lab.cluster("lab-d21").nodes[0], unique()
    name = f"docker.io/library/{tag}"
    with imgload.Loader.connect(cluster="lab-d21", source="docker") as loader:
        load = loader.load if reused else partial(imgload.load, cluster="lab-d21", source="docker")
        first = build(lab.docker, tag)
        load([tag])
        second = build(lab.docker, tag)
        assert sent(load([tag]))[0] < MIB
        forget(node, name, first, second)
        new = build(lab.docker, tag)
        assert sent(load([tag]))[0] > BASE
    assert cri_id(node, name) == new
    forget(node, name)


def test_a_cached_survey_hides_no_image_of_another_tool(lab: Lab, build: Build) -> None:
    """Another tool moved the name since the last run: the report names the image it replaced."""
    node, tag = lab.cluster("lab-d21").nodes[0], unique()
    name = f"docker.io/library/{tag}"
    load = partial(imgload.load, cluster="lab-d21", source="docker")
    first = build(lab.docker, tag)
    load(tag)
    other = build(lab.docker, unique())
    load(other, tag=f"{tag}-other")
    node.ctr("images", "tag", "--force", f"{name}-other", name)
    new = build(lab.docker, tag)
    result = load(tag).images[0].nodes[0]
    assert (result.action, str(result.replaced)) == ("delta", other)
    assert cri_id(node, name) == new
    forget(node, name, f"{name}-other", first)
