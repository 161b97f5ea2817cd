"""The content of images out of a saved archive of any kind, sent while the archive is read.

Layers pass through as they arrive. Only small members are kept; which of them are manifests and
configs, and what the images are, shows at the end.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Sequence

import attrs

from imgload.core.errors import ArchiveInvalid, DigestMismatch
from imgload.oci import tar
from imgload.oci.archive import ArchivedImage, choose, images_in, pinned_index
from imgload.oci.blobs import Blob, Blobs, compression_of, digits_of, may_be_document, peek
from imgload.oci.content import ImageContent, Receiver
from imgload.oci.digest import Digest
from imgload.oci.document import Descriptor
from imgload.oci.platform import Platform


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


class SavedImages:
    """Images to send out of one archive.

    Args:
        archive: the saved archive, in chunks.
        wanted: the images to take out of it.
        unneeded: layers that no node lacks, by the digest of their blob or their diff ID; left
            out where the archive says by a member's path that it is one of them.

    """

    def __init__(
        self, archive: Iterable[bytes], wanted: Sequence[Wanted], unneeded: Collection[Digest] = ()
    ) -> None:
        self._archive = archive
        self._wanted = wanted
        self._unneeded = {digest.hex: digest for digest in unneeded}
        self._blobs = Blobs()
        self._sizes: dict[Digest, int] = {}
        self._left_out: set[Digest] = set()

    def send(self, receiver: Receiver) -> dict[Digest, ImageContent]:
        """Send the images; return them by target, or nothing once nobody reads any more.

        Raises:
            SourceError: when the archive is damaged, hostile, or lacks an image.

        """
        for member, body in tar.read_tar(self._archive):
            if member.kind == "link":
                self._blobs.link(member.path, member.target)
            elif member.kind == "file":
                self._take(member, body, receiver)
            if not receiver.is_open:
                return {}
        found = images_in(self._blobs)
        return {wanted.target: self._finish(wanted, found, receiver) for wanted in self._wanted}

    def _take(self, member: tar.Member, body: tar.Body, receiver: Receiver) -> None:
        start, pieces = peek(body)
        if may_be_document(member.path, member.size, start):
            data = b"".join(pieces)
            blob = Blob(Digest.of(data), len(data), "", data)
        elif self._is_unneeded(member.path, start):
            blob = Blob(None, member.size, compression_of(start))
        else:
            digest = self._pass(member, pieces, receiver)
            if digest is None:
                return
            blob = Blob(digest, member.size, compression_of(start))
        self._blobs.add(member.path, blob)

    def _is_unneeded(self, path: str, start: bytes) -> bool:
        """Whether a member is a layer that is not needed; a diff ID is that of a plain tar."""
        digest = self._unneeded.get(digits_of(path))
        if digest is None or (compression_of(start) and not path.startswith("blobs/")):
            return False
        self._left_out.add(digest)
        return True

    def _pass(
        self, member: tar.Member, pieces: Iterator[memoryview], receiver: Receiver
    ) -> Digest | None:
        writer = receiver.blob(member.size)
        try:
            for piece in pieces:
                writer.write(piece)
                if not receiver.is_open:
                    writer.abandon()
                    return None
            digest = writer.finish()
        except BaseException:
            writer.abandon()
            raise
        self._sizes[digest] = member.size
        return digest

    def _finish(
        self, wanted: Wanted, found: Sequence[ArchivedImage], receiver: Receiver
    ) -> ImageContent:
        image = choose(found, wanted.target, wanted.platform, wanted.exact)
        if len(image.manifest.layers) != len(image.config.diff_ids):
            raise ArchiveInvalid("a manifest has not as many layers as its config")
        if image.manifest.config.size != len(image.config.raw):
            raise DigestMismatch("a config is not as long as its manifest says")
        kept = {b.digest: b.data for b in self._blobs.values() if b.digest and b.data is not None}
        for layer in image.manifest.layers:
            self._check(layer, kept)
        layers = (layer.digest for layer in image.manifest.layers)
        for digest in dict.fromkeys((*layers, image.config.digest)):
            if digest in kept and digest not in self._left_out and digest not in self._sizes:
                writer = receiver.blob(len(kept[digest]), digest)
                writer.write(kept[digest])
                writer.finish(digest)
        content = self._content(wanted, image)
        receiver.image(content)
        return content

    def _content(self, wanted: Wanted, image: ArchivedImage) -> ImageContent:
        pinned = (pinned_index(name, image, self._blobs) for name in wanted.names)
        indexes = {Digest.of(raw): raw for raw in pinned if raw is not None}
        plain = {d: self._sizes[d] for d in image.config.diff_ids if d in self._sizes}
        return ImageContent(
            image.manifest, image.config, wanted.names, image.platform, indexes, plain
        )

    def _check(self, layer: Descriptor, kept: dict[Digest, bytes]) -> None:
        self._blobs.by_digest(layer.digest)
        if layer.digest in self._left_out and layer.digest not in self._sizes:
            return
        if layer.digest not in self._sizes and layer.digest not in kept:
            raise _lacks(layer)
        size = self._sizes.get(layer.digest, len(kept.get(layer.digest, b"")))
        if size != layer.size:
            raise DigestMismatch(f"the layer {layer.digest} has {size} bytes, not {layer.size}")


def _lacks(layer: Descriptor) -> ArchiveInvalid:
    if layer.is_foreign:
        return ArchiveInvalid(
            f"the archive lacks the layer {layer.digest}, which is a foreign one",
            hint="save the image with a tool that keeps foreign layers, such as docker save",
        )
    return ArchiveInvalid(
        f"the archive lacks the layer {layer.digest}", hint="save it again; it may be incomplete"
    )
