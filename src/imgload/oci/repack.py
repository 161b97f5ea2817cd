"""Any saved archive in, an OCI layout tar for ``ctr images import`` out, as a stream.

Layers pass through as they arrive, hashed on the way. containerd takes a blob's digest from its
content and not from its path, so a layer can be sent before its digest is known; ``index.json``
comes last and only when everything checked out, so a stream that breaks leaves no image behind.
The names are ours: what the archive calls its images decides nothing.
"""

from __future__ import annotations

import hashlib
import secrets
from collections.abc import Collection, Iterable, Iterator, Sequence

import attrs

from imgload.core.errors import ArchiveInvalid, DigestMismatch
from imgload.oci import tar
from imgload.oci.archive import ArchivedImage, choose, images_in, pinned_index
from imgload.oci.blobs import Blob, Blobs, compression_of, digits_of, may_be_document, peek
from imgload.oci.digest import Digest
from imgload.oci.document import Descriptor, Index
from imgload.oci.platform import Platform

LAYOUT = b'{"imageLayoutVersion":"1.0.0"}'
"""Content of the file `oci-layout` (image-layout.md#oci-layout-file)."""


@attrs.frozen
class Wanted:
    """An image to take out of an archive, and the names it gets on the nodes.

    Args:
        target: digest of its config, its manifest, or an index over it.
        names: full names, as containerd keeps them.
        platform: which platform of an index; None when the target is one image.
        exact: digests of its very manifest or config, where known: Docker saves one platform of
            an index without the index.

    """

    target: Digest
    names: tuple[str, ...]
    platform: Platform | None = None
    exact: tuple[Digest, ...] = ()


class Repack:
    """The stream; iterate it once, then `images` and `sizes` tell what was in it.

    Args:
        archive: the saved archive, in chunks.
        wanted: the images to take out of it.
        there: layers that every node has unpacked, by the digest of their blob or their diff ID;
            left out where the archive says by a member's path that it is one of them.

    Raises (while iterating):
        SourceError: when the archive is damaged, hostile, or lacks what is wanted.

    """

    def __init__(
        self,
        archive: Iterable[bytes],
        wanted: Sequence[Wanted],
        there: Collection[Digest] = (),
    ) -> None:
        self._archive = archive
        self._wanted = wanted
        self._there = {digest.hex: digest for digest in there}
        self._blobs = Blobs()
        self._nonce = secrets.token_hex(16)
        self._sent: set[Digest] = set()
        self.left_out: set[Digest] = set()
        self.images: dict[Digest, ArchivedImage] = {}
        self.sizes: dict[Digest, int] = {}

    def __iter__(self) -> Iterator[bytes | memoryview]:
        yield from file_member("oci-layout", LAYOUT)
        for count, (member, body) in enumerate(tar.read_tar(self._archive)):
            if member.kind == "link":
                self._blobs.link(member.path, member.target)
            elif member.kind == "file":
                yield from self._take(member, body, count)
        yield from self._finish()

    def _take(self, member: tar.Member, body: tar.Body, count: int) -> Iterator[bytes | memoryview]:
        start, pieces = peek(body)
        if may_be_document(member.path, member.size, start):
            data = b"".join(pieces)
            self._blobs.add(member.path, Blob(Digest.of(data), len(data), "", data))
        elif self._is_there(member.path, start):
            self._blobs.add(member.path, Blob(None, member.size, compression_of(start)))
        else:
            yield from self._pass(member, start, pieces, count)

    def _is_there(self, path: str, start: bytes) -> bool:
        """Whether a member is a layer that is not needed; a diff ID is that of a plain tar."""
        digest = self._there.get(digits_of(path))
        if digest is None or (compression_of(start) and not path.startswith("blobs/")):
            return False
        self.left_out.add(digest)
        return True

    def _pass(
        self, member: tar.Member, start: bytes, pieces: Iterable[memoryview], count: int
    ) -> Iterator[bytes | memoryview]:
        hasher = hashlib.sha256()
        yield tar.header(f"blobs/sha256/{self._nonce}{count}", member.size)
        for piece in pieces:
            hasher.update(piece)
            yield piece
        yield tar.padding(member.size)
        digest = Digest("sha256", hasher.hexdigest())
        self._sent.add(digest)
        self.sizes[digest] = member.size
        self._blobs.add(member.path, Blob(digest, member.size, compression_of(start)))

    def _finish(self) -> Iterator[bytes | memoryview]:
        found = images_in(self._blobs)
        entries: list[Descriptor] = []
        for wanted in self._wanted:
            image = choose(found, wanted.target, wanted.platform, wanted.exact)
            self.images[wanted.target] = image
            yield from self._complete(image)
            for name in wanted.names:
                raw = pinned_index(name, image, self._blobs)
                if raw is not None:
                    yield from self._document(Digest.of(raw), raw)
                    entries.append(Index.descriptor(raw, name))
                else:
                    entries.append(image.manifest.descriptor(image.platform, name))
        yield from file_member("index.json", Index.build(tuple(entries)))
        yield tar.END

    def _complete(self, image: ArchivedImage) -> Iterator[bytes | memoryview]:
        blobs = self._blobs.values()
        kept = {b.digest: b.data for b in blobs if b.digest and b.data is not None}
        kept[image.manifest.digest] = image.manifest.raw
        if len(image.manifest.layers) != len(image.config.diff_ids):
            raise ArchiveInvalid("a manifest has not as many layers as its config")
        if image.manifest.config.size != len(image.config.raw):
            raise DigestMismatch("a config is not as long as its manifest says")
        for layer in image.manifest.layers:
            self._check(layer, kept)
        needed = [*(layer.digest for layer in image.manifest.layers), image.config.digest]
        for digest in (*needed, image.manifest.digest):
            if digest not in self.left_out:
                yield from self._document(digest, kept.get(digest, b""))

    def _document(self, digest: Digest, data: bytes) -> Iterator[bytes]:
        if digest not in self._sent:
            self._sent.add(digest)
            self.sizes[digest] = len(data)
            yield from file_member(f"blobs/sha256/{digest.hex}", data)

    def _check(self, layer: Descriptor, kept: dict[Digest, bytes]) -> None:
        self._blobs.by_digest(layer.digest)
        if layer.digest in self.left_out and layer.digest not in self._sent:
            return
        if layer.digest not in self._sent and layer.digest not in kept:
            raise _lacks(layer)
        size = self.sizes.get(layer.digest, len(kept.get(layer.digest, b"")))
        if size != layer.size:
            raise DigestMismatch(f"the layer {layer.digest} has {size} bytes, not {layer.size}")


def _lacks(layer: Descriptor) -> ArchiveInvalid:
    if layer.is_foreign:
        return ArchiveInvalid(
            f"the archive lacks the layer {layer.digest}, which is a foreign one",
            hint="save the image with a tool that keeps foreign layers, such as docker save",
        )
    return ArchiveInvalid(
        f"the archive lacks the layer {layer.digest}", hint="save it anew; it may be in part only"
    )


def file_member(path: str, data: bytes) -> Iterator[bytes]:
    """Yield a small member of a tar, whole."""
    yield tar.header(path, len(data)) + data + tar.padding(len(data))
