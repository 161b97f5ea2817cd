"""Folders with images, read as tar streams."""

import io
import os
import secrets
import tarfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from imgload.core.errors import ArchiveInvalid, UsageError
from imgload.loader.session import Session
from imgload.oci.catalogue import ArchivedImage, scan
from imgload.oci.digest import Digest
from imgload.oci.document import CONFIG, LAYER, MANIFEST
from imgload.sources.archive import ArchiveSource
from imgload.sources.folder import ImageFolder
from tests.unit.archives import (
    Entry,
    Image,
    docker20,
    docker25,
    encode,
    index,
    oci,
    pack,
    podman,
    write_folder,
)
from tests.unit.bounds import memory_below, within

IMAGE = Image()
BLOB = f"blobs/sha256/{Digest.of(IMAGE.layers[0]).hex}"


@pytest.fixture
def layout(tmp_path: Path) -> Path:
    """Return a layout folder with one image."""
    return write_folder(tmp_path, oci(IMAGE))


def members(folder: Path) -> dict[str, bytes]:
    """Return the stream's members as tarfile reads them."""
    return read(b"".join(ImageFolder(folder)))


def read(data: bytes) -> dict[str, bytes]:
    with tarfile.open(fileobj=io.BytesIO(data)) as archive:
        files = [(member, archive.extractfile(member)) for member in archive]
        assert all(member.isreg() and file for member, file in files)
        return {member.name: file.read() for member, file in files if file}


def images_of(folder: Path) -> tuple[ArchivedImage, ...]:
    return scan(ImageFolder(folder)).images


def test_a_layout_becomes_one_archive(layout: Path) -> None:
    """Every byte of it, as tar itself reads it."""
    assert members(layout) == dict(oci(IMAGE))


@pytest.mark.parametrize("images", [(IMAGE,), (IMAGE, Image((), "db:v1")), ()])
def test_its_images_are_found(tmp_path: Path, images: tuple[Image, ...]) -> None:
    """As in an OCI archive."""
    found = images_of(write_folder(tmp_path, oci(*images)))
    assert [i.config.digest for i in found] == [i.image_id for i in images]


def test_what_is_no_part_of_it_is_left_out(layout: Path) -> None:
    """Notes, BuildKit's ingest folder, a file manager's droppings; also among the blobs."""
    strange = ["notes.txt", "ingest/x", "blobs/README", ".DS_Store", "blobs/sha256/.DS_Store"]
    write_folder(layout, [(path, b"x") for path in strange])
    assert members(layout) == dict(oci(IMAGE))


@pytest.mark.parametrize("path", ["", "sub"])
def test_a_folder_without_images_is_refused(tmp_path: Path, path: str) -> None:
    """With a command that loads one."""
    (tmp_path / path).mkdir(exist_ok=True)
    with pytest.raises(ArchiveInvalid) as caught:
        ArchiveSource(str(tmp_path)).all_images(None)
    assert caught.value.message.startswith(f"{tmp_path}: not a folder of images")
    assert "docker save" in caught.value.hint


LINKED = ["index.json", "oci-layout", BLOB, "blobs/sha256", "blobs"]


@pytest.mark.parametrize("path", LINKED)
def test_a_link_out_of_the_folder_is_refused_with_the_option(
    layout: Path, tmp_path_factory: pytest.TempPathFactory, path: str
) -> None:
    """A layout from elsewhere could send any file of this machine into the cluster."""
    outside = tmp_path_factory.mktemp("outside") / "target"
    (layout / path).rename(outside)
    (layout / path).symlink_to(outside)
    with pytest.raises(ArchiveInvalid, match="leads out of the folder") as caught:
        list(ImageFolder(layout))
    assert f"--follow-links --from {layout}" in caught.value.hint
    stream = b"".join(ImageFolder(layout, follow_links=True))
    assert read(stream) == dict(oci(IMAGE))


@pytest.mark.parametrize("path", LINKED)
def test_a_link_within_the_folder_is_followed(layout: Path, path: str) -> None:
    """As Bazel and debuerreotype write them; also if the folder itself is a link."""
    (layout / "cache").mkdir()
    (layout / path).rename(layout / "cache/target")
    (layout / path).symlink_to(os.path.relpath(layout / "cache/target", (layout / path).parent))
    assert members(layout) == dict(oci(IMAGE))
    linked = layout.with_name(f"linked-{secrets.token_hex(4)}")
    linked.symlink_to(layout)
    assert members(linked) == dict(oci(IMAGE))


@pytest.mark.parametrize("path", [BLOB, "blobs/sha256"])
def test_a_link_that_replaces_a_checked_path_is_not_followed(
    layout: Path,
    tmp_path_factory: pytest.TempPathFactory,
    path: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Between the check and the open."""
    outside = tmp_path_factory.mktemp("outside") / "target"
    realpath = os.path.realpath

    def replaced(name: Any, *, strict: bool = False) -> str:
        found: str = realpath(name, strict=strict)
        if str(name).endswith(BLOB) and not outside.exists():
            (layout / path).rename(outside)
            (layout / path).symlink_to(outside)
        return found

    monkeypatch.setattr(os.path, "realpath", replaced)
    with pytest.raises(ArchiveInvalid, match="cannot read"):
        list(ImageFolder(layout))


def test_a_folder_in_a_blobs_place_is_refused(layout: Path) -> None:
    """It has no content."""
    (layout / BLOB).unlink()
    (layout / BLOB).mkdir()
    with pytest.raises(ArchiveInvalid, match="cannot read"):
        list(ImageFolder(layout))


def test_a_pipe_in_a_blobs_place_is_not_waited_for(layout: Path) -> None:
    """Nobody writes into it."""
    (layout / BLOB).unlink()
    os.mkfifo(layout / BLOB)
    with within(1), pytest.raises(ArchiveInvalid):
        list(ImageFolder(layout))


def test_a_layout_without_its_mark_is_read(layout: Path) -> None:
    """BuildKit before 0.12 omits it from folders (buildx #1672)."""
    (layout / "oci-layout").unlink()
    assert members(layout) == {p: raw for p, raw in oci(IMAGE) if p != "oci-layout"}


def test_an_unpacked_docker_archive_is_read(tmp_path: Path) -> None:
    """With and without an index; Docker up to 24 writes links for repeated layers."""
    image = Image((IMAGE.layers[0], IMAGE.layers[0]))
    for form in (docker20, podman, docker25):
        folder = tmp_path / form.__name__
        with tarfile.open(fileobj=io.BytesIO(pack(form(image)))) as archive:
            archive.extractall(folder, filter="data")
        [found] = images_of(folder)
        assert found.config.digest == image.image_id
        assert found.names == (image.name,)


def test_a_path_in_manifest_json_does_not_leave_the_folder(tmp_path: Path) -> None:
    value = encode([{"Config": "../secret", "Layers": [], "RepoTags": None}])
    write_folder(tmp_path, [("folder/manifest.json", value), ("secret", IMAGE.config)])
    with pytest.raises(ArchiveInvalid, match="out of the archive"):
        list(ImageFolder(tmp_path / "folder"))


@pytest.mark.parametrize("several", [False, True])
def test_a_folder_of_skopeos_dir_transport_is_a_layout(tmp_path: Path, *, several: bool) -> None:
    """`skopeo copy … dir:`, also with --all, and `podman save --format docker-dir`."""
    blobs = [(Digest.of(raw).hex, raw) for raw in (*IMAGE.blobs, IMAGE.config)]
    manifest = [("manifest.json", IMAGE.manifest)]
    if several:
        instance = f"{IMAGE.digest.hex}.manifest.json"
        manifest = [(instance, IMAGE.manifest), ("manifest.json", index(IMAGE.entry))]
    version = ("version", b"Directory Transport Version: 1.1\n")
    [found] = images_of(write_folder(tmp_path, [*blobs, *manifest, version]))
    assert found.manifest.digest == IMAGE.digest
    assert found.config.digest == IMAGE.image_id
    assert len(found.indexes) == (2 if several else 1)


def begun(layout: Path, blob: Path, size: int) -> tuple[bytes, Iterator[bytes]]:
    """Return the start of the stream, up to the middle of a blob of a size, and its rest."""
    blob.write_bytes(bytes(size))
    stream = iter(ImageFolder(layout))
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
        assert sum(map(len, ImageFolder(layout))) > 32 << 20


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
    folder = write_folder(tmp_path, [*blobs, ("index.json", top), ("oci-layout", b"{}")])
    assert set(members(folder)) == {path for path, _ in blobs} | {"index.json", "oci-layout"}
    [image] = images_of(folder)
    assert image.config.raw == config


@pytest.mark.parametrize("target", ["x" * 5000, "index.json", "/nonexistent", "a/" * 3000, "."])
def test_an_index_that_leads_nowhere_is_invalid(tmp_path: Path, target: str) -> None:
    """Found by fuzzing: the file system itself refuses to follow some links."""
    (tmp_path / "index.json").symlink_to(target[:4000])
    with pytest.raises(ArchiveInvalid):
        list(ImageFolder(tmp_path))


def test_blobs_to_which_nothing_refers_are_not_read(layout: Path) -> None:
    """A cache that several layouts share has thousands."""
    strange = [(f"blobs/sha256/{Digest.of(bytes([n])).hex}", b"{}") for n in range(3)]
    write_folder(layout, list(strange))
    assert members(layout) == dict(oci(IMAGE))


def test_a_name_that_no_file_can_have_is_no_source() -> None:
    """It is told as one that is not there."""
    with pytest.raises(UsageError, match="no such source"), Session.open("x" * 5000):
        pass
