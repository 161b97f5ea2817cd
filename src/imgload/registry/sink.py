"""What a receiver does with what is pushed to it."""

from __future__ import annotations

from typing import Protocol

import attrs

from imgload.core.errors import ArchiveInvalid
from imgload.oci.digest import Digest

MAX_UPLOADS = 2000
MAX_MANIFEST_BYTES = 32 << 20
"""Bytes of all the manifests of a push together."""


class Upload(Protocol):
    """One blob on its way in."""

    def write(self, chunk: bytes) -> None:
        """Take a piece."""

    def finish(self, digest: Digest) -> None:
        """Take the blob for complete; DigestMismatch when it is not what it should be."""

    def abandon(self) -> None:
        """Forget the blob."""


class Intake(Protocol):
    """What happens to a push; called from several threads. An ImgloadError refuses the request."""

    def size_of(self, digest: Digest) -> int | None:
        """Return a blob's size, or 0, when it need not be sent; None when it must be."""

    def upload(self, digest: Digest | None, size: int | None) -> Upload:
        """Open an upload; what is not known yet is None."""

    def manifest(self, digest: Digest, raw: bytes) -> None:
        """Take a manifest or index."""


@attrs.define
class Manifests:
    """An intake that has every blob, and is therefore handed only manifests."""

    taken: dict[Digest, bytes] = attrs.field(factory=dict)

    def size_of(self, _digest: Digest) -> int | None:
        """Have it."""
        return 0

    def upload(self, _digest: Digest | None, _size: int | None) -> Upload:
        """Take nothing."""
        raise ArchiveInvalid("no blob was asked for")

    def manifest(self, digest: Digest, raw: bytes) -> None:
        """Keep it."""
        keep_manifest(self.taken, digest, raw, MAX_UPLOADS)


def keep_manifest(taken: dict[Digest, bytes], digest: Digest, raw: bytes, most: int) -> None:
    """Add a manifest to those of a push.

    Raises:
        ArchiveInvalid: when there are `most` already, or all together become too long.

    """
    size = sum(map(len, list(taken.values())))
    if len(taken) >= most or size + len(raw) > MAX_MANIFEST_BYTES:
        raise ArchiveInvalid("the engine pushed too many manifests")
    taken[digest] = raw
