"""Images in a docker-archive, an OCI archive, an OCI layout folder, or standard input."""

from __future__ import annotations

import os
import platform as machine
import shlex
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from functools import cached_property
from pathlib import Path
from typing import IO

from imgload.core.errors import (
    ArchiveInvalid,
    ImageAmbiguous,
    ImageIncomplete,
    PlatformMissing,
    ReferenceInvalid,
    SourceError,
)
from imgload.oci.archive import ArchivedImage
from imgload.oci.platform import Platform
from imgload.oci.reference import Reference, image_id_prefix, is_full_image_id
from imgload.oci.scan import scan
from imgload.sources.base import Image, Source
from imgload.sources.layout import layout_chunks
from imgload.sources.streams import chunks_of, open_archive

_AGAIN = "make it again: docker save IMAGE -o FILE, or podman save IMAGE -o FILE"


class ArchiveSource(Source):
    """A file or folder; told apart by content, not by name.

    Args:
        path: of the file or folder, or ``-``.

    """

    def __init__(self, path: str) -> None:
        self.name = self.describe = "standard input" if path == "-" else path
        self.address = path
        self.listing = f"tar -xOf {shlex.quote(path)} manifest.json" if path != "-" else "tar -tv"
        self._folder = Path(path) if path != "-" and os.path.isdir(path) else None  # noqa: PTH112 - see `layout_chunks`
        self._file: IO[bytes] | None = None if self._folder else open_archive(path)

    def close(self) -> None:
        """Close the file."""
        if self._file:
            self._file.close()

    def find(self, text: str, platform: Platform | None) -> Image | None:
        if named := [image for image in self._images if _named_by(text, image)]:
            return self._found(named, (Reference.parse(text).record,), platform)
        meant = [image for image in self._images if _has_id(text, image)]
        if len({image.config.digest for image in meant}) > 1:
            raise _ambiguous(text, meant, self.describe)
        return self._found(meant, _own_names(meant[0]), platform) if meant else None

    def holdings(self, text: str) -> list[str]:
        """Return the archive's names; with digests where one was asked for and it has any."""
        pinned = [name for image in self._images for name in _pinned_names(image)]
        names = [name for image in self._images for name in _own_names(image)]
        return list(dict.fromkeys(pinned if pinned and "@" in text else names))

    def everything(self, platform: Platform | None) -> list[Image]:
        """Return every image, under the names that the archive has for it."""
        groups: dict[object, list[ArchivedImage]] = {}
        for image in self._images:
            key = image.names or image.indexes[1:2] or image.config.digest
            groups.setdefault(key, []).append(image)
        if not groups:
            raise ArchiveInvalid(f"{self.describe} holds no image that could be used")
        return [self._found(group, _own_names(group[0]), platform) for group in groups.values()]

    def _found(
        self, images: Sequence[ArchivedImage], names: tuple[str, ...], platform: Platform | None
    ) -> Image:
        image = _suited(images, platform, self.describe)
        size = sum(layer.size for layer in image.manifest.layers)
        config = image.config
        return Image(
            origin=self,
            id=str(config.digest),
            names=names,
            target=config.digest,
            image_id=config.digest,
            platform=image.platform,
            diff_ids=config.diff_ids,
            size=size,
            manifest=image.manifest,
            layers_named=image.layers_named,
        )

    @contextmanager
    def save(self, images: Sequence[Image]) -> Iterator[Iterator[bytes]]:
        del images  # the archive is one stream; what is not wanted is left out on the way
        with self._named():
            yield iter(self._chunks(scanning=False))

    @cached_property
    def _images(self) -> tuple[ArchivedImage, ...]:
        with self._named():
            return scan(self._chunks(scanning=True))

    @contextmanager
    def _named(self) -> Iterator[None]:
        """Name the archive in what is wrong with its bytes."""
        try:
            yield
        except SourceError as error:
            hint = error.hint or _AGAIN
            raise type(error)(f"{self.describe}: {error.message}", hint=hint) from error

    def _chunks(self, *, scanning: bool) -> Iterator[bytes]:
        if self._folder:
            return layout_chunks(self._folder)
        assert self._file is not None  # noqa: S101 - one of the two is set
        return chunks_of(self._file, scanning=scanning)  # type: ignore[return-value]


def _suited(
    images: Sequence[ArchivedImage], platform: Platform | None, archive: str
) -> ArchivedImage:
    """Return the image for a platform; without one, for this machine's, or the only one."""
    there: dict[Platform, ArchivedImage] = {}
    for image in images:
        other = there.setdefault(image.platform, image)
        if other.config.digest != image.config.digest:
            raise _ambiguous(", ".join(image.names), [other, image], archive)
    if platform is None and len(there) == 1:
        return images[0]
    wanted = platform or Platform.of("linux", machine.machine())
    best = wanted.best(there)
    if best is None:
        raise _missing(wanted, sorted(map(str, there)), images, archive)
    return there[best]


def _missing(
    wanted: Platform, there: Sequence[str], images: Sequence[ArchivedImage], archive: str
) -> SourceError:
    hint = f"choose one that is there: --platform {there[0]}; or save it again with that platform"
    if wanted.best(frozenset[Platform]().union(*(image.absent for image in images))):
        return ImageIncomplete(
            f"{archive} lists {wanted} and does not hold it; it has {', '.join(there)}", hint=hint
        )
    return PlatformMissing(
        f"{archive} has no image for {wanted}; it has {', '.join(there)}", hint=hint
    )


def _ambiguous(text: str, images: Sequence[ArchivedImage], archive: str) -> ImageAmbiguous:
    listed = ", ".join(sorted({str(image.config.digest) for image in images}))
    return ImageAmbiguous(
        f"{text!r} is not one image in {archive}: it has {listed}",
        hint="name one of these by its ID, and the name with --as",
    )


def _has_id(text: str, image: ArchivedImage) -> bool:
    digits = image_id_prefix(text)
    return digits is not None and image.config.digest.hex.startswith(digits)


def _named_by(text: str, image: ArchivedImage) -> bool:
    if is_full_image_id(text):
        return False
    try:
        wanted = Reference.parse(text)
    except ReferenceInvalid:
        if image_id_prefix(text):
            return False
        raise
    if wanted.digest is not None:
        return _has_manifest(wanted, image)
    accepted = [wanted, *([wanted.on_localhost()] if wanted.short else [])]
    return any(name in accepted for name in _references(image))


def _has_manifest(wanted: Reference, image: ArchivedImage) -> bool:
    """Whether an image has the manifest, or the index, of a digest, and no other repository."""
    repositories = {(name.registry, name.repository) for name in _references(image)}
    fits = not repositories or (wanted.registry, wanted.repository) in repositories
    return fits and wanted.digest in {image.manifest.digest, *image.indexes}


def _own_names(image: ArchivedImage) -> tuple[str, ...]:
    """Return the archive's names for an image; one without is named by its ID, as CRI does."""
    names = tuple(dict.fromkeys(reference.record for reference in _references(image)))
    return names or (str(image.config.digest),)


def _pinned_names(image: ArchivedImage) -> Iterator[str]:
    """Yield an image's names by digest; a docker-archive has no manifest that could be demanded."""
    if image.indexes:
        digest = image.indexes[1] if len(image.indexes) > 1 else image.manifest.digest
        named = [f"{name.registry}/{name.repository}" for name in _references(image)]
        for repository in named or ["NAME"]:
            yield f"{repository}@{digest}"


def _references(image: ArchivedImage) -> Iterator[Reference]:
    """Yield those of an archive's names that Kubernetes would accept."""
    for name in image.names:
        with suppress(ReferenceInvalid):
            yield Reference.parse(name)
