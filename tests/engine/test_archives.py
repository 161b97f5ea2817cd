"""Several images in one archive, and images whose IDs have a common prefix."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from pathlib import Path

import pytest

import imgload
from imgload.core.errors import ImageError
from tests.engine.conftest import cri_id, forget, records, unique
from tests.engine.kinds import Made, layer, new, old
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
