"""The images of an archive, listed without reading its layers."""

from __future__ import annotations

from collections.abc import Iterable

from imgload.oci.archive import ArchivedImage, images_in
from imgload.oci.blobs import Blob, Blobs, compression_of, may_be_document, peek
from imgload.oci.digest import Digest
from imgload.oci.tar import read_tar


def scan(archive: Iterable[bytes]) -> tuple[ArchivedImage, ...]:
    """Return the images of an archive, whose layers are skipped if it is `tar.Seekable`.

    Raises:
        ArchiveInvalid: if it is damaged, or not an image archive.

    """
    blobs = Blobs()
    for member, body in read_tar(archive):
        if member.kind == "link":
            blobs.link(member.path, member.target)
        elif member.kind == "file":
            start, chunks = peek(body)
            blob = Blob(None, member.size, compression_of(start))
            if may_be_document(member.path, member.size, start):
                data = b"".join(chunks)
                blob = Blob(Digest.of(data), len(data), "", data)
            blobs.add(member.path, blob)
    return images_in(blobs)
