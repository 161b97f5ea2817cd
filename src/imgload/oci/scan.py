"""A first look at an archive: what images are in it, without reading its layers."""

from __future__ import annotations

from collections.abc import Iterable

from imgload.oci.archive import ArchivedImage, images_in
from imgload.oci.blobs import Blob, Blobs, compression_of, may_be_document, peek
from imgload.oci.digest import Digest
from imgload.oci.tar import read_tar


def scan(archive: Iterable[bytes]) -> tuple[ArchivedImage, ...]:
    """Return the images of an archive.

    Args:
        archive: its chunks; layers are passed over where the chunks are `tar.Seekable`.

    Raises:
        ArchiveInvalid: when the archive is damaged or no image archive.

    """
    blobs = Blobs()
    for member, body in read_tar(archive):
        if member.kind == "link":
            blobs.link(member.path, member.target)
        elif member.kind == "file":
            start, pieces = peek(body)
            if may_be_document(member.path, member.size, start):
                data = b"".join(pieces)
                blobs.add(member.path, Blob(Digest.of(data), len(data), "", data))
            else:
                blobs.add(member.path, Blob(None, member.size, compression_of(start)))
    return images_in(blobs)
