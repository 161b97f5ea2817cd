"""The cache of served blobs: its bound, its checks, and the receiver that fills it."""

from __future__ import annotations

import gzip
import os
from pathlib import Path

import pytest

from imgload.core.errors import DigestMismatch
from imgload.core.state import clear_cache, state_folder
from imgload.oci.content import BlobWriter, ImageContent
from imgload.oci.digest import Digest
from imgload.oci.document import Descriptor, ImageConfig, Manifest
from imgload.oci.platform import Platform
from imgload.registry.blob_store import StoreFull
from imgload.tools.serve.cache import BlobCache, CacheReceiver

LAYER = b"layer" * 200
PACKED = gzip.compress(LAYER)
AMD64 = Platform.parse("linux/amd64")


@pytest.fixture(autouse=True)
def folder(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))


def stored() -> list[Path]:
    return list((state_folder() / "blobs").iterdir())


def receiver(limit: int = 10_000, *, keep: bool = False) -> CacheReceiver:
    return CacheReceiver(BlobCache.open(limit), keep)


def add(target: CacheReceiver, content: bytes, diff_id: Digest | None = None) -> Digest:
    writer = target.blob(len(content), None, diff_id)
    writer.write(content)
    return writer.finish()


def send(writer: BlobWriter, digest: Digest | None) -> None:
    try:
        writer.write(PACKED)
        writer.finish(digest)
    finally:
        writer.abandon()


def read(cache: BlobCache, digest: Digest) -> bytes | None:
    with cache.reading(digest) as blob:
        return b"".join(blob.chunks()) if blob else None


def test_layers_are_stored_by_diff_id() -> None:
    """Whatever compression the engine uses, a layer has one form."""
    target = receiver()
    diff_id, packed = Digest.of(LAYER), Digest.of(PACKED)
    assert target.lacks(packed, diff_id)
    assert add(target, PACKED, diff_id) == packed
    assert not target.lacks(packed, diff_id)
    assert read(target.cache, diff_id) == LAYER
    assert target.layers == {packed: (diff_id, len(PACKED))}


def test_the_manifest_lists_the_layers_as_stored() -> None:
    target = receiver()
    config = ImageConfig.parse(
        b'{"os":"linux","architecture":"amd64","rootfs":{"type":"layers","diff_ids":["%s"]}}'
        % str(Digest.of(LAYER)).encode()
    )
    add(target, PACKED, Digest.of(LAYER))
    packed = Descriptor("application/vnd.oci.image.layer.v1.tar+gzip", Digest.of(PACKED), 1)
    manifest = Manifest.build(config, (packed,))
    target.image(ImageContent(manifest, config, ("docker.io/library/app:dev",), AMD64))
    assert target.content
    (layer,) = target.content.manifest.layers
    assert (layer.digest, layer.size) == (Digest.of(LAYER), len(LAYER))
    assert target.content.manifest.config.digest == config.digest


def test_a_name_with_a_digest_keeps_its_layers() -> None:
    target = receiver(keep=True)
    add(target, PACKED, Digest.of(LAYER))
    assert read(target.cache, Digest.of(PACKED)) == PACKED
    assert target.lacks(Digest.of(b"other"), Digest.of(LAYER))


def test_the_least_recently_used_blobs_are_removed() -> None:
    """A blob that is being read stays readable."""
    target = receiver(limit=2500)
    digests = []
    for number in range(2):
        digests.append(add(target, bytes([number]) * 1000))
        path = state_folder() / "blobs" / str(digests[-1]).replace(":", "-")
        os.utime(path, (number, number))
    with target.cache.reading(digests[0]) as first:
        target.left = 2500
        third = add(target, b"3" * 1000)
        assert first
        assert len(b"".join(first.chunks())) == 1000
    assert [target.cache.size(digest) for digest in (*digests, third)] == [1000, None, 1000]


def test_an_image_larger_than_the_cache_is_refused() -> None:
    """A gzip bomb, too; nothing of the blob stays."""
    target = receiver(limit=100_000)
    bomb = gzip.compress(bytes(1_000_000))
    writer = target.blob(len(bomb))
    with pytest.raises(StoreFull, match="larger than the cache"):
        writer.write(bomb)
    writer.abandon()
    assert stored() == []


@pytest.mark.parametrize(
    ("size", "digest", "diff_id"),
    [
        (len(PACKED) + 1, None, None),
        (len(PACKED) - 1, None, None),
        (len(PACKED), Digest.of(b"other"), None),
        (len(PACKED), None, Digest.of(b"other")),
    ],
)
def test_a_wrong_blob_is_refused(size: int, digest: Digest | None, diff_id: Digest | None) -> None:
    with pytest.raises(DigestMismatch):
        send(receiver().blob(size, digest, diff_id), digest)
    assert stored() == []


def test_a_blob_that_changed_on_the_disk_is_removed() -> None:
    """By another process that opens the cache: this one has checked the blob."""
    digest = add(receiver(), LAYER)
    path = state_folder() / "blobs" / str(digest).replace(":", "-")
    path.write_bytes(b"damaged")
    cache = BlobCache.open(10_000)
    assert read(cache, digest) is None
    assert cache.size(digest) is None


def test_only_its_owner_can_enter_the_folder_and_clear_cache_empties_it() -> None:
    add(receiver(), LAYER)
    writer = receiver().blob(10)
    writer.write(b"partial")
    folder = state_folder() / "blobs"
    assert folder.stat().st_mode & 0o777 == 0o700
    assert len(stored()) == 2
    BlobCache.open(10_000)
    assert len(stored()) == 1
    assert clear_cache() == len(LAYER)
    assert stored() == []
