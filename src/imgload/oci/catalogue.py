"""The images of an archive, whichever tool saved it.

Three formats exist: the docker-archive (``manifest.json``; layers named by ID in Docker up to 24
and Podman), the OCI layout (``index.json``, image-layout.md), and both, from Docker 25 on.
Then ``index.json`` wins, and ``manifest.json`` adds the images that the index lacks: Docker's
graphdriver store indexes only one of several images saved by ID (moby #51389), and none in 25.0.0
(moby #47210).
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import Any

import attrs

from imgload.core.errors import ArchiveInvalid, DigestMismatch, PlatformMissing
from imgload.oci.digest import Digest
from imgload.oci.document import (
    DOCKER_INDEX,
    IMAGE_NAME,
    INDEX,
    LAYER,
    MAX_LAYERS,
    MAX_MANIFESTS,
    REF_NAME,
    Descriptor,
    ImageConfig,
    Index,
    Manifest,
    load_json,
)
from imgload.oci.members import Blob, Blobs, digits_of
from imgload.oci.platform import Platform

_MAX_NESTING = 4
_MOST_LAYERS = 50_000


@attrs.frozen
class ArchivedImage:
    """An image of an archive.

    Its manifest is a guess if layers of a docker-archive were skipped. `indexes` are the indexes
    above the manifest, `listed` is its platform in an index, which its config may lack, and
    `absent` are platforms of the same index without content. If `layers_named`, the paths of layers
    contain their digests, so that some can be skipped.
    """

    manifest: Manifest
    config: ImageConfig
    names: tuple[str, ...] = ()
    indexes: tuple[Digest, ...] = ()
    listed: Platform | None = None
    absent: frozenset[Platform] = frozenset()
    layers_named: bool = True

    @property
    def platform(self) -> Platform:
        return self.listed or self.config.platform

    def is_called(self, target: Digest) -> bool:
        """Whether a digest is that of its config, its manifest, or an index above it."""
        return target in {self.config.digest, self.manifest.digest, *self.indexes}


def images_in(blobs: Blobs) -> tuple[ArchivedImage, ...]:
    """Return the images of an archive that was read to its end."""
    index, docker_list = blobs.get("index.json"), blobs.get("manifest.json")
    if index is None and docker_list is None:
        raise ArchiveInvalid(
            "not an image archive: it has neither manifest.json nor index.json",
            hint="make one with: docker save IMAGE -o FILE, or podman save IMAGE -o FILE",
        )
    listed: tuple[ArchivedImage, ...] = ()
    if index:
        if index.data is None:
            raise ArchiveInvalid("index.json is too large to be an image index")
        listed = tuple(_Layout(blobs).walk(Index.parse(index.data)))
    if docker_list is None:
        return listed
    return (*listed, *_from_docker(blobs, docker_list.data or b"", listed))


def choose(
    images: Sequence[ArchivedImage],
    target: Digest,
    platform: Platform | None,
    exact: Sequence[Digest] = (),
) -> ArchivedImage:
    """Return the image with a digest and a platform; see `Wanted` for the arguments."""
    for digest in exact:
        for image in images:
            if digest in {image.manifest.digest, image.config.digest}:
                return image
    named = [image for image in images if image.is_called(target)]
    if not named:
        raise ArchiveInvalid(f"the archive does not have the image {target}")
    for image in named:
        if platform in {None, image.platform}:
            return image
    available = ", ".join(sorted({str(image.platform) for image in named}))
    raise PlatformMissing(
        f"the image has no {platform}; it has {available}",
        hint="build it for that platform, or choose another one with --platform",
    )


@attrs.define
class _Layout:
    """Reads the indexes of an OCI layout; an image may be listed several times."""

    blobs: Blobs
    entries: int = 0
    layers: dict[Digest, int] = attrs.field(factory=dict)
    """The number of layers of each manifest."""

    def walk(
        self, index: Index, above: tuple[Digest, ...] = (), names: tuple[str, ...] = ()
    ) -> Iterator[ArchivedImage]:
        if len(above) > _MAX_NESTING or index.digest in above:
            raise ArchiveInvalid("the archive's indexes are nested without end")
        above = (*above, index.digest)
        images: list[ArchivedImage] = []
        absent: dict[tuple[str, ...], set[Platform]] = {}
        for entry in index.manifests:
            self.entries += 1
            if self.entries > MAX_MANIFESTS:
                raise ArchiveInvalid(f"the archive's indexes have over {MAX_MANIFESTS} entries")
            if entry.is_attestation:
                continue
            own_names = names or _names(entry)
            of_entry = tuple(self._images(entry, above, own_names))
            images += of_entry
            if not of_entry and entry.platform:
                absent.setdefault(own_names, set()).add(entry.platform)
        for image in images:
            yield attrs.evolve(image, absent=image.absent | absent.get(image.names, set()))

    def _images(
        self, entry: Descriptor, above: tuple[Digest, ...], names: tuple[str, ...]
    ) -> Iterator[ArchivedImage]:
        """Yield the images of an entry; an index may list content that is absent (kind #3795)."""
        blob = self.blobs.by_digest(entry.digest)
        if blob is None or blob.data is None:
            return
        if entry.media_type in {INDEX, DOCKER_INDEX}:
            yield from self.walk(self.blobs.parsed(blob, Index.parse), above, names)
            return
        manifest = self.blobs.parsed(blob, Manifest.parse)
        config = self.blobs.by_digest(manifest.config.digest)
        if config is None or config.data is None:
            return
        self.layers[manifest.digest] = len(manifest.layers)
        _limit_layers(sum(self.layers.values()))
        parsed = self.blobs.parsed(config, ImageConfig.parse)
        yield ArchivedImage(manifest, parsed, names, above, entry.platform)


def _names(entry: Descriptor) -> tuple[str, ...]:
    """Return the name of an entry; a bare tag is not a name (ctr makes up import-DATE for it)."""
    name = entry.annotations.get(IMAGE_NAME) or entry.annotations.get(REF_NAME, "")
    return (name,) if "/" in name or ":" in name else ()


def _limit_layers(count: int) -> None:
    if count > _MOST_LAYERS:
        raise ArchiveInvalid(f"the archive's images have more than {_MOST_LAYERS} layers")


def _from_docker(
    blobs: Blobs, raw: bytes, listed: Sequence[ArchivedImage]
) -> Iterator[ArchivedImage]:
    """Yield the images of ``manifest.json`` that the index does not list.

    Beside an index, an image without its config is skipped, as in the index.
    """
    known, layers = {image.config.digest for image in listed}, 0
    for entry in _docker_entries(raw):
        path = entry.get("Config")
        if not isinstance(path, str):
            raise ArchiveInvalid("manifest.json names no config")
        blob = blobs.get(path)
        if blob is None or blob.data is None:
            if listed:
                continue
            raise ArchiveInvalid(f"the archive lacks its config {path!r:.200}")
        config = blobs.parsed(blob, ImageConfig.parse)
        if config.digest in known:
            continue
        paths = _strings(entry.get("Layers"), MAX_LAYERS)
        layers += len(paths)
        _limit_layers(layers)
        manifest = Manifest.build(config, tuple(_layers(blobs, config, paths)))
        names = _strings(entry.get("RepoTags"), MAX_MANIFESTS)
        named = {digits_of(path) for path in paths} <= {digest.hex for digest in config.diff_ids}
        yield ArchivedImage(manifest, config, names, layers_named=named)


def _docker_entries(raw: bytes) -> list[dict[str, Any]]:
    try:
        entries = load_json(raw)
    except ValueError as error:
        raise ArchiveInvalid(f"manifest.json is not valid JSON: {error}") from error
    if not isinstance(entries, list) or not all(isinstance(entry, dict) for entry in entries):
        raise ArchiveInvalid("manifest.json is not a list of images")
    if len(entries) > MAX_MANIFESTS:
        raise ArchiveInvalid(
            f"the archive has {len(entries)} images, more than {MAX_MANIFESTS}",
            hint="save them into several archives",
        )
    return entries


def _strings(value: object, limit: int) -> tuple[str, ...]:
    if value is None:
        return ()
    if not isinstance(value, list) or len(value) > limit:
        raise ArchiveInvalid("manifest.json is malformed")
    return tuple(map(str, value))


def _layers(blobs: Blobs, config: ImageConfig, paths: tuple[str, ...]) -> Iterator[Descriptor]:
    if len(paths) != len(config.diff_ids):
        raise ArchiveInvalid(
            f"the archive has {len(paths)} layers where its config has {len(config.diff_ids)}"
        )
    for path, diff_id in zip(paths, config.diff_ids, strict=True):
        blob = blobs.get(path)
        if blob is None:
            raise ArchiveInvalid(f"the archive lacks the layer {path!r:.200}")
        digest = blob.digest or diff_id
        if not blob.compression and digest != diff_id:
            raise DigestMismatch(f"the layer {path!r:.200} is {digest}, not {diff_id}")
        blobs.add_layer(digest, blob)
        suffix = f"+{blob.compression}" if blob.compression else ""
        yield Descriptor(LAYER + suffix, digest, blob.size)


def scan(archive: Iterable[bytes]) -> tuple[ArchivedImage, ...]:
    """Return the images of an archive, whose layers are skipped if it is `tar.Seekable`."""
    blobs = Blobs()
    blobs.read(archive, lambda member, compression, _: Blob(None, member.size, compression))
    return images_in(blobs)
