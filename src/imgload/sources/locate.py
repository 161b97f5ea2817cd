"""Which source has each image that was asked for."""

from __future__ import annotations

import shlex
from collections.abc import Callable, Collection, Sequence
from functools import partial

import attrs

from imgload.core.errors import (
    ImageAmbiguous,
    ImageNotFound,
    ManifestMissing,
    PlatformMissing,
    SourceError,
    UsageError,
)
from imgload.core.parallel import in_parallel
from imgload.oci.platform import Platform
from imgload.oci.reference import Reference, name_or_id
from imgload.sources.base import Image, Pusher, Source

_MOST_TOLD = 10
Settle = Callable[[str, Sequence[Image]], Image]
"""Chooses between different images that sources have under one name, or raises."""


def refuse(text: str, images: Sequence[Image]) -> Image:
    """Choose none: never a guess."""
    raise ambiguous(text, images)


def require_names(texts: Sequence[str], name: str | None, also: Sequence[str] = ()) -> None:
    """Refuse what can be refused before any source is asked.

    Args:
        texts: what images are asked for by; none for all of an archive.
        name: the one name to load the one image under, or None for its own.
        also: names that the one image gets beside that.

    Raises:
        ReferenceInvalid: when something is no name, and among the texts no image ID either.
        UsageError: when several images are to have one name.

    """
    for text in texts:
        name_or_id(text)
    for each in (*([name] if name is not None else []), *also):
        Reference.parse(each)
    if texts:
        _require_one(len(set(texts)), name, also)


def locate(
    texts: Sequence[str],
    sources: Sequence[Source],
    platform: Platform | None,
    settle: Settle = refuse,
) -> list[Image]:
    """Return the image for each name or image ID; all of an archive for none.

    Raises:
        ImageNotFound: when no source has it.
        ImageAmbiguous: when two sources have different images under it, and that is not settled.

    """
    if not texts:
        return [image for source in sources for image in source.everything(platform)]
    queries = dict.fromkeys(texts)
    return [attrs.evolve(_locate(q, sources, platform, settle), query=q) for q in queries]


def require_pushers(sources: Sequence[Source]) -> None:
    """Refuse a source that cannot push, where nothing else was asked for.

    Raises:
        UsageError: when there is one.

    """
    for source in sources:
        if not isinstance(source, Pusher):
            raise UsageError(
                f"--transport delta is for engines, and {source.describe} cannot push",
                hint="leave --transport out: layers that every node has are left out all the same",
            )


def match_platform(
    images: Sequence[Image], texts: Sequence[str], nodes: Collection[Platform]
) -> list[Image] | None:
    """Return the images for the nodes' platform, or None where they are, or cannot be.

    Args:
        images: what `locate` returned for these texts, without a platform.
        texts: names and image IDs.
        nodes: their platforms; with several, none is the right one.

    Raises:
        ImageIncomplete: when a source lists the platform, and does not have it.

    """
    if len(nodes) != 1:
        return None
    [platform] = nodes
    groups = (
        [([i], [t]) for i, t in zip(images, dict.fromkeys(texts), strict=True)]
        if texts
        else [(list(images), [])]
    )
    matched = [image for group in groups for image in _for_platform(*group, platform)]
    return matched if matched != list(images) else None


def _for_platform(images: list[Image], texts: list[str], platform: Platform) -> list[Image]:
    if all(platform.runs(image.platform) for image in images):
        return images
    try:
        return locate(texts, list(dict.fromkeys(image.origin for image in images)), platform)
    except PlatformMissing:
        return images


def named(images: Sequence[Image], name: str | None, also: Sequence[str] = ()) -> list[Image]:
    """Return each image to load, once for each name.

    Args:
        images: the images, as `locate` returned them.
        name: the one name to load the one image under, or None for their own.
        also: further names of the one image.

    Raises:
        UsageError: when several images are to have one name.
        ImageAmbiguous: when two different images have a name.

    """
    _require_one(len(images), name, also)
    given = (Reference.parse(name).record,) if name is not None else None
    further = tuple(Reference.parse(text).record for text in also)
    by_name: dict[str, Image] = {}
    for image in images:
        names = tuple(dict.fromkeys((*(given or image.names), *further)))
        for text in names:
            first = by_name.setdefault(text, attrs.evolve(image, name=text, names=names))
            if first.target != image.target:
                raise ambiguous(text, [first, image])
    return list(by_name.values())


def _require_one(count: int, name: str | None, also: Sequence[str]) -> None:
    if (name is not None or also) and count != 1:
        raise UsageError("one name cannot be given to several images", hint="load them one by one")


def _locate(
    text: str, sources: Sequence[Source], platform: Platform | None, settle: Settle
) -> Image:
    answers = in_parallel([partial(_find, source, text, platform) for source in sources])
    images = [answer for answer in answers if isinstance(answer, Image)]
    for answer in () if images else answers:
        if isinstance(answer, SourceError):
            raise answer
    if not images:
        raise _not_found(text, sources)
    if len(images) > 1:
        images = [image.origin.identify(image) for image in images]
    if len({image.image_id or image.target for image in images}) > 1:
        return settle(text, images)
    return images[0]


def _find(source: Source, text: str, platform: Platform | None) -> Image | SourceError | None:
    """Ask one source; that it has another platform or manifest does not hide the next one's."""
    try:
        return source.find(text, platform)
    except (PlatformMissing, ManifestMissing) as error:
        return error


def _not_found(text: str, sources: Sequence[Source]) -> ImageNotFound:
    places = " and ".join(source.describe for source in sources)
    there = [name for source in sources for name in source.holdings(text)]
    message = f"no image {text!r} in {places}"
    hint = f"see what is there with: {sources[0].listing}"
    if there:
        more = f" and {len(there) - _MOST_TOLD} more" if len(there) > _MOST_TOLD else ""
        message = f"{message}; it has {', '.join(there[:_MOST_TOLD])}{more}"
        hint = "name one of these, or none for all"
    elif "@" in text:
        hint = f"engines know the digest of what was pulled or pushed: name it by its tag; {hint}"
    return ImageNotFound(message, hint=hint, image=text)


def ambiguous(text: str, images: Sequence[Image]) -> ImageAmbiguous:
    """Return the error that names which source has which image under a name."""
    listed = ", ".join(
        f"{image.origin.describe} has {(image.image_id or image.target).short}" for image in images
    )
    names = [image.source for image in images]
    choices = " or ".join(
        f"--from {shlex.quote(i.source if names.count(i.source) == 1 else i.origin.address)}"
        for i in images
    )
    return ImageAmbiguous(f"{text!r} is ambiguous: {listed}", hint=f"choose one with {choices}")
