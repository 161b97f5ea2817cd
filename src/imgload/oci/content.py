"""The content of images on its way from a source to nodes.

A source sends blobs in the order in which it has them, and then each image that they belong to; a
receiver passes on what its nodes lack. Neither knows the other.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from contextlib import AbstractContextManager
from typing import Protocol

import attrs

from imgload.oci.digest import Digest
from imgload.oci.document import Descriptor, ImageConfig, Manifest
from imgload.oci.platform import Platform

Chunk = bytes | memoryview


@attrs.frozen
class Layer:
    """A layer of an image, as its manifest describes it.

    Args:
        descriptor: media type, digest and size in bytes, as stored or transferred.
        diff_id: the digest of the uncompressed tar.

    """

    descriptor: Descriptor
    diff_id: Digest


@attrs.frozen
class ImageContent:
    """One image: its documents with their raw bytes, its layers, and the names it gets.

    Args:
        manifest: as the source has it, or made from a docker-archive.
        config: its digest is the image ID.
        names: full names, as containerd keeps them.
        platform: what it runs on; an index may tell variants apart that configs do not.
        indexes: raw indexes that names demand by digest.
        plain: bytes of layers as uncompressed tars, by diff ID, where that is known.

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
    """One blob on its way into a receiver."""

    def write(self, chunk: Chunk) -> None:
        """Pass on a piece."""

    def finish(self, digest: Digest | None = None) -> Digest:
        """End the blob and return its digest.

        Raises:
            DigestMismatch: when it is not the expected one, or the size is not the announced one.

        """

    def abandon(self) -> None:
        """Give up half a blob; what was written cannot be taken back."""


class Receiver(ABC):
    """Takes the content of images; may be called from several threads."""

    @abstractmethod
    def lacks(self, digest: Digest, diff_id: Digest | None) -> bool:
        """Whether a blob has still to be sent.

        Args:
            digest: of the blob.
            diff_id: of the layer that it is; None for a config.

        """

    @abstractmethod
    def blob(
        self, size: int, digest: Digest | None = None, diff_id: Digest | None = None
    ) -> BlobWriter:
        """Begin a blob, once no other one is on its way.

        Args:
            size: in bytes.
            digest: where it is known before the end.
            diff_id: of the layer that it is, where that is known.

        """

    @abstractmethod
    def image(self, content: ImageContent) -> None:
        """Name an image whose blobs were all sent."""

    @abstractmethod
    def exclusive(self) -> AbstractContextManager[None]:
        """Keep all other threads from sending.

        Raises:
            DigestMismatch: when another one has sent half a blob.

        """

    @property
    @abstractmethod
    def is_open(self) -> bool:
        """Whether anybody still reads; otherwise the rest need not be sent."""
