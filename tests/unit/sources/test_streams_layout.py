"""An OCI layout folder, read as a tar stream."""

import io
import os
import tarfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from imgload.core.errors import ArchiveInvalid, UsageError
from imgload.loader.session import Session
from imgload.oci.catalogue import scan
from imgload.oci.digest import Digest
from imgload.oci.document import CONFIG, LAYER, MANIFEST
from imgload.sources.archive import ArchiveSource
from imgload.sources.streams import LayoutFolder
from tests.unit.archives import Entry, Image, encode, index, oci
from tests.unit.bounds import memory_below, within

IMAGE = Image()
BLOB = f"blobs/sha256/{Digest.of(IMAGE.layers[0]).hex}"


def folder_of(folder: Path, entries: list[Entry]) -> Path:
    for path, content in entries:
        assert isinstance(content, bytes)
        (folder / path).parent.mkdir(parents=True, exist_ok=True)
        (folder / path).write_bytes(content)
    return folder


@pytest.fixture
def layout(tmp_path: Path) -> Path:
    """Return a layout folder with one image."""
    return folder_of(tmp_path, oci(IMAGE))


def members(folder: Path) -> dict[str, bytes]:
    """Return the stream's members as tarfile reads them."""
    data = b"".join(LayoutFolder(folder))
    with tarfile.open(fileobj=io.BytesIO(data)) as archive:
        files = [(member, archive.extractfile(member)) for member in archive]
        assert all(member.isreg() and file for member, file in files)
        return {member.name: file.read() for member, file in files if file}


def test_a_layout_becomes_one_archive(layout: Path) -> None:
    """Every byte of it, as tar itself reads it."""
    assert members(layout) == dict(oci(IMAGE))


@pytest.mark.parametrize("images", [(IMAGE,), (IMAGE, Image((), "db:v1")), ()])
def test_its_images_are_found(tmp_path: Path, images: tuple[Image, ...]) -> None:
    """As in an OCI archive."""
    found = scan(LayoutFolder(folder_of(tmp_path, oci(*images)))).images
    assert [i.config.digest for i in found] == [i.image_id for i in images]


def test_what_is_no_part_of_it_is_left_out(layout: Path) -> None:
    """Notes, BuildKit's ingest folder, a file manager's droppings; also among the blobs."""
    strange = ["notes.txt", "ingest/x", "blobs/README", ".DS_Store", "blobs/sha256/.DS_Store"]
    folder_of(layout, [(path, b"x") for path in strange])
    assert members(layout) == dict(oci(IMAGE))


@pytest.mark.parametrize("path", ["", "sub", "index.json"])
def test_a_folder_that_is_no_layout_says_so(tmp_path: Path, path: str) -> None:
    """With the command that makes one; a folder called index.json is none either."""
    (tmp_path / path).mkdir(exist_ok=True)
    with pytest.raises(ArchiveInvalid) as caught:
        ArchiveSource(str(tmp_path)).all_images(None)
    assert caught.value.message == f"{tmp_path}: not an OCI layout: it has no index.json"
    assert "skopeo copy" in caught.value.hint


@pytest.mark.parametrize("path", ["index.json", "oci-layout", BLOB])
def test_a_link_is_not_followed(
    layout: Path, tmp_path_factory: pytest.TempPathFactory, path: str
) -> None:
    """A layout from elsewhere could send any file of this machine into the cluster."""
    outside = tmp_path_factory.mktemp("outside") / "secret"
    (layout / path).rename(outside)
    (layout / path).symlink_to(outside)
    with pytest.raises(ArchiveInvalid, match="cannot read"):
        list(LayoutFolder(layout))


def test_a_folder_in_a_blobs_place_is_refused(layout: Path) -> None:
    """It has no content."""
    (layout / BLOB).unlink()
    (layout / BLOB).mkdir()
    with pytest.raises(ArchiveInvalid, match="cannot read"):
        list(LayoutFolder(layout))


def test_a_pipe_in_a_blobs_place_is_not_waited_for(layout: Path) -> None:
    """Nobody writes into it."""
    (layout / BLOB).unlink()
    os.mkfifo(layout / BLOB)
    with within(1), pytest.raises(ArchiveInvalid):
        list(LayoutFolder(layout))


def test_a_layout_without_its_mark_is_refused(layout: Path) -> None:
    """The specification requires it (image-layout.md)."""
    (layout / "oci-layout").unlink()
    with pytest.raises(ArchiveInvalid, match="oci-layout: No such file"):
        list(LayoutFolder(layout))


def begun(layout: Path, blob: Path, size: int) -> tuple[bytes, Iterator[bytes]]:
    """Return the start of the stream, up to the middle of a blob of a size, and its rest."""
    blob.write_bytes(bytes(size))
    stream = iter(LayoutFolder(layout))
    seen = b""
    while len(seen) < size // 2:
        seen += next(stream)
    return seen, stream


def test_a_blob_that_shrinks_while_it_is_read_is_an_error(layout: Path) -> None:
    """Its header has promised more."""
    _, rest = begun(layout, layout / BLOB, 3 << 20)
    os.truncate(layout / BLOB, 1 << 20)
    with pytest.raises(ArchiveInvalid, match="shrank"):
        list(rest)


def test_what_a_blob_gains_while_it_is_read_is_left_out(layout: Path) -> None:
    """The members behind it stay where they belong."""
    size = (3 << 20) + 5
    seen, rest = begun(layout, layout / BLOB, size)
    os.truncate(layout / BLOB, 5 << 20)
    with tarfile.open(fileobj=io.BytesIO(seen + b"".join(rest))) as archive:
        assert archive.getmember(BLOB).size == size
        assert set(archive.getnames()) == {path for path, _ in oci(IMAGE)}


def test_a_large_blob_is_not_held(layout: Path) -> None:
    """A layer of gigabytes goes through a chunk at a time."""
    with (layout / BLOB).open("wb") as file:
        file.truncate(32 << 20)
    with memory_below(5 << 20):
        assert sum(map(len, LayoutFolder(layout))) > 32 << 20


def described(raw: bytes, media_type: str, algorithm: str) -> dict[str, object]:
    digest = str(Digest.of(raw, algorithm))
    return {"mediaType": media_type, "digest": digest, "size": len(raw)}


@pytest.mark.parametrize("algorithm", ["sha256", "sha512"])
def test_blobs_may_have_longer_digests(tmp_path: Path, algorithm: str) -> None:
    """The image specification has both; the longer's path does not fit a plain tar header."""
    layer, config = IMAGE.layers[0], Image(IMAGE.layers[:1]).config
    value = {
        "schemaVersion": 2,
        "config": described(config, CONFIG, algorithm),
        "layers": [described(layer, LAYER, algorithm)],
    }
    manifest = encode(value)
    top = index({**described(manifest, MANIFEST, algorithm)})
    blobs: list[Entry] = [
        (f"blobs/{algorithm}/{Digest.of(raw, algorithm).hex}", raw)
        for raw in (layer, config, manifest)
    ]
    folder = folder_of(tmp_path, [*blobs, ("index.json", top), ("oci-layout", b"{}")])
    assert set(members(folder)) == {path for path, _ in blobs} | {"index.json", "oci-layout"}
    [image] = scan(LayoutFolder(folder)).images
    assert image.config.raw == config


@pytest.mark.parametrize("target", ["x" * 5000, "index.json", "/nonexistent", "a/" * 3000])
def test_an_index_that_leads_nowhere_is_no_index(tmp_path: Path, target: str) -> None:
    """Found by fuzzing: the file system itself refuses to follow some links."""
    (tmp_path / "index.json").symlink_to(target[:4000])
    with pytest.raises(ArchiveInvalid, match="not an OCI layout"):
        list(LayoutFolder(tmp_path))


def test_a_name_that_no_file_can_have_is_no_source() -> None:
    """It is told as one that is not there."""
    with pytest.raises(UsageError, match="no such source"), Session.open("x" * 5000):
        pass
