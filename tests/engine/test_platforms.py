"""Images of several platforms: the choice of a platform, and errors about absent ones."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator
from pathlib import Path

import attrs
import pytest

import imgload
from imgload.core.errors import ImageIncomplete, PlatformMissing
from imgload.loader.events import Event, Note
from imgload.oci.document import INDEX, MANIFEST
from tests.engine.conftest import cri_id, forget, unique
from tests.engine.kinds import AMD64, ARM64, Made, Platforms, new, oci
from tests.engine.peers import our_load
from tests.lab import Lab, Node
from tests.unit.archives import Entry, blob, descriptor, pack
from tests.unit.archives import index as index_of

CLUSTER = "lab-d21"
V3 = {**AMD64, "variant": "v3"}
LoadIntoDocker = Callable[..., Made]


@attrs.frozen
class Listed(Made):
    """An image of one platform in an index, whose platform may differ from the config's."""

    listed: dict[str, str] = attrs.field(factory=dict)

    @property
    def index(self) -> bytes:
        return index_of(descriptor(self.manifest, MANIFEST, platform=self.listed))

    @property
    def members(self) -> list[Entry]:
        return [*super().members, blob(self.index)]

    @property
    def top(self) -> dict[str, object]:
        return descriptor(self.index, INDEX)


def without(made: Made, absent: Collection[bytes]) -> bytes:
    """Return an OCI archive that lacks some blobs."""
    paths = {blob(raw)[0] for raw in absent}
    return pack([entry for entry in oci([made]) if entry[0] not in paths])


@pytest.fixture
def node(lab: Lab) -> Node:
    """The node of the cluster."""
    return lab.cluster(CLUSTER).nodes[0]


@pytest.fixture
def load_into_docker(lab: Lab, node: Node) -> Iterator[LoadIntoDocker]:
    """Return a function that loads an image without some blobs into Docker 28."""
    names: list[str] = []

    def load(made: Made, *absent: bytes) -> Made:
        lab.docker28.cli("load", stdin=without(made, absent))
        names.append(made.name)
        return made

    yield load
    lab.docker28.cli("rmi", "--force", *names)
    forget(node, *(f"docker.io/library/{name}" for name in names))


def load(lab: Lab, made: Made, **options: str) -> tuple[imgload.ImageResult, list[str]]:
    """Load from Docker 28; return the image's result, and the notes."""
    events: list[Event] = []
    report = imgload.load(
        made.name,
        cluster=CLUSTER,
        source=lab.docker28.url,
        on_event=events.append,
        **options,  # type: ignore[arg-type]
    )
    return report.images[0], [event.text for event in events if isinstance(event, Note)]


@pytest.mark.parametrize(("option", "transport"), [("archive", "import"), ("auto", "pull")])
def test_one_platform_of_an_index_is_loaded(
    lab: Lab, load_into_docker: LoadIntoDocker, node: Node, option: str, transport: str
) -> None:
    """Docker's save of a platform has the manifest on top, not the index."""
    made = load_into_docker(Platforms(unique(), compression="gzip"))
    image, _ = load(lab, made, transport=option)
    assert image.nodes[0].transport == transport
    assert str(image.image_id) == made.image_id
    assert cri_id(node, f"docker.io/library/{made.name}") == made.image_id


def test_a_platform_without_its_layers_is_refused(
    lab: Lab, load_into_docker: LoadIntoDocker, node: Node
) -> None:
    """Docker has only the manifest for amd64; arm64 is not loaded instead."""
    made = Platforms(unique(), compression="gzip")
    load_into_docker(made, *made.blobs)
    for options in ({}, {"platform": "linux/amd64"}):
        with pytest.raises(ImageIncomplete) as refused:
            load(lab, made, **options)
        assert refused.value.exit_status == 6
        assert f"holds {made.name} only in part" in refused.value.message
        assert "content of linux/amd64 is absent, linux/arm64 is available" in refused.value.message
        assert f"docker pull --platform linux/amd64 {made.name}" in refused.value.hint
    image, notes = load(lab, made, platform="linux/arm64")
    assert str(image.image_id) == made.other.image_id
    assert ["exec format error" in note for note in notes] == [True]
    assert cri_id(node, f"docker.io/library/{made.name}") == made.other.image_id


@pytest.mark.parametrize("source", ["docker26", "docker28"])
def test_an_image_only_for_another_platform_is_loaded_with_a_warning(
    lab: Lab, node: Node, source: str
) -> None:
    """Docker 26 does not list the platforms in its containerd image store."""
    engine, made = lab.engine(source), Made(unique(), platform=ARM64)
    engine.cli("load", stdin=pack(new([made])))
    events: list[Event] = []
    with pytest.raises(PlatformMissing):
        imgload.load(made.name, cluster=CLUSTER, source=engine.url, platform="linux/amd64")
    imgload.load(made.name, cluster=CLUSTER, source=engine.url, on_event=events.append)
    name = f"docker.io/library/{made.name}"
    assert cri_id(node, name) == made.image_id
    [warning] = [e.text for e in events if isinstance(e, Note) and e.is_warning]
    assert "is a linux/arm64 image" in warning
    forget(node, name)
    engine.remove_image(made.name)


def test_the_node_tells_whether_it_emulates_an_image(
    lab: Lab, node: Node, loong64: dict[str, str], tmp_path: Path
) -> None:
    """A real registry of binary formats; strict loads refuse only images that cannot run."""
    runs = Made(unique(), platform=loong64)
    fails = Made(unique(), platform=ARM64)
    path = tmp_path / "app.tar"
    for made, status, words in ((runs, 0, "it runs with emulation"), (fails, 6, "exec format")):
        path.write_bytes(pack(new([made])))
        arguments = ("--from", str(path), "--strict-platform")
        done = our_load(lab.cluster(CLUSTER), made.name, *arguments)
        assert done.returncode == status, done.stderr
        assert words in done.stderr
    assert cri_id(node, f"docker.io/library/{runs.name}") == runs.image_id
    assert cri_id(node, f"docker.io/library/{fails.name}") is None
    forget(node, f"docker.io/library/{runs.name}")


@pytest.mark.parametrize("several", [True, False], ids=["index", "manifest"])
def test_an_image_without_its_layers_is_refused(
    lab: Lab, load_into_docker: LoadIntoDocker, *, several: bool
) -> None:
    """The error mentions neither archives nor emulation."""
    name = unique()
    made = Platforms(name, compression="gzip") if several else Made(name, compression="gzip")
    others = made.other.blobs if isinstance(made, Platforms) else []
    load_into_docker(made, made.blobs[-1], *others)
    done = our_load(lab.cluster(CLUSTER), name, "--from", lab.docker28.url)
    assert done.returncode == 6
    assert f"docker28.sock holds {name} only in part" in done.stderr
    assert ("linux/amd64, linux/arm64, linux/s390x" in done.stderr) == several
    assert f"docker rmi --force {name} BASE" in done.stderr
    assert "archive" not in done.stderr
    assert "emula" not in done.stderr


@pytest.mark.parametrize("config", [AMD64, V3], ids=["amd64", "v3"])
def test_a_variant_listed_only_in_the_index_is_identified(
    lab: Lab, load_into_docker: LoadIntoDocker, node: Node, config: dict[str, str]
) -> None:
    """It is identified before the transfer, so that the second load sends nothing."""
    made = load_into_docker(Listed(unique(), compression="gzip", platform=config, listed=V3))
    first, _ = load(lab, made)
    second, _ = load(lab, made, platform="linux/amd64/v3")
    assert [str(image.platform) for image in (first, second)] == ["linux/amd64/v3"] * 2
    assert [image.nodes[0].action for image in (first, second)] == ["full", "present"]
    assert cri_id(node, f"docker.io/library/{made.name}") == made.image_id
    with pytest.raises(PlatformMissing, match="is for linux/amd64/v3, not linux/amd64"):
        load(lab, made, platform="linux/amd64")
