"""Images of the benchmarks that no engine builds."""

from __future__ import annotations

import hashlib
import json
import tarfile
from contextlib import closing
from pathlib import Path
from types import SimpleNamespace
from typing import cast

import pytest

from benchmarks import contestants
from benchmarks.archives import DOCKER, OCI, ArchiveBuilder, pack
from benchmarks.floor import fill
from benchmarks.images import Image
from benchmarks.measure import Usage
from benchmarks.real import LAYERS, choose
from imgload.oci.digest import Digest
from imgload.registry.blob_store import BlobStore
from tests.lab import Cluster, Engine, Spec


@pytest.fixture(params=[OCI, DOCKER])
def archive(request: pytest.FixtureRequest, tmp_path: Path) -> Image:
    """An image with two layers."""
    folders = [tmp_path / "a", tmp_path / "b"]
    for folder in folders:
        folder.mkdir()
        (folder / "file").write_text(folder.name * 10_000)
    return pack(folders, tmp_path / f"{request.param}.tar", request.param)


def _files(image: Image) -> dict[str, bytes]:
    assert image.file
    with tarfile.open(image.file) as archive:
        found = {member.name: archive.extractfile(member) for member in archive if member.isfile()}
        return {name: file.read() for name, file in found.items() if file}


def test_an_archive_has_the_digests_of_its_content(archive: Image) -> None:
    """The image ID is the config's; blobs of an OCI layout have the names of their digests."""
    files = _files(archive)
    (entry,) = json.loads(files["manifest.json"])
    config = files[entry["Config"]]
    assert archive.image_id == f"sha256:{hashlib.sha256(config).hexdigest()}"
    assert tuple(json.loads(config)["rootfs"]["diff_ids"]) == archive.diff_ids
    for name in files:
        if name.startswith("blobs/"):
            assert name.rpartition("/")[2] == hashlib.sha256(files[name]).hexdigest()


def test_only_an_oci_archive_has_compressed_layers(archive: Image) -> None:
    """As BuildKit and Docker's older `save` write them."""
    files = _files(archive)
    (entry,) = json.loads(files["manifest.json"])
    is_oci = "oci-layout" in files
    assert [files[name][:2] == b"\x1f\x8b" for name in entry["Layers"]] == [is_oci] * 2
    assert archive.file
    assert is_oci == (archive.file.stem == OCI)


def test_a_prepared_server_has_plain_layers(archive: Image) -> None:
    """So that a node need not decompress them."""
    assert archive.file
    with closing(BlobStore()) as store:
        manifest = fill(store, archive.file)
        assert [str(layer.digest) for layer in manifest.layers] == list(archive.diff_ids)
        for layer in manifest.layers:
            plain = b"".join(store.blobs[layer.digest].chunks())
            assert (Digest.of(plain), len(plain)) == (layer.digest, layer.size)


def test_an_archive_with_random_content_has_the_requested_size(tmp_path: Path) -> None:
    """It is removed after its round."""
    engine = cast("Engine", None)
    builder = ArchiveBuilder(engine, 10**6, folder=tmp_path, form=OCI)
    image = builder.anew()
    assert image.file
    assert image.file.stat().st_size == pytest.approx(10**6, rel=0.1)
    assert len(image.diff_ids) == 7
    builder.clear()
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("size", [20, 60, 600, 1000, 1600])
def test_packages_have_about_the_requested_size(size: int) -> None:
    """With Python, and in as many layers."""
    sizes = dict(word.split("=") for packages in LAYERS for word in packages.split())
    layers = choose(size)
    total = sum(int(sizes[package]) for packages in layers for package in packages)
    assert 0.9 * size <= total <= size
    assert "python3.11-minimal" in layers[0]
    assert len(layers) == len(LAYERS)


def test_an_archive_is_loaded_from_its_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """By kind and by imgload; an image of an engine by its name."""
    daemon = SimpleNamespace(pid=None)
    engine = cast("Engine", SimpleNamespace(name="docker", daemon=daemon, environ=dict))
    cluster = Cluster(Spec(name="c", engine="docker"), engine, [])
    commands: list[list[str]] = []

    def measured(_who: object, *argv: object, **_options: object) -> tuple[Usage, str]:
        commands.append([str(word) for word in argv])
        return Usage(1, 1, 1, 1), ""

    monkeypatch.setattr(contestants.Contestant, "measure", measured)
    image = Image("app:dev", "sha256:1", (), tmp_path / "app.tar")
    kind = contestants.KindArchive(engine, tmp_path, "1", tmp_path / "kind")
    kind.load([image], cluster)
    path = str(image.file)
    assert commands[0][1:4] == ["load", "image-archive", path]
    imgload = contestants.Imgload(engine, tmp_path)
    assert imgload.arguments([image], cluster)[:3] == ["load", "--from", path]
    built = Image("app:dev", "sha256:1", ())
    assert imgload.arguments([built], cluster)[:4] == ["load", "app:dev", "--from", "docker"]


def test_layers_may_have_zstd(tmp_path: Path) -> None:
    """As BuildKit's `compression=zstd`; the diff IDs are those of the plain layers."""
    folder = tmp_path / "layer"
    folder.mkdir()
    (folder / "file").write_text("content")
    gzip = pack([folder], tmp_path / "gzip.tar", OCI)
    zstd = pack([folder], tmp_path / "zstd.tar", OCI, "zstd")
    files = _files(zstd)
    (entry,) = json.loads(files["manifest.json"])
    assert files[entry["Layers"][0]][:4] == b"\x28\xb5\x2f\xfd"
    assert zstd.diff_ids == gzip.diff_ids
