"""Where the registry puts what an engine pushes: `PushSink` is the interface."""

from __future__ import annotations

from typing import Protocol

import attrs

from imgload.core.errors import ArchiveInvalid
from imgload.oci.digest import Digest

MAX_UPLOADS = 2000
MAX_MANIFEST_BYTES = 32 << 20
"""Bytes of all manifests of one push."""


class UploadWriter(Protocol):
    """One blob that is being uploaded."""

    def write(self, chunk: bytes) -> None:
        """Append a chunk."""

    def finish(self, digest: Digest) -> None:
        """Complete the blob; raise DigestMismatch if its content has another digest."""

    def abandon(self) -> None:
        """Discard the blob."""


class PushSink(Protocol):
    """Receives a push, in several threads; an ImgloadError makes the registry refuse the request.

    OCI distribution spec, "Push".
    """

    def stat_blob(self, digest: Digest) -> int | None:
        """Return the size (0 if unknown) of a blob that need not be sent; None if it must be."""

    def upload(self, digest: Digest | None, size: int | None) -> UploadWriter:
        """Open an upload; `digest` and `size` (in bytes) are None if not known yet."""

    def manifest(self, digest: Digest, raw: bytes) -> None:
        """Accept a manifest or index."""


@attrs.define
class ManifestSink:
    """An intake that claims to have every blob and therefore receives only manifests."""

    taken: dict[Digest, bytes] = attrs.field(factory=dict)

    def stat_blob(self, _digest: Digest) -> int | None:
        return 0

    def upload(self, _digest: Digest | None, _size: int | None) -> UploadWriter:
        raise ArchiveInvalid("no blob was requested")

    def manifest(self, digest: Digest, raw: bytes) -> None:
        keep_manifest(self.taken, digest, raw, MAX_UPLOADS)


def keep_manifest(taken: dict[Digest, bytes], digest: Digest, raw: bytes, most: int) -> None:
    """Add a manifest to the manifests of a push.

    Raises:
        ArchiveInvalid: when `taken` has `most` already, or more than MAX_MANIFEST_BYTES together.

    """
    size = sum(map(len, list(taken.values())))
    if len(taken) >= most or size + len(raw) > MAX_MANIFEST_BYTES:
        raise ArchiveInvalid("the engine pushed too many manifests")
    taken[digest] = raw
