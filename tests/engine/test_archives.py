"""Several images in one archive, IDs with a common prefix, compressed layers, folders of links."""

from __future__ import annotations

import itertools
import json
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Literal

import pytest

import imgload
from imgload.core.compression import Compression
from imgload.core.errors import ImageError, ImportFailed, SourceError
from imgload.loader.events import Note
from imgload.oci.digest import Digest
from imgload.oci.document import IMAGE_NAME
from tests.engine.conftest import cri_id, forget, records, unique
from tests.engine.kinds import Made, layer, new, oci, old
from tests.engine.peers import snapshots
from tests.lab import Lab, Node
from tests.unit import archives
from tests.unit.archives import (
    Entry,
    Image,
    Json,
    artifact,
    blob,
    encode,
    layout,
    listed,
    named,
    pack,
    signature,
)

CLUSTER = "lab-d21"
DIGEST = str(Digest.of(b"no manifest"))


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


def odd_archive(good: Made, sized: Made, hybrid: Made, bare: Made, *damaged: Made) -> bytes:
    """Return an archive of images beside other content, damaged images and impossible names."""
    wrong_size = json.loads(sized.manifest)
    wrong_size["layers"][0]["size"] += 5
    no_layers = json.loads(hybrid.manifest) | {"layers": []}
    raws = [encode(wrong_size), encode(no_layers)]
    entries: list[tuple[Json, list[Entry]]] = [
        signature(),
        artifact(),
        listed(raws[0], name=sized.name),
        listed(raws[1], name=hybrid.name),
        ({**bare.entry, "annotations": {IMAGE_NAME: "moby-dangling@" + DIGEST}}, bare.members),
    ]
    for image in (good, *damaged):
        notes = {"annotations": {IMAGE_NAME: image.name}}
        entries.append(({**image.entry, **notes}, image.members))
    listing = dict(new([hybrid]))["manifest.json"]
    members = dict([*layout(*entries), *sized.members, *hybrid.members])
    corrupt, incomplete = damaged
    path = blob(corrupt.layers[1])[0]
    members[path] = bytes(len(members[path]))
    del members[blob(incomplete.config)[0]]
    return pack([*members.items(), ("manifest.json", listing)])


@pytest.mark.parametrize("transport", ["pull", "import"])
def test_one_bad_entry_does_not_fail_the_others(
    node: Node, tmp_path: Path, transport: Literal["pull", "import"]
) -> None:
    """Signatures, artifacts and impossible names are noted; damaged images are exit status 6."""
    made = [Made(unique(name)) for name in ("good", "sized", "hybrid", "bare", "bad", "worse")]
    path, notes = tmp_path / "images.tar", list[str]()
    path.write_bytes(odd_archive(*made))
    good, damaged = made[:3], made[4:]

    def on_event(event: object) -> None:
        notes.extend([event.text] if isinstance(event, Note) else [])

    with pytest.raises(imgload.LoadFailed) as caught:
        imgload.load([], cluster=CLUSTER, source=str(path), transport=transport, on_event=on_event)
    assert caught.value.exit_status == 6
    results = {image.reference: image.nodes[0] for image in caught.value.report.images}
    failed = {name for name, result in results.items() if not result.ok}
    assert failed == {f"docker.io/library/{image.name}" for image in damaged}
    assert all(isinstance(results[name].error, SourceError) for name in failed)
    for image in good:
        assert cri_id(node, f"docker.io/library/{image.name}") == image.image_id
    assert results[made[3].image_id].ok
    for text in ("1 signature, 1 artifact", "moby-dangling", "--tag", made[1].name, made[2].name):
        assert any(text in note for note in notes), text
    assert imgload.load([good[0].name], cluster=CLUSTER, source=str(path)).ok


class OneBlob(Image):
    """An image whose manifest has the blob of its first layer for all of them."""

    @property
    def blobs(self) -> tuple[bytes, ...]:
        return super().blobs[:1] * len(self.layers)


def test_an_image_that_the_node_refuses_does_not_fail_the_others(
    node: Node, tmp_path: Path
) -> None:
    """Only containerd knows the diff ID of a compressed layer; its import stops there."""
    good, bad = (f"docker.io/library/{unique(name)}" for name in ("good", "bad"))
    images = [
        Image(name=good, gzipped=True),
        OneBlob((archives.layer(bad), archives.layer(good)), bad, gzipped=True),
    ]
    path = tmp_path / "images"
    path.write_bytes(pack(layout(*map(named, images))))
    with pytest.raises(imgload.LoadFailed) as caught:
        imgload.load([], cluster=CLUSTER, source=str(path))
    errors = {image.reference: image.nodes[0].error for image in caught.value.report.images}
    assert errors[good] is None
    assert isinstance(errors[bad], ImportFailed)
    assert cri_id(node, good) == str(images[0].image_id)
    assert cri_id(node, bad) is None


@pytest.mark.parametrize("form", [oci, old])
def test_layers_may_be_absent_if_the_node_has_them(
    node: Node, tmp_path: Path, form: Callable[[Sequence[Made]], list[Entry]]
) -> None:
    """`pack --sparse` writes no layers of the run image (pack #1596)."""
    base = Made(unique("base"), (layer("base.txt"),), "gzip")
    app = Made(unique("app"), (*base.layers, layer()), "gzip")
    sparse = [member for member in form([app]) if member[1] != base.blobs[0]]
    paths = [tmp_path / "base.tar", tmp_path / "app.tar"]
    for path, members in zip(paths, (form([base]), sparse), strict=True):
        path.write_bytes(pack(members))
    with pytest.raises(SourceError) as caught:
        imgload.load([], cluster=CLUSTER, source=str(paths[1]))
    assert str(base.diff_ids[0]) in caught.value.message
    assert node.name in caught.value.message
    assert cri_id(node, f"docker.io/library/{app.name}") is None
    imgload.load([], cluster=CLUSTER, source=str(paths[0]))
    assert imgload.load([], cluster=CLUSTER, source=str(paths[1])).ok
    assert cri_id(node, f"docker.io/library/{app.name}") == app.image_id


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
