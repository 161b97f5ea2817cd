"""Several images in one archive, IDs with a common prefix, compressed layers, folders of links."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from pathlib import Path
from typing import Literal

import pytest

import imgload
from imgload.core.compression import Compression
from imgload.core.errors import ImageError
from tests.engine.conftest import cri_id, forget, records, unique
from tests.engine.kinds import Made, layer, new, oci, old
from tests.engine.peers import snapshots
from tests.lab import Lab, Node
from tests.unit.archives import pack

CLUSTER = "lab-d21"


@pytest.fixture
def node(lab: Lab) -> Iterator[Node]:
    """A node; images that a test loads are removed at the end."""
    target = lab.cluster(CLUSTER).nodes[0]
    before = records(target)
    yield target
    forget(target, *(records(target) - before))


@pytest.mark.parametrize("form", [old, new])
def test_an_archive_with_several_images_loads_selected_or_all(
    node: Node, tmp_path: Path, form: type
) -> None:
    """The requested names and IDs; without any, all images."""
    made, path = [Made(unique(name)) for name in ("one", "two", "three")], tmp_path / "images"
    path.write_bytes(pack(form(made)))
    names = [f"docker.io/library/{image.name}" for image in made]
    before = records(node)
    imgload.load([made[0].name, made[2].image_id], cluster=CLUSTER, source=str(path))
    assert records(node) - before == {names[0], names[2]}
    report = imgload.load([], cluster=CLUSTER, source=str(path))
    assert [image.nodes[0].action for image in report.images] == ["present", "full", "present"]
    assert [cri_id(node, name) for name in names] == [image.image_id for image in made]


@pytest.mark.parametrize(("form", "transport"), [("bzip2", "pull"), ("xz", "import")])
def test_layers_in_bzip2_or_xz_are_unpacked(
    lab: Lab, node: Node, tmp_path: Path, form: Compression, transport: Literal["pull", "import"]
) -> None:
    """Docker loads such an archive, and containerd does not."""
    made, path = Made(unique(), compression=form), tmp_path / "images"
    path.write_bytes(pack(old([made])))
    lab.docker.cli("load", "--input", path)
    lab.docker.cli("rmi", "--force", made.name)
    report = imgload.load([], cluster=CLUSTER, source=str(path), transport=transport)
    assert report.images[0].nodes[0].transport == transport
    assert cri_id(node, f"docker.io/library/{made.name}") == made.image_id
    assert made.chain_id in snapshots(node)
    checked = node.ctr("images", "check", f"name=={report.images[0].reference}")
    assert "complete (3/3)" in checked


def test_a_folder_of_links_is_loaded(node: Node, tmp_path: Path) -> None:
    """Bazel's; kind and ctr take no folder."""
    made = Made(unique(), compression="gzip")
    for name, content in oci([made]):
        assert isinstance(content, bytes)
        stored, linked = tmp_path / "cache" / name, tmp_path / "layout" / name
        for path in (stored, linked):
            path.parent.mkdir(parents=True, exist_ok=True)
        stored.write_bytes(content)
        linked.symlink_to(stored)
    folder = str(tmp_path / "layout")
    with pytest.raises(imgload.ImgloadError) as refused:
        imgload.load([], cluster=CLUSTER, source=folder)
    assert refused.value.exit_status == 6
    assert f"--follow-links --from {folder}" in refused.value.hint
    imgload.load([], cluster=CLUSTER, source=folder, follow_links=True)
    assert cri_id(node, f"docker.io/library/{made.name}") == made.image_id


def images_with_common_prefix() -> tuple[str, Made, Made]:
    """Return two images, and the five digits with which both IDs begin."""
    seen: dict[str, Made] = {}
    content = (layer(),)
    for number in itertools.count():
        image = Made(unique(), content, label=str(number))
        digits = image.image_id.removeprefix("sha256:")[:5]
        if digits in seen:
            return digits, seen[digits], image
        seen[digits] = image
    raise AssertionError


@pytest.mark.parametrize("source", ["docker", "podman", "archive"])
def test_short_ids_with_a_common_prefix_are_not_confused(
    lab: Lab, node: Node, tmp_path: Path, source: str
) -> None:
    """Twelve digits select the right image; the common prefix is ambiguous."""
    digits, *made = images_with_common_prefix()
    path, content = tmp_path / "images", pack(new(made))
    path.write_bytes(content)
    engine = None if source == "archive" else lab.engine(source)
    origin = engine.url if engine else str(path)
    if engine:
        engine.cli("load", stdin=content)
    texts = [image.image_id.removeprefix("sha256:")[:12] for image in made]
    imgload.load(texts, cluster=CLUSTER, source=origin)
    for image in made:
        assert cri_id(node, f"docker.io/library/{image.name}") == image.image_id
    with pytest.raises(ImageError) as refused:
        imgload.load(digits, cluster=CLUSTER, source=origin)
    assert refused.value.exit_status == 3
    if engine:
        engine.cli("rmi", "--force", *(image.name for image in made))
