"""The images of a saved archive of any format, sent while the archive is read.

Layers are passed on as they arrive, and small members are kept. Which of these are manifests and
configs, and of which images, is known only at the end of the archive.
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
    """An image to take out of an archive.

    Args:
        target: digest of its config, its manifest, or an index above it.
        names: full names on the nodes, as containerd stores them.
        platform: to choose from an index; None for a single image.
        exact: digests of its own manifest or config, if known: Docker saves one platform of an
            index without the index.

    """

    target: Digest
    names: tuple[str, ...]
    platform: Platform | None = None
    exact: tuple[Digest, ...] = ()


class ArchiveSender:
    """Images to send from one archive.

    Args:
        archive: chunks of the saved archive.
        wanted: the images to send.
        unneeded: layers that no node lacks, by blob digest or diff ID; skipped if their paths in
            the archive contain these digests.

    """

    def __init__(
        self, archive: Iterable[bytes], wanted: Sequence[Wanted], unneeded: Collection[Digest] = ()
    ) -> None:
        self._archive = archive
        self._wanted = wanted
        self._unneeded = {digest.hex: digest for digest in unneeded}
        self._blobs = Blobs()
        self._sizes: dict[Digest, int] = {}
        self._skipped: set[Digest] = set()

    def send(self, receiver: Receiver) -> dict[Digest, ImageContent]:
        """Send the images; return them by target, or nothing if no node reads any more.

        Raises:
            SourceError: if the archive is damaged, hostile, or lacks an image.

        """
        for member, body in tar.read_tar(self._archive):
            if member.kind == "link":
                self._blobs.link(member.path, member.target)
            elif member.kind == "file":
                self._read(member, body, receiver)
            if not receiver.is_open:
                return {}
        images = images_in(self._blobs)
        return {wanted.target: self._finish(wanted, images, receiver) for wanted in self._wanted}

    def _read(self, member: tar.Member, body: tar.Body, receiver: Receiver) -> None:
        start, chunks = peek(body)
        compression = compression_of(start)
        unneeded = self._unneeded.get(digits_of(member.path))
        if compression and not member.path.startswith("blobs/"):
            unneeded = None  # a diff ID is the digest of an uncompressed tar
        if may_be_document(member.path, member.size, start):
            data = b"".join(chunks)
            blob = Blob(Digest.of(data), len(data), "", data)
        elif unneeded:
            self._skipped.add(unneeded)
            blob = Blob(None, member.size, compression)
        elif digest := self._pass_on(member.size, chunks, receiver):
            blob = Blob(digest, member.size, compression)
        else:
            return
        self._blobs.add(member.path, blob)

    def _pass_on(
        self, size: int, chunks: Iterator[memoryview], receiver: Receiver
    ) -> Digest | None:
        writer = receiver.blob(size)
        try:
            for chunk in chunks:
                writer.write(chunk)
                if not receiver.is_open:
                    writer.abandon()
                    return None
            digest = writer.finish()
        except BaseException:
            writer.abandon()
            raise
        self._sizes[digest] = size
        return digest

    def _finish(
        self, wanted: Wanted, images: Sequence[ArchivedImage], receiver: Receiver
    ) -> ImageContent:
        image = choose(images, wanted.target, wanted.platform, wanted.exact)
        manifest, config = image.manifest, image.config
        if len(manifest.layers) != len(config.diff_ids):
            raise ArchiveInvalid("a manifest and its config have different numbers of layers")
        if manifest.config.size != len(config.raw):
            raise DigestMismatch("a config has another size than its manifest says")
        kept = {b.digest: b.data for b in self._blobs.values() if b.digest and b.data is not None}
        for layer in manifest.layers:
            self._check(layer, kept)
        for digest in dict.fromkeys((*(layer.digest for layer in manifest.layers), config.digest)):
            if digest in kept and digest not in self._skipped and digest not in self._sizes:
                writer = receiver.blob(len(kept[digest]), digest)
                writer.write(kept[digest])
                writer.finish(digest)
        pinned = (pinned_index(name, image, self._blobs) for name in wanted.names)
        indexes = {Digest.of(raw): raw for raw in pinned if raw is not None}
        plain = {d: self._sizes[d] for d in config.diff_ids if d in self._sizes}
        content = ImageContent(manifest, config, wanted.names, image.platform, indexes, plain)
        receiver.image(content)
        return content

    def _check(self, layer: Descriptor, kept: dict[Digest, bytes]) -> None:
        self._blobs.by_digest(layer.digest)
        if layer.digest in self._skipped and layer.digest not in self._sizes:
            return
        if layer.digest not in self._sizes and layer.digest not in kept:
            foreign = ", which is a foreign one" if layer.is_foreign else ""
            hint = "save it again; it may be incomplete"
            if foreign:
                hint = "save the image with a tool that keeps foreign layers, such as docker save"
            raise ArchiveInvalid(f"the archive lacks the layer {layer.digest}{foreign}", hint=hint)
        size = self._sizes.get(layer.digest, len(kept.get(layer.digest, b"")))
        if size != layer.size:
            raise DigestMismatch(f"the layer {layer.digest} has {size} bytes, not {layer.size}")
