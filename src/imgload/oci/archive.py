"""Sends the images of an archive while it is read."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from functools import partial

import attrs

from imgload.core.compression import Compression
from imgload.core.errors import ArchiveInvalid, DigestMismatch, ManifestMissing, SourceError
from imgload.core.files import read_at
from imgload.oci.catalogue import ArchivedImage, Catalogue, catalogue_of, choose
from imgload.oci.content import Chunk, ImageContent, Receiver
from imgload.oci.digest import Digest
from imgload.oci.document import Descriptor
from imgload.oci.members import (
    Blob,
    Blobs,
    claimed_digest,
    digits_of,
    other_digest,
    sha256_of,
)
from imgload.oci.platform import Platform
from imgload.oci.reference import pinned
from imgload.oci.tar import Member


@attrs.frozen
class Wanted:
    """An image to take out of an archive, with its full names on the nodes.

    `target` is the digest of its config, its manifest, or an index above it; `platform` is to
    choose from an index. `exact` are digests of its own manifest or config, if known: Docker saves
    one platform of an index without the index. `layers` are the blobs of its layers, if known: a
    damaged blob of another image then does no harm.
    """

    target: Digest
    names: tuple[str, ...]
    platform: Platform | None = None
    exact: tuple[Digest, ...] = ()
    layers: frozenset[Digest] | None = None


class ArchiveSender:
    """Sends images while their archive is read.

    Layers are passed on as they arrive, unless the archive is a file or a folder: its layers are
    sent once the images are known. The manifests and configs of a stream are known only at its end.
    `unneeded` are layers that no node lacks, by blob digest or diff ID; they are skipped if their
    paths in the archive contain these digests. `plain_sizes` are those that are known before.
    """

    def __init__(
        self,
        archive: Iterable[bytes],
        wanted: Sequence[Wanted],
        unneeded: Collection[Digest] = (),
        plain_sizes: Mapping[Digest, int] | None = None,
    ) -> None:
        self._archive = archive
        self._plain_sizes = plain_sizes or {}
        self._wanted = wanted
        self._unneeded = frozenset(unneeded)
        known = [image.layers for image in wanted if image.layers is not None]
        self._needed = frozenset[Digest]().union(*known) if len(known) == len(wanted) else None
        self._unneeded_digits = {digest.hex: digest for digest in unneeded}
        self._blobs = Blobs()
        self._sizes: dict[Digest, int] = {}
        self._skipped: set[Digest] = set()

    def send(self, receiver: Receiver) -> dict[Digest, ImageContent]:
        """Send the images; return them by target, or nothing if no node reads any more."""
        if not self._blobs.read(self._archive, partial(self._layer, receiver)):
            return {}
        images, contents = catalogue_of(self._blobs), dict[Digest, ImageContent]()
        for wanted in self._wanted:
            content = self._finish(wanted, images, receiver)
            if content is None:
                return {}
            contents[wanted.target] = content
        return contents

    def _layer(
        self,
        receiver: Receiver,
        member: Member,
        compression: Compression,
        chunks: Iterator[memoryview],
    ) -> Blob | None:
        """Skip a layer or pass it on; return None if no node reads any more."""
        unneeded = self._unneeded_digits.get(digits_of(member.path))
        if compression and not member.path.startswith("blobs/"):
            unneeded = None  # a diff ID is the digest of an uncompressed tar
        if unneeded:
            self._skipped.add(unneeded)
            return Blob(None, member.size, compression) if receiver.is_open else None
        other = other_digest(member.path)
        claimed = None if other else claimed_digest(member.path)
        if claimed and self._needed is not None and claimed not in self._needed:
            return Blob(claimed, member.size, compression) if receiver.is_open else None
        if member.place and other:
            return Blob(sha256_of(chunks), member.size, compression, place=member.place)
        if member.place and (claimed or not compression):
            return Blob(claimed, member.size, compression, place=member.place)
        digest = _write(receiver, member.size, chunks)
        if digest is None:
            return None
        self._sizes[digest] = member.size
        return Blob(digest, member.size, compression)

    def _finish(
        self, wanted: Wanted, catalogue: Catalogue, receiver: Receiver
    ) -> ImageContent | None:
        image = choose(catalogue, wanted.target, wanted.platform, wanted.exact)
        manifest, config = image.manifest, image.config
        kept = self._blobs.documents()
        sizes = {**{digest: len(data) for digest, data in kept.items()}, **self._sizes}
        blobs = {x.digest: blob for x in manifest.layers if (blob := self._blobs.layer(x.digest))}
        placed = {digest: blob for digest, blob in blobs.items() if blob.place}
        sizes |= {digest: blob.size for digest, blob in placed.items()}
        for layer, diff_id in zip(manifest.layers, config.diff_ids, strict=True):
            if layer.digest not in sizes and not {layer.digest, diff_id} & self._unneeded:
                raise _lacks_layer(layer, image.absent_layers.get(diff_id, ""))
        if len(placed) == len(set(manifest.layers)):
            receiver.announce(manifest, config.diff_ids, wanted.names)
        for layer, diff_id in zip(manifest.layers, config.diff_ids, strict=True):
            blob = placed.get(layer.digest)
            if blob and not _send_placed(receiver, blob, layer.digest, diff_id):
                return None
        for digest in dict.fromkeys((*(layer.digest for layer in manifest.layers), config.digest)):
            if digest in kept and digest not in self._skipped and digest not in self._sizes:
                writer = receiver.blob(len(kept[digest]), digest)
                writer.write(kept[digest])
                writer.finish(digest)
        raws = (_pinned_index(name, image, kept) for name in wanted.names)
        indexes = {Digest.of(raw): raw for raw in raws if raw is not None}
        known = {**self._plain_sizes, **sizes}
        plain = {d: known[d] for d in config.diff_ids if d in known and d not in kept}
        content = ImageContent(manifest, config, wanted.names, image.platform, indexes, plain)
        receiver.image(content)
        return content


def _lacks_layer(layer: Descriptor, reason: str) -> SourceError:
    if reason:
        return DigestMismatch(f"the archive lacks the layer {layer.digest}: {reason}")
    foreign, hint = "", "save it again; it may be incomplete"
    if layer.is_foreign:
        foreign = ", which is a foreign one"
        hint = "save the image with a tool that keeps foreign layers, such as docker save"
    return ArchiveInvalid(f"the archive lacks the layer {layer.digest}{foreign}", hint=hint)


def _send_placed(receiver: Receiver, blob: Blob, digest: Digest, diff_id: Digest) -> bool:
    """Send a layer of an archive that is a file; return False if no node reads any more."""
    assert blob.place is not None  # noqa: S101 - see `_finish`
    if not receiver.lacks(digest, diff_id):
        return receiver.is_open
    file, offset = blob.place
    if receiver.place(file, offset, blob.size, digest):
        return receiver.is_open
    chunks = read_at(file, offset, blob.size)
    return _write(receiver, blob.size, chunks, digest, diff_id) is not None


def _write(
    receiver: Receiver,
    size: int,
    chunks: Iterable[Chunk],
    digest: Digest | None = None,
    diff_id: Digest | None = None,
) -> Digest | None:
    """Write a blob; return its digest, or None if no node reads any more."""
    writer = receiver.blob(size, digest, diff_id)
    try:
        for chunk in chunks:
            writer.write(chunk)
            if not receiver.is_open:
                return None
        return writer.finish(digest)
    finally:
        writer.abandon()


def _pinned_index(
    name: str, image: ArchivedImage, documents: Mapping[Digest, bytes]
) -> bytes | None:
    """Return the index that a name with a digest demands; None if the image's manifest suffices."""
    digest = pinned(name) or image.manifest.digest
    if digest == image.manifest.digest:
        return None
    if image.correction and digest in image.digests:
        raise ManifestMissing(
            f"{name} demands a manifest that cannot be used as it is: {image.correction}",
            hint="name it without the digest: the manifest is then corrected",
        )
    if digest in image.indexes and digest in documents:
        return documents[digest]
    raise ManifestMissing(
        f"the image has the manifest {image.manifest.digest}, and not the one that {name} demands",
        hint="name it without the digest; or load from a store that keeps manifests: Docker's"
        " containerd image store, or an OCI archive",
    )
