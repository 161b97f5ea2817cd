"""The interface of a source of images, and the choice between its save and its push."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Collection, Iterable, Mapping, Sequence
from contextlib import AbstractContextManager
from typing import TYPE_CHECKING, Literal

import attrs

from imgload.core.errors import ImgloadError, UsageError
from imgload.oci.digest import Digest
from imgload.oci.document import Manifest
from imgload.oci.platform import Platform
from imgload.oci.reference import pinned

if TYPE_CHECKING:
    from imgload.engines.base import PushStyle
    from imgload.registry.sink import PushSink


TransportOption = Literal["auto", "pull", "import", "archive", "delta"]

_CUT_OFF = "the engine cannot push to this process (does it run in a VM?): sending whole images"
_NO_PUSH = "the engine cannot push an image without a name: sending it whole"
_REMOTE = "an engine on another machine cannot push to this one: sending whole images"
_UNKNOWN = "the image ID is not known before the image is saved: sending it whole"
_NOTED_BYTES = 16 << 20


@attrs.frozen
class Image:
    """An image of a source, under one name.

    Args:
        origin: the source.
        id: the source's identifier of the image, for `Source.save`.
        names: its full names on the nodes, as containerd stores them.
        target: the digest that identifies it in the source: of its config, manifest or index.
        image_id: digest of the config; None if only the transfer can determine it.
        platform: the platform that it runs on.
        diff_ids: its layers, bottom up.
        size: bytes, as the source counts them.
        name: one of `names`; empty before a name is chosen.
        manifest: the source's manifest, if known.
        manifest_digest: digest of the manifest, which may be known without the manifest.
        stored: whether the source stores blobs in the form that it pushes, and identifies images
            by manifest.
        is_default_platform: whether `platform` is the source's default.
        is_cut_off: whether the source is known not to reach this process.
        tagged: whether it can be pushed: it has a name, or already a tag for a push.
        layers_named: whether a save identifies layers, so that some can be left out.
        pulled: whether the source shows that it pulled the image from the registry in its name.
        query: the requested name or ID; empty if all images of an archive are requested.
        absent_layers: the layers that the source does not have, by diff ID, and why if it has
            other content in their place.
        notes: lines of information for the user.
        error: why it cannot be loaded; None if it can.

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
    is_default_platform: bool = True
    is_cut_off: bool = False
    tagged: bool = False
    layers_named: bool = True
    pulled: bool = attrs.field(default=False, eq=False)
    query: str = attrs.field(default="", eq=False)
    absent_layers: Mapping[Digest, str] = attrs.field(factory=dict, hash=False)
    notes: tuple[str, ...] = attrs.field(default=(), eq=False)
    error: ImgloadError | None = attrs.field(default=None, eq=False)

    @property
    def source(self) -> str:
        """The name of the source, for the report."""
        return self.origin.name

    @property
    def pin(self) -> Digest | None:
        """The manifest digest in the name, or None."""
        return pinned(self.name)

    @property
    def required_digests(self) -> set[Digest]:
        """The manifest digests in its names."""
        return {pin for name in self.names if (pin := pinned(name))}

    @property
    def blobs(self) -> Sequence[Digest]:
        """The digests of the layers as stored if known, or their diff IDs; bottom up."""
        layers = self.manifest.layers if self.manifest else ()
        return [x.digest for x in layers] if len(layers) == len(self.diff_ids) else self.diff_ids


class Source(ABC):
    """An engine's store, an archive, a layout folder or standard input.

    Attributes:
        name: short, for the report: ``docker``, ``podman``, a path, or ``standard input``.
        describe: the endpoint or path, for messages.
        address: the value of ``--from`` that selects exactly this source.
        listing: the command that lists its images.

    """

    name: str
    describe: str
    address: str
    listing: str

    @abstractmethod
    def find(self, text: str, platform: Platform | None) -> Image | None:
        """Return the image with a name or image ID, or None; it may have an `error`.

        Args:
            text: the name or image ID, as the user wrote it.
            platform: which platform of a multi-platform image; None for the source's default.

        Raises:
            ReferenceInvalid: if `text` is neither a name nor an image ID.
            PlatformMissing: if the image is for another platform.

        """

    def look_ahead(self, texts: Sequence[str]) -> None:  # noqa: B027 - only engines take time
        """Begin to look up images, which `find` will return."""

    def identify(self, image: Image) -> Image:
        """Return the image with its image ID, if determining that takes more than `find`."""
        return image

    def all_images(self, platform: Platform | None) -> list[Image]:
        """Return all images of an archive; some may have an `error`.

        Raises:
            UsageError: if the source is no archive, so that images must be named.

        """
        del platform
        raise UsageError("no image given", hint="name an image, or an archive: app:dev, app.tar")

    def notes(self) -> Sequence[str]:
        """Return lines of information about content that `all_images` omits."""
        return ()

    def suggestions(self, text: str) -> Sequence[str]:
        """Return all names to suggest in place of the missing `text`; none for an engine."""
        del text
        return ()

    def similar_names(self, text: str) -> Sequence[str]:
        """Return a few names of an engine that resemble the missing `text`."""
        del text
        return ()

    def layer_sizes(self, image: Image) -> Sequence[int]:
        """Return the size of each layer in bytes, bottom up; empty if unknown."""
        return [layer.size for layer in image.manifest.layers] if image.manifest else []

    def release(self) -> None:  # noqa: B027 - only engines have something to close
        """Close what `identify` and `Pusher.push` keep open between pushes."""

    @abstractmethod
    def save(self, images: Sequence[Image]) -> AbstractContextManager[Iterable[bytes]]:
        """Stream one archive with all the images."""


class Pusher(Source):
    """A source that can push; `local` if it is on this machine, so that it can push to us."""

    local: bool

    @abstractmethod
    def push_style(self, image: Image) -> PushStyle | None:
        """Return how it pushes an image, or None if it cannot push this one."""

    @abstractmethod
    def push(self, image: Image, sink: PushSink) -> None:
        """Push an image to a sink of this process; `release` closes the connection."""


@attrs.frozen
class Facts:
    """The facts that decide how one image is sent.

    Without `style`, the source cannot push the image. `identified`: its ID is known, and its
    manifest if one is stored. `missing` are the indexes of the layers that a node lacks, `sizes`
    the bytes of all layers, or empty, `known_layers` those that the engine has pushed before.
    """

    style: PushStyle | None
    cut_off: bool
    identified: bool
    diff_ids: Sequence[Digest]
    missing: Collection[int]
    sizes: Sequence[int]
    known_layers: Collection[Digest]
    local: bool = True

    @property
    def summary(self) -> str:
        """The facts on one line, for the log."""
        push = "can push it" if self.pushable else "cannot push it"
        return f"{len(self.missing)} of {len(self.diff_ids)} layers are missing; the engine {push}"

    @property
    def pushable(self) -> bool:
        """Whether the engine can push the image, and imgload can check its ID."""
        return self.style is not None and self.identified and not self.cut_off


@attrs.frozen
class Choice:
    """Whether to push, and a note for the user."""

    push: bool
    note: str = ""


def choose(option: TransportOption, facts: Facts) -> Choice:
    """Choose between save and push for one image, by cost.

    Docker's containerd image store pushes stored blobs unchanged, eight times as fast as it saves.
    Podman and Docker's graphdriver store compress pushed layers, which is slower than a save; but
    they save whole images only.
    """
    if option == "archive" or not facts.pushable:
        return Choice(push=False, note=_why_no_push(option, facts))
    if option == "auto" and facts.style != "stored":
        sizes = facts.sizes if len(facts.sizes) == len(facts.diff_ids) else ()
        mostly_missing = bool(sizes) and sum(sizes[i] for i in facts.missing) > sum(sizes) / 2
        if mostly_missing or len(facts.missing) == len(facts.diff_ids):
            return Choice(push=False)
    return Choice(push=True, note=_compression_note(facts))


def _why_no_push(option: TransportOption, facts: Facts) -> str:
    if option == "archive":
        return ""
    if facts.style and facts.cut_off:
        return _CUT_OFF
    if option == "auto":
        return ""
    if not facts.local:
        return _REMOTE
    return _UNKNOWN if facts.style else _NO_PUSH


def _compression_note(facts: Facts) -> str:
    """Announce the layers that Docker must compress once, before it asks for their digests."""
    if facts.style != "remembering" or len(facts.sizes) != len(facts.diff_ids):
        return ""
    pairs = enumerate(zip(facts.diff_ids, facts.sizes, strict=True))
    first = len(facts.missing) == len(facts.diff_ids)
    expected = () if first else facts.missing
    new = sum(s for i, (d, s) in pairs if d not in facts.known_layers and i not in expected)
    if new < _NOTED_BYTES:
        return ""
    return (
        f"Docker compresses {new >> 20} MiB of {'' if first else 'unchanged '}layers once;"
        " later builds transfer only changed layers"
    )
