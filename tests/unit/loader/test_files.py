"""The files of verified images are compared with the layers of their sources."""

from __future__ import annotations

import gzip
import stat
from pathlib import Path

import attrs
import pytest

from imgload.clusters.nodes.files import FileList
from imgload.clusters.nodes.node import Node
from imgload.clusters.nodes.proof import Proof
from imgload.core.errors import ArchiveInvalid, DigestMismatch, NotVerified, SourceError
from imgload.loader.files import FileCheck
from imgload.loader.report import NodeResult
from imgload.oci.document import IMAGE_NAME
from imgload.oci.tree import File, Listed
from imgload.sources.archive import ArchiveSource
from imgload.sources.base import Image
from tests.unit import archives
from tests.unit.archives import Entry, pack
from tests.unit.clusters.nodes.test_node import node_on
from tests.unit.samples import holding

VERIFIED = Proof(name=True, image_id=True, diff_ids=True, unpacked=True, cri=True)
FILE = Listed(b"/app.txt", File(stat.S_IFREG | 0o644, size=3), 1)
GOOD, OTHER = archives.Image(), archives.Image((archives.layer("abc"),), "other:v1")


def images_of(tmp_path: Path, members: list[Entry]) -> list[Image]:
    (path := tmp_path / "images.tar").write_bytes(pack(members))
    images = ArchiveSource(str(path)).all_images(None)
    return [attrs.evolve(image, name=image.names[0]) for image in images]


def compared(tmp_path: Path, *images: Image) -> list[NodeResult]:
    """Return the results for a node that has one file."""
    node = node_on(tmp_path)
    result = NodeResult(node.name, "present", VERIFIED)
    check = FileCheck({node.name: node}, {node.name: holding()})
    results = dict(check.run([(image, result) for image in images]))
    return [results[image] for image in images]


@pytest.fixture(autouse=True)
def files(monkeypatch: pytest.MonkeyPatch) -> None:
    """The node has the files of each image whose top layer is `layer("app")` or `layer("abc")`."""
    monkeypatch.setattr(Node, "list_files", lambda *_, **__: FileList([FILE], has_devices=True))


@pytest.mark.parametrize("form", list(archives.FORMS))
@pytest.mark.parametrize("gzipped", [False, True])
def test_equal_files_are_verified(tmp_path: Path, form: str, gzipped: bool) -> None:  # noqa: FBT001
    members = archives.FORMS[form](attrs.evolve(GOOD, gzipped=gzipped), OTHER)
    results = compared(tmp_path, *images_of(tmp_path, members))
    assert all(result.ok for result in results)
    assert [result.proof.files for result in results if result.proof] == [True, True]


def test_other_files_are_not_verified(tmp_path: Path) -> None:
    longer = archives.Image((archives.layer("longer"),))
    [result] = compared(tmp_path, *images_of(tmp_path, archives.oci(longer)))
    assert not result.ok
    assert result.proof
    assert result.proof.files is False
    assert isinstance(result.error, NotVerified)
    assert f"images rm --sync {archives.NAME} {longer.image_id}" in result.error.hint


def test_a_failed_result_stays(tmp_path: Path) -> None:
    [image] = images_of(tmp_path, archives.oci(GOOD))
    failed = NodeResult("n", "full", error=NotVerified("failed"))
    assert list(FileCheck({}, {}).run([(image, failed)])) == []


def damaged(image: archives.Image, raw: bytes) -> list[Entry]:
    """Return the archive of an image with another top layer of the same length."""
    path, blob = archives.blob(image.blobs[-1])
    return [(p, raw.ljust(len(blob), b"\0") if p == path else c) for p, c in archives.oci(image)]


@pytest.mark.parametrize(
    ("members", "error"),
    [
        (damaged(GOOD, GOOD.layers[0]), DigestMismatch),
        (damaged(attrs.evolve(GOOD, gzipped=True), gzip.compress(b"")[:12]), DigestMismatch),
        (archives.oci(archives.Image((b"no tar" * 100,))), ArchiveInvalid),
        ([m for m in archives.oci(GOOD) if m != archives.blob(GOOD.blobs[0])], SourceError),
    ],
)
def test_a_source_that_cannot_be_read_is_an_error(
    tmp_path: Path, members: list[Entry], error: type[SourceError]
) -> None:
    """The other image of the archive is compared."""
    both = dict([*archives.oci(OTHER), *members])
    tops = [{**image.entry, "annotations": {IMAGE_NAME: image.name}} for image in (OTHER,)]
    both["index.json"] = archives.index(
        *tops, *archives.Layout.read(pack(members)).index["manifests"]
    )
    images = {image.name: image for image in images_of(tmp_path, list(both.items()))}
    good, bad = compared(tmp_path, *(images[name] for name in sorted(images, reverse=True)))
    assert good.ok
    assert isinstance(bad.error, error)
    assert not bad.ok
