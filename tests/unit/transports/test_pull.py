"""Nodes that pull: any order of blobs, decompressed layers, blobs at rest, and the fallback."""

from __future__ import annotations

import bz2
import gzip
import http.client
import lzma
import sys
import threading
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Literal
from urllib.parse import urlsplit

import pytest

import imgload
from imgload.clusters.nodes.base import UNREACHABLE
from imgload.clusters.nodes.survey import Survey, SurveyQuery
from imgload.core.errors import ArchiveInvalid, DigestMismatch, ImportFailed
from imgload.engines.cache import EngineCache
from imgload.oci.digest import Digest
from imgload.oci.document import LAYER, Manifest
from imgload.oci.platform import Platform
from imgload.registry import blob_store
from imgload.sources.archive import ArchiveSource
from imgload.transports import pull
from imgload.transports.base import Order
from imgload.transports.pull import PullTransport
from tests.unit import archives
from tests.unit.test_backends import MemoryNode, Shelf

if sys.version_info >= (3, 14):
    from compression.zstd import compress as zstd_compress
else:
    from backports.zstd import compress as zstd_compress

IMAGE = archives.Image((b"base" * 1000, b"top" * 1000))
AMD = Platform("linux", "amd64")


class PullingNode(MemoryNode):
    """Pulls as containerd does: the manifest, the config, and the layers that it lacks."""

    gateways: Sequence[str] = ("127.0.0.1",)
    pulls = 0
    urls: Sequence[str] = ()

    def pull(
        self, urls: Sequence[str], names: Sequence[str], platform: Platform, question: SurveyQuery
    ) -> Survey:
        del platform
        self.pulls += 1
        self.urls = urls
        url = urls[0]
        for name in names:
            registry, _, path = name.partition("/")
            repository, _, tag = path.rpartition(":")
            raw = self._get(f"{url}/{repository}/manifests/{tag}?ns={registry}")
            manifest = Manifest.parse(raw)
            self.blobs[manifest.digest] = raw
            for blob in (manifest.config, *manifest.layers):
                content = self._get(f"{url}/{repository}/blobs/{blob.digest}?ns={registry}")
                assert (Digest.of(content), len(content)) == (blob.digest, blob.size)
                self.blobs[blob.digest] = content
            self.records[name] = manifest.digest
        return self.survey(question)

    def _get(self, url: str) -> bytes:
        parts = urlsplit(url)
        connection = http.client.HTTPConnection(parts.netloc, timeout=10)
        try:
            connection.request("GET", f"{parts.path}?{parts.query}")
            response = connection.getresponse()
            body = response.read()
        except OSError as error:
            raise ImportFailed(f"{url}: {error}", node=self.name) from error
        finally:
            connection.close()
        if response.status != http.client.OK:
            raise ImportFailed(f"{response.status} for {url}", node=self.name)
        return body


class BlockedNode(PullingNode):
    """Cannot connect to this process."""

    def pull(
        self, urls: Sequence[str], names: Sequence[str], platform: Platform, question: SurveyQuery
    ) -> Survey:
        del urls, names, platform, question
        self.pulls += 1
        raise ImportFailed("no route", command_status=UNREACHABLE, node=self.name)


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))


def result_of(loader: imgload.Loader) -> imgload.NodeResult:
    return loader.load(IMAGE.name).images[0].nodes[0]


def test_a_saved_image_is_pulled(tmp_path: Path) -> None:
    node = PullingNode(tmp_path)
    result = result_of(imgload.Loader(Shelf(IMAGE), [node]))
    assert (result.ok, result.transport, node.pulls) == (True, "pull", 1)
    served = sum(len(blob) for blob in node.blobs.values())
    assert result.bytes_sent == served


def test_a_node_that_cannot_connect_gets_the_same_content_by_import(tmp_path: Path) -> None:
    """Once: for an hour, its gateway is not tried again."""
    node = BlockedNode(tmp_path)
    loader = imgload.Loader(Shelf(IMAGE), [node])
    notes: list[str] = []
    report = loader.load(
        IMAGE.name, on_event=lambda e: notes.append(e.text) if isinstance(e, imgload.Note) else None
    )
    assert report.images[0].nodes[0].transport == "import"
    assert [note for note in notes if "no route" in note]
    assert EngineCache.load().blocks_pulls(node.engine.endpoint.url, node.gateways)
    node.records.clear()
    node.blobs.clear()
    assert result_of(loader).transport == "import"
    assert node.pulls == 1


def test_a_node_in_a_vm_gets_the_names_of_this_machine(tmp_path: Path) -> None:
    """The gateway is another machine's, so the loopback is served, to which VMs have relays."""
    node = PullingNode(tmp_path)
    node.gateways = ("192.0.2.1",)
    result = result_of(imgload.Loader(Shelf(IMAGE), [node]))
    assert [urlsplit(url).hostname for url in node.urls] == list(pull.VM_HOSTS)
    assert result.transport == "import"


def test_a_node_without_networks_does_not_pull(tmp_path: Path) -> None:
    node = PullingNode(tmp_path)
    node.gateways = ()
    assert result_of(imgload.Loader(Shelf(IMAGE), [node])).transport == "import"
    assert node.pulls == 0


def test_content_that_cannot_be_stored_is_streamed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(blob_store.StoredBlob, "_write", full)
    node = PullingNode(tmp_path)
    assert result_of(imgload.Loader(Shelf(IMAGE), [node])).transport == "import"


COMPRESS: dict[str, Callable[[bytes], bytes]] = {
    "zstd": zstd_compress,
    "bzip2": bz2.compress,
    "xz": lzma.compress,
}


@pytest.mark.parametrize("form", ["gzip", "zstd", "bzip2", "xz"])
@pytest.mark.parametrize("source", ["file", "stream"])
def test_compressed_layers_arrive_as_plain_tars(tmp_path: Path, source: str, form: str) -> None:
    """Whatever their media types claim: here, zstd."""
    image = archives.Image(IMAGE.layers, gzipped=form == "gzip", zstd=COMPRESS.get(form))
    archive = tmp_path / "app.tar"
    archive.write_bytes(archives.pack(archives.oci(image)))
    node = PullingNode(tmp_path)
    origin = ArchiveSource(str(archive)) if source == "file" else Shelf(image)
    result = imgload.Loader(origin, [node]).load(image.name).images[0].nodes[0]
    assert (result.ok, result.transport) == (True, "pull")
    manifest = Manifest.parse(node.blobs[node.records[archives.NAME]])
    assert [layer.digest for layer in manifest.layers] == [Digest.of(raw) for raw in image.layers]
    assert result.bytes_sent == sum(len(blob) for blob in node.blobs.values())


@pytest.mark.parametrize("transport", ["pull", "import"])
@pytest.mark.parametrize("form", ["bzip2", "xz"])
@pytest.mark.parametrize("source", ["docker20", "oci", "folder"])
def test_layers_that_containerd_cannot_unpack_arrive_as_plain_tars(
    tmp_path: Path, source: str, form: str, transport: Literal["pull", "import"]
) -> None:
    """docker load and podman load take them."""
    image, path = archives.Image(IMAGE.layers, zstd=COMPRESS[form]), tmp_path / "app"
    entries = archives.oci(image)
    if source == "docker20":
        plain = archives.docker20(image)
        entries = [
            (p, COMPRESS[form](c) if isinstance(c, bytes) and p.endswith("layer.tar") else c)
            for p, c in plain
        ]
    if source == "folder":
        archives.write_folder(path, entries)
    else:
        path.write_bytes(archives.pack(entries))
    node = PullingNode(tmp_path)
    loader = imgload.Loader(ArchiveSource(str(path)), [node])
    result = loader.load([], transport=transport).images[0].nodes[0]
    assert (result.ok, result.transport) == (True, transport)
    manifest = Manifest.parse(node.blobs[node.records[archives.NAME]])
    assert [layer.digest for layer in manifest.layers] == [Digest.of(raw) for raw in image.layers]
    assert [layer.media_type for layer in manifest.layers] == [LAYER, LAYER]
    assert all(node.blobs[Digest.of(raw)] == raw for raw in image.layers)
    with pytest.raises(ArchiveInvalid) as caught:
        loader.load([], transport=transport, keep_manifest=True)
    assert "--keep-manifest" in caught.value.hint


@pytest.mark.parametrize("form", ["gzip", "zstd"])
def test_keep_manifest_delivers_compressed_layers_unchanged(tmp_path: Path, form: str) -> None:
    zstd = zstd_compress if form == "zstd" else None
    image = archives.Image(IMAGE.layers, gzipped=form == "gzip", zstd=zstd)
    node = PullingNode(tmp_path)
    report = imgload.Loader(Shelf(image), [node]).load(image.name, keep_manifest=True)
    assert report.images[0].nodes[0].transport == "pull"
    assert node.blobs[node.records[archives.NAME]] == image.manifest
    assert set(map(Digest.of, image.blobs)) <= node.blobs.keys()


@pytest.mark.parametrize("form", ["oci", "docker20", "docker25", "podman", "layout folder"])
def test_layers_of_files_are_served_in_place(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, form: str
) -> None:
    """Only the config is copied."""
    entries, path = getattr(archives, form, archives.oci)(IMAGE), tmp_path / "app"
    if form == "layout folder":
        archives.write_folder(path, entries)
    else:
        path.write_bytes(archives.pack(entries))
    copied: list[int] = []
    write = blob_store.StoredBlob._write  # noqa: SLF001

    def counting(blob: blob_store.StoredBlob, chunk: bytes) -> None:
        copied.append(len(chunk))
        write(blob, chunk)

    monkeypatch.setattr(blob_store.StoredBlob, "_write", counting)
    node = PullingNode(tmp_path)
    result = result_of(imgload.Loader(ArchiveSource(str(path)), [node]))
    assert (result.ok, result.transport, sum(copied)) == (True, "pull", len(IMAGE.config))


def test_a_node_reads_a_blob_while_it_is_written(tmp_path: Path) -> None:
    """And asks for it before it exists."""
    node = PullingNode(tmp_path)
    question = SurveyQuery((archives.NAME,), (IMAGE.image_id,))
    shipment = PullTransport().start(Order([node], AMD, question, size=1))
    manifest = Manifest.parse(IMAGE.manifest)
    shipment.announce(manifest, [layer.digest for layer in manifest.layers], (archives.NAME,))
    blobs = [*zip(IMAGE.layers, manifest.layers, strict=True)]
    for raw, layer in reversed(blobs):
        writer = shipment.blob(len(raw), layer.digest, layer.digest)
        for start in range(0, len(raw), 100):
            writer.write(raw[start : start + 100])
        writer.finish(layer.digest)
    writer = shipment.blob(len(IMAGE.config), IMAGE.image_id)
    writer.write(IMAGE.config)
    writer.finish(IMAGE.image_id)
    shipment.complete()
    [delivery] = shipment.finish().values()
    assert delivery.error is None
    assert set(map(Digest.of, IMAGE.layers)) <= node.blobs.keys()


def test_a_blob_of_another_size_is_refused(tmp_path: Path) -> None:
    question = SurveyQuery((archives.NAME,), ())
    shipment = PullTransport().start(Order([PullingNode(tmp_path)], AMD, question, size=1))
    writer = shipment.blob(3, Digest.of(b"abc"), Digest.of(b"abc"))
    with pytest.raises(DigestMismatch):
        writer.write(b"abcd")
    writer.abandon()
    shipment.abort()


def test_an_aborted_shipment_ends_the_pulls(tmp_path: Path) -> None:
    node = PullingNode(tmp_path)
    threads = threading.active_count()
    shipment = PullTransport().start(Order([node], AMD, SurveyQuery((archives.NAME,), ()), size=1))
    shipment.abort()
    assert all(delivery.error for delivery in shipment.finish().values())
    assert node.records == {}
    assert threading.active_count() <= threads + 1


def test_damaged_gzip_layers_fail_the_load(tmp_path: Path) -> None:
    image = archives.Image(IMAGE.layers, gzipped=True)
    raw = archives.pack(archives.oci(image))
    start = raw.index(gzip.compress(b"x")[:4])
    archive = tmp_path / "app.tar"
    archive.write_bytes(raw[: start + 40] + bytes(20) + raw[start + 60 :])
    node = PullingNode(tmp_path)
    with pytest.raises(imgload.ImgloadError):
        imgload.Loader(ArchiveSource(str(archive)), [node]).load([])
    assert node.records == {}
