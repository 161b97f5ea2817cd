"""Which image is planned for which nodes, on nodes that are this machine."""

from __future__ import annotations

from contextlib import nullcontext
from pathlib import Path

import pytest

from imgload.clusters.nodes.base import NodeRuntime
from imgload.clusters.nodes.node import Node
from imgload.core.errors import ImageIncomplete, PlatformMissing, UsageError
from imgload.loader.events import Event, Note
from imgload.loader.loader import Loader
from imgload.oci.document import IMAGE_NAME, INDEX
from imgload.sources.archive import ArchiveSource
from tests.unit.archives import Image, blob, descriptor, index, layer, oci, pack, podman
from tests.unit.clusters.nodes.test_node import node_on

AMD, ARM, RISCV = (
    Image((layer(name),), platform=f"linux/{name}") for name in ("amd64", "arm64", "riscv64")
)


def loader(folder: Path, machine: str, *present: Image, listed: tuple[Image, ...] = ()) -> Loader:
    """Return a loader of an archive with one image, onto a node that calls itself so."""
    inner = index(*(image.entry for image in listed or present))
    members = [member for image in present for member in image.members]
    top = {**descriptor(inner, INDEX), "annotations": {IMAGE_NAME: "app:v1"}}
    files = [*members, blob(inner), ("index.json", index(top))]
    (folder / "app.tar").write_bytes(pack(files if listed else oci(*present)))
    return Loader([ArchiveSource(str(folder / "app.tar"))], [node_on(folder, uname=machine)])


class Emulating(Node):
    """A node with given emulators; None if they cannot be read."""

    emulated: frozenset[str] | None = None

    def emulated_architectures(self) -> frozenset[str] | None:
        return self.emulated


def emulating(node: NodeRuntime, emulated: frozenset[str] | None) -> Emulating:
    made = Emulating(node.name, node.engine, node.container)
    made.emulated = emulated
    return made


def planned(made: Loader, platform: str | None = None) -> tuple[Image, list[str]]:
    """Return the image of a dry run, and the texts of the notes."""
    events: list[Event] = []
    [image] = made.load([], dry_run=True, platform=platform, on_event=events.append).images
    by_id = {known.image_id: known for known in (AMD, ARM, RISCV)}
    assert image.image_id is not None
    return by_id[image.image_id], [e.text for e in events if isinstance(e, Note)]


@pytest.mark.parametrize(
    ("machine", "image"), [("echo x86_64", AMD), ("echo aarch64", ARM), ("echo riscv64", RISCV)]
)
def test_load_selects_the_platform_of_the_nodes(tmp_path: Path, machine: str, image: Image) -> None:
    """The platform of this machine does not matter."""
    listed = (ARM, RISCV, AMD)
    assert planned(loader(tmp_path, machine, *listed, listed=listed)) == (image, [])


def test_a_given_platform_overrides_that_of_the_nodes_with_a_warning(tmp_path: Path) -> None:
    """The warning names the node."""
    listed = (ARM, RISCV, AMD)
    image, [note] = planned(loader(tmp_path, "echo x86_64", *listed, listed=listed), "linux/arm64")
    assert image == ARM
    assert "is a linux/arm64 image, and kind-control-plane is linux/amd64: " in note
    assert "exec format error" in note


def test_one_warning_names_all_nodes_of_a_platform(tmp_path: Path) -> None:
    made = loader(tmp_path, "echo x86_64", ARM)
    [first] = made.nodes
    made.nodes = [first, Node("kind-worker", first.engine, first.container)]
    _, [note] = planned(made)
    assert "and kind-control-plane is linux/amd64: " in note
    assert note.endswith(" (and on kind-worker)")


def test_an_image_only_for_another_platform_is_loaded_with_a_warning(tmp_path: Path) -> None:
    image, [note] = planned(loader(tmp_path, "echo x86_64", ARM))
    assert image == ARM
    assert "is a linux/arm64 image" in note


@pytest.mark.parametrize(
    ("emulated", "words"),
    [
        (frozenset({"arm64"}), "it runs with emulation"),
        (frozenset({"riscv64"}), "without an emulator, its containers fail"),
        (None, "unless it has an emulator, its containers fail"),
    ],
)
def test_the_warning_depends_on_the_emulators_of_the_node(
    tmp_path: Path, emulated: frozenset[str] | None, words: str
) -> None:
    """Strict loads and loads in CI refuse an image that the node is not known to run."""
    made, events = loader(tmp_path, "echo x86_64", ARM), list[Event]()
    made.nodes = [emulating(made.nodes[0], emulated)]
    made.load([], dry_run=True, on_event=events.append)
    [note] = [event for event in events if isinstance(event, Note)]
    assert words in note.text
    runs = emulated is not None and "arm64" in emulated
    assert note.is_warning != runs
    with nullcontext() if runs else pytest.raises(PlatformMissing, match=words) as refused:
        made.load([], dry_run=True, strict_platform=True)
    if refused:
        assert refused.value.exit_status == 6
        assert "--no-strict-platform" in refused.value.hint


def test_ci_refuses_an_image_that_no_node_can_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """`strict_platform` overrides that."""
    monkeypatch.setenv("CI", "true")
    made = loader(tmp_path, "echo x86_64", ARM)
    made.nodes = [emulating(made.nodes[0], frozenset())]
    with pytest.raises(PlatformMissing):
        made.load([], dry_run=True)
    assert made.load([], dry_run=True, strict_platform=False).ok


def test_a_listed_platform_without_content_is_an_error(tmp_path: Path) -> None:
    """The index lists the node's platform, but the archive lacks it (kind #3795)."""
    made = loader(tmp_path, "echo x86_64", ARM, listed=(AMD, ARM))
    with pytest.raises(ImageIncomplete, match="linux/amd64"):
        planned(made)
    assert planned(made, "linux/arm64")[0] == ARM


@pytest.mark.parametrize("verify", [False, True])
def test_a_loader_without_sources_or_nodes_is_wrong_usage(tmp_path: Path, *, verify: bool) -> None:
    """It has loaded nothing, which must not look like a success."""
    path = tmp_path / "app.tar"
    path.write_bytes(pack(podman(Image((layer("a"),), "app:v1"))))
    archive, node = ArchiveSource(str(path)), node_on(tmp_path)
    for loader, images, lacking in (
        (Loader([], []), "app:v1", "source"),
        (Loader([], [node]), (), "source"),
        (Loader([], [node], archives=[archive]), "app:v1", "source"),
        (Loader([archive], []), "app:v1", "nodes"),
    ):
        with pytest.raises(UsageError, match=f"has no {lacking}") as caught:
            loader.verify(images) if verify else loader.load(images)
        assert "imgload." in caught.value.hint


def test_transport_delta_refuses_an_archive(tmp_path: Path) -> None:
    """imgload does not silently select another transport."""
    with pytest.raises(UsageError, match=r"app\.tar cannot push") as refused:
        loader(tmp_path, "echo x86_64", AMD).load([], transport="delta")
    assert "--transport" in refused.value.hint


def test_a_localhost_name_of_an_archive_gets_a_note(tmp_path: Path) -> None:
    """Only if the archive's own names are used, not with a requested name."""
    image = Image(name="localhost/app:dev")
    (tmp_path / "app.tar").write_bytes(pack(podman(image)))
    events: list[Event] = []
    made = Loader([ArchiveSource(str(tmp_path / "app.tar"))], [node_on(tmp_path)])
    made.load([], dry_run=True, on_event=events.append)
    [note] = [event.text for event in events if isinstance(event, Note)]
    assert "imgload load app:dev --from" in note
    events.clear()
    [planned_image] = made.load(["app:dev"], dry_run=True, on_event=events.append).images
    assert planned_image.reference == "docker.io/library/app:dev"
    assert not any(isinstance(event, Note) for event in events)
