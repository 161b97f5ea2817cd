"""The content of images on its way from a source to nodes.

A source sends blobs in the order in which it has them, then each image that they belong to; a
receiver passes on those that its nodes lack. Neither knows the other.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager
from typing import IO, Protocol

import attrs

from imgload.oci.digest import Digest
from imgload.oci.document import Descriptor, ImageConfig, Manifest
from imgload.oci.platform import Platform

Chunk = bytes | memoryview


@attrs.frozen
class Layer:
    """A layer as stored or transferred, and the digest of its uncompressed tar."""

    descriptor: Descriptor
    diff_id: Digest


@attrs.frozen
class ImageContent:
    """One image: its documents with their raw bytes, its layers, and its names on the nodes.

    Args:
        manifest: of the source, or built from a docker-archive.
        config: its digest is the image ID.
        names: full names, as containerd stores them.
        platform: an index may distinguish variants that configs do not.
        indexes: raw indexes that names demand by digest.
        plain: sizes in bytes of layers as uncompressed tars, by diff ID, where known.

    """

    manifest: Manifest
    config: ImageConfig
    names: tuple[str, ...]
    platform: Platform
    indexes: Mapping[Digest, bytes] = attrs.field(factory=dict, hash=False)
    plain: Mapping[Digest, int] = attrs.field(factory=dict, hash=False)

    @property
    def layers(self) -> tuple[Layer, ...]:
        """The layers, bottom up."""
        pairs = zip(self.manifest.layers, self.config.diff_ids, strict=True)
        return tuple(Layer(descriptor, diff_id) for descriptor, diff_id in pairs)


class BlobWriter(Protocol):
    """Writes one blob into a receiver."""

    def write(self, chunk: Chunk) -> None:
        """Append a chunk; raise DigestMismatch if the blob exceeds its announced size."""

    def finish(self, digest: Digest | None = None) -> Digest:
        """End the blob; return its digest.

        Raises:
            DigestMismatch: if digest or size are not the announced ones.

        """

    def abandon(self) -> None:
        """Give up an incomplete blob; it has no effect after `finish`."""


class Receiver(ABC):
    """Receives the content of images; thread-safe."""

    @abstractmethod
    def lacks(self, digest: Digest, diff_id: Digest | None) -> bool:
        """Whether a blob has to be sent; `diff_id` is the layer's, None for a config."""

    @abstractmethod
    def blob(
        self, size: int, digest: Digest | None = None, diff_id: Digest | None = None
    ) -> BlobWriter:
        """Wait until no other blob is being sent, and begin one of `size` bytes."""

    def announce(  # noqa: B027 - most receivers need no announcement
        self, manifest: Manifest, diff_ids: Sequence[Digest], names: Sequence[str]
    ) -> None:
        """Name an image before its blobs are sent, if its manifest is known by then."""

    def place(
        self,
        file: IO[bytes],  # noqa: ARG002
        offset: int,  # noqa: ARG002
        size: int,  # noqa: ARG002
        digest: Digest,  # noqa: ARG002
    ) -> bool:
        """Take a blob that is part of a file; return False if it must be written instead.

        The file stays open until the content is complete. The digest is only claimed.
        """
        return False

    @abstractmethod
    def image(self, content: ImageContent) -> None:
        """Name an image whose blobs were all sent."""

    @abstractmethod
    def exclusive(self) -> AbstractContextManager[None]:
        """Keep all other threads from sending.

        Raises:
            DigestMismatch: if another thread left an incomplete blob.

        """

    @property
    @abstractmethod
    def is_open(self) -> bool:
        """Whether any node still reads; if not, sending can stop."""
