"""A place that images come from."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager
from typing import TYPE_CHECKING

import attrs

from imgload.core.errors import UsageError
from imgload.oci.digest import Digest
from imgload.oci.document import Manifest
from imgload.oci.platform import Platform
from imgload.oci.reference import pinned

if TYPE_CHECKING:
    from imgload.engines.base import PushStyle
    from imgload.registry.sink import Intake


@attrs.frozen
class Image:
    """An image of a source, under one name.

    Args:
        origin: the source.
        id: what the source calls it, for `Source.save`.
        names: its full names on the nodes, as containerd keeps them.
        target: the digest that the source knows it by: of its config, manifest or index.
        image_id: digest of the config; None where only the transfer will tell.
        platform: what it runs on.
        diff_ids: its layers, bottom up.
        size: bytes, as the source counts them.
        name: the one of its names that this is about; empty before a name is chosen.
        manifest: as the source has it, where that is known.
        manifest_digest: of the manifest, which may be known without it.
        stored: whether the source keeps blobs as they are pushed, and knows images by manifest.
        own_platform: whether it is the platform that the source would choose itself.
        cut_off: whether the source is known not to reach this process.
        tagged: whether it can be pushed: it has a name of its own, or already one for a push.
        layers_named: whether a save says which layer is which, so that some can be left out.
        query: the name or ID that was searched for; empty where all images of an archive are meant.

    """

    origin: Source = attrs.field(repr=False)
    id: str
    names: tuple[str, ...]
    target: Digest
    image_id: Digest | None
    platform: Platform
    diff_ids: tuple[Digest, ...]
    size: int
    name: str = ""
    manifest: Manifest | None = None
    manifest_digest: Digest | None = None
    stored: bool = False
    own_platform: bool = True
    cut_off: bool = False
    tagged: bool = False
    layers_named: bool = True
    query: str = attrs.field(default="", eq=False)

    @property
    def source(self) -> str:
        """The name of the source, for the report."""
        return self.origin.name

    @property
    def pin(self) -> Digest | None:
        """The manifest digest that the name demands, or None."""
        return pinned(self.name)

    @property
    def required_digests(self) -> set[Digest]:
        """The manifest digests that its names demand."""
        return {pin for name in self.names if (pin := pinned(name))}

    @property
    def blobs(self) -> Sequence[Digest]:
        """The layers as stored where that is known, or their diff IDs; bottom up."""
        layers = self.manifest.layers if self.manifest else ()
        return [x.digest for x in layers] if len(layers) == len(self.diff_ids) else self.diff_ids


class Source(ABC):
    """An engine's store, an archive, a layout folder or standard input.

    Attributes:
        name: short, for the report: ``docker``, ``podman``, a path, or ``standard input``.
        describe: where it is, for messages.
        address: what ``--from`` takes for exactly this source.
        listing: the command that shows what it has.

    """

    name: str
    describe: str
    address: str
    listing: str

    @abstractmethod
    def find(self, text: str, platform: Platform | None) -> Image | None:
        """Return the image that a name or image ID means here, or None.

        Args:
            text: as the user wrote it.
            platform: which platform of a multi-platform image; None for the source's own.

        Raises:
            ReferenceInvalid: when it is neither a name nor an image ID.
            PlatformMissing: when the image is for another platform.

        """

    def identify(self, image: Image) -> Image:
        """Return an image with its image ID, where that takes more than `find` did."""
        return image

    def everything(self, platform: Platform | None) -> list[Image]:
        """Return all images, where that is what naming none means: in an archive.

        Raises:
            UsageError: when it is not.

        """
        del platform
        raise UsageError("no image named", hint="name an image, for example app:dev")

    def holdings(self, text: str) -> Sequence[str]:
        """Return what could have been asked for instead, where that is not too much to tell.

        Args:
            text: what was asked for, and is not here.

        """
        del text
        return ()

    def layer_sizes(self, image: Image) -> Sequence[int]:
        """Return the bytes of each layer, bottom up; empty where that is not known."""
        return [layer.size for layer in image.manifest.layers] if image.manifest else []

    def release(self) -> None:  # noqa: B027 - most hold nothing
        """Let go of what was held while images were asked for."""

    @abstractmethod
    def save(self, images: Sequence[Image]) -> AbstractContextManager[Iterator[bytes]]:
        """Stream one archive with all the images."""


class Pusher(Source):
    """A source that can push to a registry; it is remembered by its address.

    Attributes:
        local: whether it is on this machine; no other is told to push to its own loopback.

    """

    local: bool

    @abstractmethod
    def push_style(self, image: Image) -> PushStyle | None:
        """Return how it pushes an image, or None when it cannot push this one."""

    @abstractmethod
    def push(self, image: Image, intake: Intake) -> None:
        """Push an image to an intake of this process; what that takes is kept until `release`."""
