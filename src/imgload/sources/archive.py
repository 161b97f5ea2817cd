"""Images in a docker-archive, an OCI archive, an OCI layout folder, or standard input."""

from __future__ import annotations

import os
import platform as machine
import shlex
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from contextlib import closing, contextmanager
from functools import cached_property
from pathlib import Path
from typing import IO

from imgload.core.errors import (
    ArchiveInvalid,
    ImageAmbiguous,
    ImageIncomplete,
    ImgloadError,
    NotAnImage,
    PlatformMissing,
    ReferenceInvalid,
    SourceError,
)
from imgload.oci.catalogue import ArchivedImage, Catalogue, Unusable, scan
from imgload.oci.digest import Digest
from imgload.oci.platform import ANY_PLATFORM, Platform
from imgload.oci.reference import Reference, image_id_prefix, is_made_up, parse_unless_id, pinned
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
        images = self._catalogue.images
        if named := [image for image in images if _has_name(text, image)]:
            return self._image(named, (Reference.parse(text).record,), platform)
        with_id = [image for image in images if _has_id(text, image.config.digest)]
        if len({image.config.digest for image in with_id}) > 1:
            raise _ambiguous(text, with_id, self.describe)
        if with_id:
            return self._image(with_id, _own_names(*with_id), platform)
        tagged = {digest for tag, digest in self._catalogue.tags if tag == text}
        if with_tag := [image for image in images if tagged & image.digests]:
            return self._image(with_tag, _own_names(*with_tag), platform)
        accepted = _accepted(text)
        for entry in self._catalogue.unusable:
            if (
                any(name in accepted for name in _references(entry))
                or any(_has_id(text, digest) for digest in entry.digests)
                or tagged & entry.digests
            ):
                return self._unusable(entry)
        if not images:
            raise self._nothing_usable()
        return None

    def suggestions(self, text: str) -> list[str]:
        """Return the archive's names; with digests if `text` has one and the archive has any."""
        images = self._catalogue.images
        by_digest = [name for image in images for name in _pinned_names(image)]
        names = [name for image in images for name in self._suggested(image)]
        return list(dict.fromkeys(by_digest if by_digest and "@" in text else names))

    def _suggested(self, image: ArchivedImage) -> Sequence[str]:
        """Return the image's names, or else its tags in the layout, or its ID."""
        tags = [tag for tag, digest in self._catalogue.tags if digest in image.digests]
        return _own_names(image) or tags or (str(image.config.digest),)

    def all_images(self, platform: Platform | None) -> list[Image]:
        """Return every image, under its names in the archive."""
        images = [self._image_or_error(group, platform) for group in self._groups()]
        images += map(self._unusable, self._damaged())
        if not images:
            raise self._nothing_usable()
        for image in images:
            if image.error and all(other.error for other in images):
                raise image.error
        return images

    def _nothing_usable(self) -> SourceError:
        """Return the error of an archive without images, which describes its first entry."""
        for entry in (*self._damaged(), *self._catalogue.unusable):
            if not isinstance(entry.error, NotAnImage):
                return self._error_of(entry)
            message = f"contains no usable image: it has {self._others()}; {_failure(entry)}"
            return self._error(entry.error, f"{self.describe} {message}")
        return ArchiveInvalid(f"{self.describe} contains no usable image", hint=_AGAIN)

    def notes(self) -> list[str]:
        others = self._others()
        return [f"{self.describe}: not loaded: {others}"] if others else []

    def _groups(self) -> list[list[ArchivedImage]]:
        """Return the images with a common name or index, which are for different platforms."""
        groups: dict[object, list[ArchivedImage]] = {}
        for image in self._catalogue.images:
            keys: list[object] = [reference.record for reference in _references(image)]
            keys = keys or [image.indexes[1:2] or image.config.digest]
            group = next((groups[key] for key in keys if key in groups), [])
            group.append(image)
            for key in keys:
                groups.setdefault(key, group)
        return list({id(group): group for group in groups.values()}.values())

    def _damaged(self) -> list[Unusable]:
        """Return the damaged images that the archive does not contain in another place."""
        names = {name for image in self._catalogue.images for name in _references(image)}
        digests = {
            d for image in self._catalogue.images for d in image.digests - {*image.indexes[:1]}
        }
        damaged: dict[object, Unusable] = {}
        for entry in self._catalogue.unusable:
            own = frozenset(_references(entry))
            covered = names & own if own else digests & entry.digests
            if not covered and not isinstance(entry.error, NotAnImage):
                damaged.setdefault(own or entry.digests, entry)
        return list(damaged.values())

    def _others(self) -> str:
        """Count the entries that are no images, such as ``2 signatures, 1 artifact``."""
        errors = [entry.error for entry in self._catalogue.unusable]
        counts = Counter(error.content for error in errors if isinstance(error, NotAnImage))
        texts = {k: "unknown manifest" if k == "unknown" else k for k in counts}
        return ", ".join(f"{n} {texts[k]}{'s' if n > 1 else ''}" for k, n in counts.items())

    def _image_or_error(self, images: Sequence[ArchivedImage], platform: Platform | None) -> Image:
        names, target = _own_names(*images), images[0].config.digest
        try:
            return self._image(images, names, platform)
        except (SourceError, ImageAmbiguous) as error:
            return self._failed(names or (str(target),), target, error, images[0].platform)

    def _unusable(self, entry: Unusable) -> Image:
        target = min(entry.digests, default=Digest.of(b""))
        names = _own_names(entry) or (str(target),)
        return self._failed(names, target, self._error_of(entry), entry.platform)

    def _error_of(self, entry: Unusable) -> SourceError:
        """Return the error of an entry, with its name and the archive's."""
        return self._error(entry.error, f"{self.describe}: {_failure(entry)}")

    def _error(self, error: SourceError, message: str) -> SourceError:
        """Return an error of the same kind with a hint."""
        if isinstance(error, NotAnImage):
            return NotAnImage(message, hint=error.hint, content=error.content)
        return type(error)(message, hint=error.hint or _AGAIN)

    def _failed(
        self,
        names: tuple[str, ...],
        target: Digest,
        error: ImgloadError,
        platform: Platform | None,
    ) -> Image:
        platform = platform or ANY_PLATFORM
        return Image(self, str(target), names, target, None, platform, (), 0, error=error)

    def _image(
        self, images: Sequence[ArchivedImage], names: tuple[str, ...], platform: Platform | None
    ) -> Image:
        try:
            image = _select_platform(images, platform, self.describe)
        except PlatformMissing:
            if damaged := self._damaged_platform(images, platform):
                return self._unusable(damaged)
            raise
        config = image.config
        names = names or (str(config.digest),)  # as CRI does
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
            absent_layers=image.absent_layers,
            notes=tuple(self._notes_on(image, names[0])),
        )

    def _damaged_platform(
        self, images: Sequence[ArchivedImage], platform: Platform | None
    ) -> Unusable | None:
        """Return the damaged image for a platform that has the names or the index of `images`."""
        wanted = platform or _this_machine()
        names = {name for image in images for name in _references(image)}
        above = {digest for image in images for digest in image.indexes[1:]}
        for entry in self._catalogue.unusable:
            related = names & {*_references(entry)} or above & entry.digests
            if related and entry.platform and wanted.best([entry.platform]):
                return entry
        return None

    def _notes_on(self, image: ArchivedImage, name: str) -> Iterator[str]:
        if image.correction and not pinned(name):
            yield f"corrected the manifest of {name}: {image.correction}"
        for text in image.names:
            if problem := _problem_of(text, image):
                yield f"the archive's name {text!r:.200} is not used: {problem}"

    @contextmanager
    def save(self, images: Sequence[Image]) -> Iterator[Iterable[bytes]]:
        del images  # the archive is one stream; its reader skips other images
        with self._naming_archive_in_errors(), self._opened(scanning=False) as chunks:
            yield chunks

    @cached_property
    def _catalogue(self) -> Catalogue:
        with self._naming_archive_in_errors(), self._opened(scanning=True) as chunks:
            return scan(chunks)

    @contextmanager
    def _naming_archive_in_errors(self) -> Iterator[None]:
        try:
            yield
        except SourceError as error:
            raise self._error(error, f"{self.describe}: {error.message}") from error

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
    """Return the image for a platform; without one, for this machine's, or the only image.

    Of two images for one platform, containerd takes the one that requires no further features.
    """
    by_platform: dict[Platform, ArchivedImage] = {}
    for image in sorted(images, key=lambda image: image.platform.rank):
        other = by_platform.setdefault(image.platform, image)
        if (
            other.config.digest != image.config.digest
            and other.platform.rank == image.platform.rank
        ):
            raise _ambiguous(", ".join(image.names), [other, image], archive)
    if platform is None and len(by_platform) == 1:
        return next(iter(by_platform.values()))
    wanted = platform or _this_machine()
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


def _this_machine() -> Platform:
    return Platform.of("linux", machine.machine())


def _ambiguous(text: str, images: Sequence[ArchivedImage], archive: str) -> ImageAmbiguous:
    listed = ", ".join(sorted({str(image.config.digest) for image in images}))
    return ImageAmbiguous(
        f"{text!r} is not one image in {archive}: it has {listed}",
        hint="select one by its ID, and name it with --tag; or choose a platform with --platform",
    )


def _has_id(text: str, digest: Digest) -> bool:
    digits = image_id_prefix(text)
    return digits is not None and digest.hex.startswith(digits)


def _accepted(text: str) -> list[Reference]:
    """Return the names to which a name refers; none for an ID."""
    wanted = parse_unless_id(text)
    if wanted is None:
        return []
    return [wanted, *([wanted.with_localhost()] if wanted.is_short else [])]


def _has_name(text: str, image: ArchivedImage) -> bool:
    accepted = _accepted(text)
    if accepted and accepted[0].digest is not None:
        wanted = accepted[0]
        repositories = {(name.registry, name.repository) for name in _references(image)}
        matches = not repositories or (wanted.registry, wanted.repository) in repositories
        return matches and wanted.digest in image.digests - {image.config.digest}
    return any(name in accepted for name in _references(image))


def _own_names(*entries: ArchivedImage | Unusable) -> tuple[str, ...]:
    """Return the archive's names for an image."""
    return tuple(dict.fromkeys(name.record for entry in entries for name in _references(entry)))


def _failure(entry: Unusable) -> str:
    name = next(iter(_own_names(entry)), str(min(entry.digests, default="an image")))
    return f"{name} cannot be loaded: {entry.error.message}"


def _pinned_names(image: ArchivedImage) -> Iterator[str]:
    """Yield an image's names by digest; a docker-archive stores no manifest to refer to."""
    if image.indexes:
        digest = image.indexes[1] if len(image.indexes) > 1 else image.manifest.digest
        named = [f"{name.registry}/{name.repository}" for name in _references(image)]
        for repository in named or ["NAME"]:
            yield f"{repository}@{digest}"


def _references(entry: ArchivedImage | Unusable) -> Iterator[Reference]:
    """Yield those names of an entry that are usable."""
    for name in entry.names:
        if not _problem_of(name, entry):
            yield Reference.parse(name)


def _problem_of(name: str, entry: ArchivedImage | Unusable) -> str:
    """Return why a name in an archive cannot be used; empty if it can."""
    if is_made_up(name):
        return "a program made it up for an image without a name"
    try:
        reference = Reference.parse(name)
    except ReferenceInvalid as error:
        return error.message
    if isinstance(entry, ArchivedImage):
        if reference.digest and entry.correction:
            return "the manifest with that digest is not usable"
        if reference.digest and reference.digest not in {entry.manifest.digest, *entry.indexes}:
            return "the archive does not have a manifest with that digest"
    return ""
