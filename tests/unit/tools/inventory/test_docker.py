"""Inventories of nodes with Docker, from recorded, damaged and hostile answers."""

from __future__ import annotations

import pytest

from imgload.clusters.nodes.batch import Output
from imgload.core.errors import NodeUnusable
from imgload.oci.digest import Digest
from imgload.tools.inventory.base import Inventory
from imgload.tools.inventory.docker import read_inventory
from tests.unit.bounds import within
from tests.unit.recordings import DOCKER_VERSIONS, recorded_docker

PARTS = ("used", "sizes", "times", "labels", "images")
NOTHING = Output(0, b"")


def inventory(version: str, **answers: Output) -> Inventory:
    """Parse the recorded answers of a version; `answers` replace some of them."""
    return read_inventory(*(answers.get(part, recorded_docker(version, part)) for part in PARTS))


@pytest.mark.parametrize("version", DOCKER_VERSIONS)
def test_recorded_answers_have_sizes_labels_and_uses(version: str) -> None:
    """Both images share a layer of 400 bytes; a container uses the lower one's image."""
    base, app = sorted(inventory(version).images, key=lambda image: image.size)
    assert (base.size, base.own_size, base.in_use) == (400, 0, True)
    assert (app.size, app.own_size, app.in_use) == (700, 300, False)
    assert app.names == ("docker.io/library/rec-app:v1", "registry.example:5000/team/app:v1")
    assert app.loaded_as == ("docker.io/library/rec-app:v1",)
    assert app.since
    assert app.arrived
    assert app.created
    assert abs(app.since - app.arrived) < 60
    assert app.created < app.since


@pytest.mark.parametrize("version", DOCKER_VERSIONS)
def test_an_absent_file_is_not_an_error(version: str) -> None:
    """grep and stat fail if nothing was loaded, or if Docker has other files by now."""
    failed = Output(1, b"")
    found = inventory(version, sizes=failed, times=failed, labels=failed)
    assert {(i.size, i.since, i.arrived, i.loaded_as) for i in found.images} == {
        (0, None, None, ())
    }


def test_failures_of_docker_are_reported() -> None:
    """An image must not look unused because Docker does not list its containers."""
    down = Output(1, b"Cannot connect to the Docker daemon")
    with pytest.raises(NodeUnusable, match="does not list its containers: Cannot connect"):
        inventory("28.5", used=down)
    with pytest.raises(NodeUnusable, match="does not list its images: Cannot connect"):
        inventory("28.5", images=down)


DAMAGED = (
    b"\xff\x00\x1b[2J",
    b"../../etc/passwd/size:9\n",
    b"A" * 64 + b"/size:5\n",
    b"a" * 64 + b"/size:-5\n",
    b"a" * 64 + b"/size:" + b"9" * 5000 + b"\n",
    b"a" * 64 + b" " + b"9" * 5000 + b"\n",
    b"a" * 64 + b":" + b"9" * 5000 + b" name\n",
    b"a" * 64 + b":1.5 " + b"n" * 5000 + b"\n",
    b"sha256:" + b"a" * 63 + b"\n",
)


@pytest.mark.parametrize("part", PARTS)
@pytest.mark.parametrize("damaged", DAMAGED)
def test_damaged_lines_are_skipped(part: str, damaged: bytes) -> None:
    """The result is that of the other lines."""
    recorded = recorded_docker("28.5", part)
    both = Output(0, damaged.rstrip() + b"\n" + recorded.stdout)
    assert inventory("28.5", **{part: both}) == inventory("28.5")


def test_labels_of_an_image_without_names_are_its_names() -> None:
    """As of a build whose name has moved on to the next one; the last label counts."""
    image_id = Digest.of(b"image")
    listed = Output(0, f'{{"id":"{image_id}","tags":null,"digests":null}}'.encode())
    labels = Output(0, f"{image_id.hex}:1.5 app:v1\n{image_id.hex}:2.5 app:v2\n".encode())
    [image] = read_inventory(NOTHING, NOTHING, NOTHING, labels, listed).images
    assert (image.names, image.loaded_as, image.since) == ((), ("app:v1", "app:v2"), 2.5)
    assert (image.size, image.created, image.items) == (0, None, frozenset())


@pytest.mark.parametrize("created", ["5", '""', '"yesterday"', '"9999-99-99"', "null", "[]"])
def test_an_unknown_time_of_creation_is_none(created: str) -> None:
    listed = f'{{"id":"{Digest.of(b"image")}","created":{created}}}'.encode()
    empty = (NOTHING,) * 4
    [image] = read_inventory(*empty, Output(0, listed)).images
    assert image.created is None


def test_large_answers_are_parsed_in_seconds() -> None:
    """Ten thousand labels and sizes; lines that nearly match are not tried again and again."""
    digests = [Digest.of(b"%d" % n).hex for n in range(10_000)]
    sizes = "".join(f"{name}/size:5\n" for name in digests) + "a" * 1_000_000
    labels = "".join(f"{name}:1.5 app:v1\n" for name in digests) + f"{'a' * 64}:1.5 " * 10_000
    with within(10):
        found = inventory(
            "28.5", sizes=Output(0, sizes.encode()), labels=Output(0, labels.encode())
        )
    assert {image.size for image in found.images} == {0}
