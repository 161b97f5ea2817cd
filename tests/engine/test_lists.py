"""Podman's manifest lists: one name for the images of several platforms."""

from __future__ import annotations

import secrets
from collections.abc import Iterator
from pathlib import Path

import attrs
import pytest

import imgload
from imgload.core.errors import ImageIncomplete, PlatformMissing
from imgload.engines.temporary_tags import note_temporary_name, stale_names
from tests.engine.conftest import Images, cri_id, forget, unique
from tests.engine.test_watch import watching
from tests.lab import Lab, Node
from tests.lab.engine import Engine

CLUSTER = "lab-d21"


@attrs.frozen
class Listed:
    """A manifest list in Podman, and the image IDs in it by platform."""

    engine: Engine
    name: str
    folder: Path
    image_ids: dict[str, str] = attrs.field(factory=dict)

    @property
    def full(self) -> str:
        return f"docker.io/library/{self.name}"

    @property
    def list_id(self) -> str:
        """The list's own ID in Podman; from 5 on, Podman also shows its images."""
        format_ = ("--no-trunc", "--format", "{{.Id}}")
        shown = self.engine.cli("images", *format_, f"localhost/{self.name}").split()
        ids = {f"sha256:{line.removeprefix('sha256:')}" for line in shown}
        [own] = ids - set(self.image_ids.values())
        return own

    def build(self, *platforms: str) -> None:
        """Build an image for each platform into the list."""
        (self.folder / "Dockerfile").write_text("FROM scratch\nCOPY app /\n")
        for platform in platforms:
            (self.folder / "app").write_text(f"{self.name} {platform}")
            options = ("--platform", platform, "--manifest", f"localhost/{self.name}")
            image = self.engine.cli(
                "build", "-q", *options, *self.engine.build_options, self.folder
            )
            self.image_ids[platform] = f"sha256:{image.split()[-1]}"

    def clear(self) -> None:
        self.engine.cli("manifest", "rm", f"localhost/{self.name}")
        self.engine.remove_image(*self.image_ids.values())


@pytest.fixture
def node(lab: Lab) -> Node:
    return lab.cluster(CLUSTER).nodes[0]


@pytest.fixture(params=["podman", pytest.param("podman58", marks=pytest.mark.long)])
def listed(
    lab: Lab, tmp_path: Path, node: Node, request: pytest.FixtureRequest
) -> Iterator[Listed]:
    made = Listed(lab.engine(request.param), unique("list"), tmp_path)
    yield made
    made.clear()
    forget(node, made.full)


def load(listed: Listed, text: str = "", platform: str | None = None) -> imgload.Report:
    """Load a list, and verify it."""
    texts, source = [text or listed.name], listed.engine.url
    imgload.load(texts, cluster=CLUSTER, source=source, platform=platform)
    return imgload.verify(texts, cluster=CLUSTER, source=source, platform=platform)


def test_a_load_selects_the_nodes_platform_from_a_list(listed: Listed, node: Node) -> None:
    """By each of its names and by its ID; or the requested platform."""
    listed.build("linux/amd64", "linux/arm64")
    for text in (listed.name, f"localhost/{listed.name}", listed.list_id, listed.list_id[7:19]):
        [image] = load(listed, text).images
        assert str(image.image_id) == listed.image_ids["linux/amd64"]
        assert cri_id(node, image.reference) == listed.image_ids["linux/amd64"]
        forget(node, image.reference)
    [image] = load(listed, platform="linux/arm64").images
    assert cri_id(node, listed.full) == listed.image_ids["linux/arm64"]
    with pytest.raises(PlatformMissing):
        load(listed, platform="linux/s390x")


def test_a_list_without_the_nodes_platform_is_loaded(listed: Listed, node: Node) -> None:
    """Podman itself finds no image under the name; the nodes may run it with emulation."""
    listed.build("linux/arm64")
    [image] = load(listed).images
    assert str(image.image_id) == cri_id(node, listed.full) == listed.image_ids["linux/arm64"]
    with pytest.raises(PlatformMissing):
        load(listed, platform="linux/amd64")


def test_a_listed_image_missing_from_the_store_is_refused(listed: Listed) -> None:
    """The other image of the list can still be loaded."""
    listed.build("linux/amd64", "linux/arm64")
    listed.engine.remove_image(listed.image_ids.pop("linux/arm64"))
    with pytest.raises(ImageIncomplete) as refused:
        load(listed, platform="linux/arm64")
    assert "linux/amd64 is available" in refused.value.message
    assert load(listed).ok


def test_the_config_decides_the_platform_of_a_listed_image(listed: Listed, node: Node) -> None:
    """Buildah may list a cached image under a wrong platform."""
    listed.build("linux/amd64")
    image = listed.image_ids["linux/amd64"].removeprefix("sha256:")
    listed.engine.cli("manifest", "rm", f"localhost/{listed.name}")
    listed.engine.cli("manifest", "create", f"localhost/{listed.name}")
    source = f"containers-storage:{image}"
    listed.engine.cli("manifest", "add", "--arch=arm64", f"localhost/{listed.name}", source)
    assert load(listed).ok
    assert cri_id(node, listed.full) == listed.image_ids["linux/amd64"]
    with pytest.raises(PlatformMissing):
        load(listed, platform="linux/arm64")


def test_a_list_and_an_image_are_loaded_together(
    listed: Listed, node: Node, images: Images
) -> None:
    """One image of the list also has its own name."""
    listed.build("linux/amd64")
    other, own = unique("other"), unique("own")
    images.build(listed.engine, other)
    listed.engine.cli("tag", listed.image_ids["linux/amd64"], own)
    texts = [listed.name, other, own]
    imgload.load(texts, cluster=CLUSTER, source=listed.engine.url)
    names = [f"docker.io/library/{text}" for text in texts]
    ids = [listed.image_ids["linux/amd64"], listed.engine.image_id(other)]
    assert [cri_id(node, name) for name in names] == [*ids, ids[0]]
    forget(node, *names[1:])


def test_a_watch_loads_a_built_list(listed: Listed, node: Node) -> None:
    with watching(listed.name, "-c", CLUSTER, "--from", listed.engine.url) as watcher:
        listed.build("linux/amd64")
        document = watcher.loaded()
        assert document["ok"], document
        assert cri_id(node, listed.full) == listed.image_ids["linux/amd64"]


def test_the_next_run_removes_the_list_of_a_killed_run(lab: Lab) -> None:
    """Skaffold's images for several platforms are pushed as one list."""
    listed = f"localhost/imgload-{secrets.token_hex(8)}"
    note = note_temporary_name(lab.podman.url, listed)
    assert note
    note.release()
    lab.podman.cli("manifest", "create", listed)
    assert listed in lab.podman.cli("images")
    imgload.find_clusters()
    assert listed not in lab.podman.cli("images")
    assert list(stale_names([lab.podman.url])) == []
