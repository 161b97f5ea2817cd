"""What images an archive holds, whichever tool saved it.

Three forms are understood: the docker-archive (``manifest.json``; layers named by ID as Docker up
to 24 and Podman write it), the OCI layout (``index.json``, image-layout.md), and both at once as
Docker from 25 on writes it. Then ``index.json`` wins, and ``manifest.json`` adds the images that
the index does not list: Docker's graphdriver store indexes only one of several images that are
saved by ID (moby #51389), and none in 25.0.0 (moby #47210).
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import attrs

from imgload.core.errors import ArchiveInvalid, DigestMismatch, ManifestMissing, PlatformMissing
from imgload.oci.blobs import Blob, Blobs, digits_of
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
)
from imgload.oci.jsontext import load_json
from imgload.oci.platform import Platform

_MAX_NESTING = 4
_MOST_LAYERS = 50_000


@attrs.frozen
class ArchivedImage:
    """An image found in an archive.

    Where layers were passed over unread, the manifest of a docker-archive is a guess.

    Args:
        names: what the archive calls it.
        indexes: the indexes that lead to it.
        listed: the platform that an index has it for, which need not stand in its config.
        absent: platforms beside it in the index that the archive lacks.
        layers_named: whether paths say which layer is which, so that some can be left out.

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
        """What it runs on: an index may tell variants apart that their configs do not."""
        return self.listed or self.config.platform

    def is_called(self, target: Digest) -> bool:
        """Whether the digest is this image's: of its config, its manifest, or an index over it."""
        return target in {*self.own_digests, *self.indexes}

    @property
    def own_digests(self) -> tuple[Digest, Digest]:
        """The digests that no other image has: its manifest's, and its image ID."""
        return self.manifest.digest, self.config.digest


def images_in(blobs: Blobs) -> tuple[ArchivedImage, ...]:
    """Return the images of an archive that was read to its end.

    Raises:
        ArchiveInvalid: when the archive is no image archive, or contradicts itself.

    """
    listed = tuple(_from_layout(blobs)) if blobs.get("index.json") is not None else None
    if blobs.get("manifest.json") is not None:
        return (*(listed or ()), *_from_docker(blobs, listed or ()))
    if listed is not None:
        return listed
    raise ArchiveInvalid(
        "not an image archive: it has neither manifest.json nor index.json",
        hint="make one with: docker save IMAGE -o FILE, or podman save IMAGE -o FILE",
    )


def choose(
    images: Sequence[ArchivedImage],
    target: Digest,
    platform: Platform | None,
    exact: Sequence[Digest] = (),
) -> ArchivedImage:
    """Return the image that a digest and a platform mean.

    Args:
        images: of the archive.
        target: the digest of the image's config, its manifest, or an index over it.
        platform: which platform of an index; None when there is one image.
        exact: digests of its very manifest or config, where they are known; they decide.

    Raises:
        ArchiveInvalid: when the archive does not have it.
        PlatformMissing: when it has it for other platforms only.

    """
    known = (image for digest in exact for image in images if digest in image.own_digests)
    if image := next(known, None):
        return image
    called = [image for image in images if image.is_called(target)]
    if not called:
        raise ArchiveInvalid(f"the archive does not have the image {target}")
    fitting = [i for i in called if platform is None or i.platform == platform]
    if not fitting:
        there = ", ".join(sorted({str(image.platform) for image in called}))
        raise PlatformMissing(
            f"the image has no {platform}; it has {there}",
            hint="build it for that platform, or choose one that is there with --platform",
        )
    return fitting[0]


def pinned_index(name: str, image: ArchivedImage, blobs: Blobs) -> bytes | None:
    """Return the index that a name with a digest demands, or None when its manifest will do.

    Raises:
        ManifestMissing: when the archive has nothing of that digest for the image.

    """
    _, at, text = name.partition("@")
    digest = Digest.parse(text) if at else image.manifest.digest
    if digest == image.manifest.digest:
        return None
    kept = (blob.data for blob in blobs.values() if blob.digest == digest)
    raw = next((data for data in kept if data is not None), None)
    if digest in image.indexes and raw is not None:
        return raw
    raise ManifestMissing(
        f"the image has the manifest {image.manifest.digest}, and not the one that {name} demands",
        hint="name it without the digest; or load from a store that keeps manifests: Docker's"
        " containerd image store, or an OCI archive",
    )


def _from_layout(blobs: Blobs) -> Iterator[ArchivedImage]:
    raw = blobs.content("index.json")
    if raw is None:
        raise ArchiveInvalid("index.json is too large to be an image index")
    yield from _walk(blobs, Index.parse(raw), _Trail())


@attrs.define
class _Trail:
    """The way to an index; `steps` counts the entries on all ways, `seen` are the images there."""

    above: tuple[Digest, ...] = ()
    names: tuple[str, ...] = ()
    steps: list[None] = attrs.field(factory=list)
    seen: dict[Digest, ArchivedImage | None] = attrs.field(factory=dict)

    def down(self, index: Index, names: tuple[str, ...]) -> _Trail:
        return _Trail((*self.above, index.digest), names, self.steps, self.seen)

    def image(self, blobs: Blobs, raw: bytes, digest: Digest) -> ArchivedImage | None:
        """Return the image of a manifest, which is parsed once however often it is listed."""
        if digest not in self.seen:
            self.seen[digest] = _image(blobs, raw)
            _require_few(sum(len(i.manifest.layers) for i in self.seen.values() if i))
        image = self.seen[digest]
        return attrs.evolve(image, names=self.names, indexes=self.above) if image else None


def _require_few(layers: int) -> None:
    if layers > _MOST_LAYERS:
        raise ArchiveInvalid(f"the archive's images have more than {_MOST_LAYERS} layers")


def _walk(blobs: Blobs, index: Index, trail: _Trail) -> Iterator[ArchivedImage]:
    if len(trail.above) > _MAX_NESTING or index.digest in trail.above:
        raise ArchiveInvalid("the archive's indexes are nested without end")
    found: list[ArchivedImage] = []
    absent: dict[tuple[str, ...], set[Platform]] = {}
    for entry in index.manifests:
        trail.steps.append(None)
        if len(trail.steps) > MAX_MANIFESTS:
            raise ArchiveInvalid(f"the archive's indexes list more than {MAX_MANIFESTS} manifests")
        below = trail.down(index, trail.names or _names(entry))
        images = () if entry.is_attestation else tuple(_listed(blobs, entry, below))
        found += images
        if not images and entry.platform and not entry.is_attestation:
            absent.setdefault(below.names, set()).add(entry.platform)
    for image in found:
        yield attrs.evolve(image, absent=image.absent | absent.get(image.names, set()))


def _listed(blobs: Blobs, entry: Descriptor, trail: _Trail) -> Iterator[ArchivedImage]:
    """Yield what an entry leads to; an index may list what is not there (kind #3795)."""
    blob = blobs.by_digest(entry.digest)
    if blob is None or blob.data is None:
        return
    if entry.media_type in {INDEX, DOCKER_INDEX}:
        yield from _walk(blobs, blobs.parsed(blob, Index.parse), trail)
    elif image := trail.image(blobs, blob.data, entry.digest):
        yield attrs.evolve(image, listed=entry.platform)


def _names(entry: Descriptor) -> tuple[str, ...]:
    """Return the name that an index gives; a bare tag is none (ctr makes up import-DATE)."""
    name = entry.annotations.get(IMAGE_NAME) or entry.annotations.get(REF_NAME, "")
    return (name,) if "/" in name or ":" in name else ()


def _image(blobs: Blobs, raw: bytes) -> ArchivedImage | None:
    manifest = Manifest.parse(raw)
    config = blobs.by_digest(manifest.config.digest)
    if config is None or config.data is None:
        return None
    return ArchivedImage(manifest, blobs.parsed(config, ImageConfig.parse))


def _from_docker(blobs: Blobs, listed: Sequence[ArchivedImage]) -> Iterator[ArchivedImage]:
    """Yield the images of ``manifest.json`` that are not among those that the index lists.

    An image without its config is skipped where there is an index, as it is in the index.
    """
    known, layers = {image.config.digest for image in listed}, 0
    for entry in _docker_entries(blobs.content("manifest.json")):
        blob = blobs.get(_member_path(entry.get("Config")))
        if blob is None or blob.data is None:
            if listed:
                continue
            raise ArchiveInvalid(f"the archive lacks its config {entry.get('Config')!r:.200}")
        config = blobs.parsed(blob, ImageConfig.parse)
        if config.digest in known:
            continue
        paths = _strings(entry.get("Layers"), MAX_LAYERS)
        layers += len(paths)
        _require_few(layers)
        manifest = Manifest.build(config, tuple(_layers(blobs, config, paths)))
        names = _strings(entry.get("RepoTags"), MAX_MANIFESTS)
        told = {digits_of(path) for path in paths} <= {digest.hex for digest in config.diff_ids}
        yield ArchivedImage(manifest, config, names, layers_named=told)


def _docker_entries(raw: bytes | None) -> list[dict[str, Any]]:
    try:
        entries = load_json(raw or b"")
    except ValueError as error:
        raise ArchiveInvalid(f"manifest.json is not valid JSON: {error}") from error
    if not isinstance(entries, list):
        raise ArchiveInvalid("manifest.json is not a list of images")
    if len(entries) > MAX_MANIFESTS:
        raise ArchiveInvalid(
            f"the archive has {len(entries)} images, more than {MAX_MANIFESTS}",
            hint="save them into several archives",
        )
    if not all(isinstance(entry, dict) for entry in entries):
        raise ArchiveInvalid("manifest.json lists something that is not an image")
    return entries


def _strings(value: object, most: int) -> tuple[str, ...]:
    if value is None:
        return ()
    if not isinstance(value, list) or len(value) > most:
        raise ArchiveInvalid("manifest.json is malformed")
    return tuple(map(str, value))


def _member_path(value: object) -> str:
    if not isinstance(value, str):
        raise ArchiveInvalid("manifest.json names no config")
    return value


def _layers(blobs: Blobs, config: ImageConfig, paths: tuple[str, ...]) -> Iterator[Descriptor]:
    if len(paths) != len(config.diff_ids):
        raise ArchiveInvalid(
            f"the archive has {len(paths)} layers where its config has {len(config.diff_ids)}"
        )
    for path, diff_id in zip(paths, config.diff_ids, strict=True):
        blob = blobs.get(path)
        if blob is None:
            raise ArchiveInvalid(f"the archive lacks the layer {path!r:.200}")
        yield _layer(path, blob, diff_id)


def _layer(path: str, blob: Blob, diff_id: Digest) -> Descriptor:
    digest = blob.digest or diff_id
    if not blob.compression and digest != diff_id:
        raise DigestMismatch(f"the layer {path!r:.200} is {digest}, not {diff_id}")
    suffix = f"+{blob.compression}" if blob.compression else ""
    return Descriptor(LAYER + suffix, digest, blob.size)
