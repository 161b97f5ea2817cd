"""Images in a docker-archive, an OCI archive, an OCI layout folder, or standard input."""

from __future__ import annotations

import os
import platform as machine
import shlex
from collections.abc import Iterable, Iterator, Sequence
from contextlib import closing, contextmanager, suppress
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
from imgload.oci.archive import ArchivedImage, scan
from imgload.oci.platform import Platform
from imgload.oci.reference import Reference, image_id_prefix, parse_unless_id
from imgload.sources.base import Image, Source
from imgload.sources.folder import ImageFolder
from imgload.sources.streams import chunks_of, open_archive

_AGAIN = "make it again: docker save IMAGE -o FILE, or podman save IMAGE -o FILE"


class ArchiveSource(Source):
    """An archive or folder; its content determines the format, not its name.

    Args:
        path: of the file or folder; ``-`` for standard input.
        follow_links: whether symbolic links may lead out of the folder.

    """

    def __init__(self, path: str, *, follow_links: bool = False) -> None:
        self.name = self.describe = "standard input" if path == "-" else path
        self.address = path
        self._follow_links = follow_links
        self.listing = f"tar -xOf {shlex.quote(path)} manifest.json" if path != "-" else "tar -tv"
        self._folder = Path(path) if path != "-" and os.path.isdir(path) else None  # noqa: PTH112 - Path's raises for long names
        self._file: IO[bytes] | None = None if self._folder else open_archive(path)

    def close(self) -> None:
        if self._file:
            self._file.close()

    def find(self, text: str, platform: Platform | None) -> Image | None:
        if images := [image for image in self._images if _has_name(text, image)]:
            return self._image(images, (Reference.parse(text).record,), platform)
        images = [image for image in self._images if _has_id(text, image)]
        if len({image.config.digest for image in images}) > 1:
            raise _ambiguous(text, images, self.describe)
        return self._image(images, _own_names(images[0]), platform) if images else None

    def suggestions(self, text: str) -> list[str]:
        """Return the archive's names; with digests if `text` has one and the archive has any."""
        pinned = [name for image in self._images for name in _pinned_names(image)]
        names = [name for image in self._images for name in _own_names(image)]
        return list(dict.fromkeys(pinned if pinned and "@" in text else names))

    def all_images(self, platform: Platform | None) -> list[Image]:
        """Return every image, under its names in the archive."""
        groups: dict[object, list[ArchivedImage]] = {}
        for image in self._images:
            key = image.names or image.indexes[1:2] or image.config.digest
            groups.setdefault(key, []).append(image)
        if not groups:
            raise ArchiveInvalid(f"{self.describe} contains no usable image")
        return [self._image(group, _own_names(group[0]), platform) for group in groups.values()]

    def _image(
        self, images: Sequence[ArchivedImage], names: tuple[str, ...], platform: Platform | None
    ) -> Image:
        image = _select_platform(images, platform, self.describe)
        config = image.config
        return Image(
            origin=self,
            id=str(config.digest),
            names=names,
            target=config.digest,
            image_id=config.digest,
            platform=image.platform,
            diff_ids=config.diff_ids,
            size=sum(layer.size for layer in image.manifest.layers),
            manifest=image.manifest,
            layers_named=image.layers_named,
        )

    @contextmanager
    def save(self, images: Sequence[Image]) -> Iterator[Iterable[bytes]]:
        del images  # the archive is one stream; its reader skips other images
        with self._naming_archive_in_errors(), self._opened(scanning=False) as chunks:
            yield chunks

    @cached_property
    def _images(self) -> tuple[ArchivedImage, ...]:
        with self._naming_archive_in_errors(), self._opened(scanning=True) as chunks:
            return scan(chunks)

    @contextmanager
    def _naming_archive_in_errors(self) -> Iterator[None]:
        try:
            yield
        except SourceError as error:
            hint = error.hint or _AGAIN
            raise type(error)(f"{self.describe}: {error.message}", hint=hint) from error

    @contextmanager
    def _opened(self, *, scanning: bool) -> Iterator[Iterable[bytes]]:
        if self._folder:
            links = self._follow_links
            with closing(ImageFolder(self._folder, follow_links=links)) as folder:
                yield folder
        else:
            assert self._file is not None  # noqa: S101 - one of the two is set
            yield chunks_of(self._file, scanning=scanning)


def _select_platform(
    images: Sequence[ArchivedImage], platform: Platform | None, archive: str
) -> ArchivedImage:
    """Return the image for a platform; without one, for this machine's, or the only image."""
    by_platform: dict[Platform, ArchivedImage] = {}
    for image in images:
        other = by_platform.setdefault(image.platform, image)
        if other.config.digest != image.config.digest:
            raise _ambiguous(", ".join(image.names), [other, image], archive)
    if platform is None and len(by_platform) == 1:
        return images[0]
    wanted = platform or Platform.of("linux", machine.machine())
    if best := wanted.best(by_platform):
        return by_platform[best]
    available = sorted(map(str, by_platform))
    error: type[SourceError] = PlatformMissing
    problem = f"has no image for {wanted};"
    if wanted.best(frozenset[Platform]().union(*(image.absent for image in images))):
        error, problem = ImageIncomplete, f"lists {wanted} and lacks its content;"
    raise error(
        f"{archive} {problem} it has {', '.join(available)}",
        hint=f"choose an available one: --platform {shlex.quote(available[0])};"
        " or save it for that platform",
    )


def _ambiguous(text: str, images: Sequence[ArchivedImage], archive: str) -> ImageAmbiguous:
    listed = ", ".join(sorted({str(image.config.digest) for image in images}))
    return ImageAmbiguous(
        f"{text!r} is not one image in {archive}: it has {listed}",
        hint="select one by its ID, and name it with --tag",
    )


def _has_id(text: str, image: ArchivedImage) -> bool:
    digits = image_id_prefix(text)
    return digits is not None and image.config.digest.hex.startswith(digits)


def _has_name(text: str, image: ArchivedImage) -> bool:
    wanted = parse_unless_id(text)
    if wanted is None:
        return False
    if wanted.digest is not None:
        repositories = {(name.registry, name.repository) for name in _references(image)}
        matches = not repositories or (wanted.registry, wanted.repository) in repositories
        return matches and wanted.digest in {image.manifest.digest, *image.indexes}
    accepted = [wanted, *([wanted.with_localhost()] if wanted.is_short else [])]
    return any(name in accepted for name in _references(image))


def _own_names(image: ArchivedImage) -> tuple[str, ...]:
    """Return the archive's names for an image, or else its ID, as CRI does."""
    names = tuple(dict.fromkeys(reference.record for reference in _references(image)))
    return names or (str(image.config.digest),)


def _pinned_names(image: ArchivedImage) -> Iterator[str]:
    """Yield an image's names by digest; a docker-archive stores no manifest to refer to."""
    if image.indexes:
        digest = image.indexes[1] if len(image.indexes) > 1 else image.manifest.digest
        named = [f"{name.registry}/{name.repository}" for name in _references(image)]
        for repository in named or ["NAME"]:
            yield f"{repository}@{digest}"


def _references(image: ArchivedImage) -> Iterator[Reference]:
    """Yield those of an image's names that Kubernetes accepts."""
    for name in image.names:
        with suppress(ReferenceInvalid):
            yield Reference.parse(name)
