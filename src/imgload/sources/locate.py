"""Finds the requested images in the sources."""

from __future__ import annotations

import os
import shlex
from collections.abc import Callable, Collection, Sequence
from functools import partial

import attrs

from imgload.core.errors import (
    ImageAmbiguous,
    ImageIncomplete,
    ImageNotFound,
    ImgloadError,
    ManifestMissing,
    PlatformMissing,
    UsageError,
)
from imgload.core.parallel import in_parallel
from imgload.engines.discovery.buildx import buildx_builder
from imgload.oci.digest import Digest
from imgload.oci.platform import ANY_PLATFORM, Platform
from imgload.oci.reference import Reference, image_id_prefix, parse_unless_id
from imgload.sources.base import Image, Pusher, Source

_MAX_SUGGESTIONS = 10
Settle = Callable[[str, Sequence[Image]], Image]
"""Chooses between different images that sources have under one name, or raises."""


def refuse(text: str, images: Sequence[Image]) -> Image:
    """Raise ImageAmbiguous: the `Settle` that never guesses."""
    raise ambiguous(text, images)


def require_names(texts: Sequence[str], tag: str | None, extra_tags: Sequence[str] = ()) -> None:
    """Validate names before the sources are queried; `texts` may also contain image IDs.

    ReferenceInvalid is raised for an invalid name, UsageError for one name of several images.
    """
    for text in texts:
        parse_unless_id(text)
    for given_name in (*([tag] if tag is not None else []), *extra_tags):
        Reference.parse(given_name)
    if texts:
        _require_one(len(set(texts)), tag, extra_tags)


def locate(
    texts: Sequence[str],
    sources: Sequence[Source],
    platform: Platform | None,
    settle: Settle = refuse,
) -> list[Image]:
    """Return the image for each name or image ID; without any, all images of an archive.

    Some may have an `error`; if all have, the first one is raised.
    """
    if not texts:
        return [image for source in sources for image in source.all_images(platform)]
    queries = dict.fromkeys(texts)
    images = [attrs.evolve(_locate(q, sources, platform, settle), query=q) for q in queries]
    if images[0].error and all(image.error for image in images):
        raise images[0].error
    return images


def require_pushers(sources: Sequence[Source]) -> None:
    """Raise UsageError if a source cannot push, but the user requested a push."""
    for source in sources:
        if not isinstance(source, Pusher):
            raise UsageError(
                f"--transport delta is for engines, and {source.describe} cannot push",
                hint="omit --transport: layers that every node has are not sent in any case",
            )


def match_platform(
    images: Sequence[Image], texts: Sequence[str], nodes: Collection[Platform]
) -> list[Image] | None:
    """Return the images for the nodes' platform, or None if that changes nothing.

    `images` is the result of `locate` for these texts without a platform. If the nodes have several
    platforms, the images stay as they are. An image has an `error` if its source lists the platform
    but does not have its content.
    """
    if len(nodes) != 1:
        return None
    [platform] = nodes
    groups: list[tuple[list[Image], list[str]]] = [(list(images), [])]
    if texts:
        groups = [([i], [t]) for i, t in zip(images, dict.fromkeys(texts), strict=True)]
    matched: list[Image] = []
    for group, group_texts in groups:
        result = group
        if not all(platform.runs(image.platform) for image in group):
            origins = list(dict.fromkeys(image.origin for image in group))
            try:
                found = locate(group_texts, origins, platform)
            except PlatformMissing:
                found = group
            except ImageIncomplete as error:
                found = [attrs.evolve(image, error=error) for image in group]
            pairs = zip(group, found, strict=True)
            result = [a if isinstance(b.error, PlatformMissing) else b for a, b in pairs]
        matched += result
    errors, earlier = [i.error for i in matched], [i.error for i in images]
    return matched if (matched, errors) != (list(images), earlier) else None


def named(images: Sequence[Image], tag: str | None, extra_tags: Sequence[str] = ()) -> list[Image]:
    """Return each image once for each of its names, of which `tag` replaces its own.

    UsageError is raised if one name is given to several images, ImageAmbiguous if two different
    images have a name.
    """
    _require_one(len(images), tag, extra_tags)
    given = (Reference.parse(tag).record,) if tag is not None else None
    further = tuple(Reference.parse(text).record for text in extra_tags)
    by_name: dict[str, Image] = {}
    for image in images:
        names = tuple(dict.fromkeys((*(given or image.names), *further)))
        for text in names:
            first = by_name.setdefault(text, attrs.evolve(image, name=text, names=names))
            if first.target != image.target:
                raise ambiguous(text, [first, image])
    return list(by_name.values())


def _require_one(count: int, tag: str | None, extra_tags: Sequence[str]) -> None:
    if (tag is not None or extra_tags) and count != 1:
        raise UsageError("one name cannot be given to several images", hint="load them one by one")


def _locate(
    text: str, sources: Sequence[Source], platform: Platform | None, settle: Settle
) -> Image:
    answers = in_parallel([partial(_find, source, text, platform) for source in sources])
    images = [image for image in answers if image]
    if not images:
        raise _not_found(text, sources)
    others = [i for i in images if not isinstance(i.error, (PlatformMissing, ManifestMissing))]
    images = others or images[:1]
    if failed := next((image for image in images if image.error), None):
        return failed
    if len(images) > 1:
        images = [image.origin.identify(image) for image in images]
    if len({image.image_id or image.target for image in images}) > 1:
        return settle(text, images)
    return images[0]


def _find(source: Source, text: str, platform: Platform | None) -> Image | None:
    """Query one source; an image that it cannot provide has an `error`."""
    try:
        return source.find(text, platform)
    except (PlatformMissing, ManifestMissing, ImageIncomplete) as error:
        error.image = error.image or text
        reference = parse_unless_id(text)
        name = reference.record if reference else text
        target, platform = Digest.of(name.encode()), platform or ANY_PLATFORM
        return Image(source, text, (name,), target, None, platform, (), 0, error=error)
    except ImgloadError as error:
        error.image = error.image or text
        raise


def _not_found(text: str, sources: Sequence[Source]) -> ImageNotFound:
    names = [name for source in sources for name in source.suggestions(text)]
    similar = () if names else [n for source in sources for n in source.similar_names(text)]
    places = " and ".join(source.describe for source in sources)
    message = f"no image {text!r} in {places}"
    if not names and not image_id_prefix(text) and Reference.parse(text).pulls_always:
        message = f"no image {text.removesuffix(':latest') + ':latest'!r} in {places}"
    hint = f"list the images with: {sources[0].listing}"
    if names:
        rest = len(names) - _MAX_SUGGESTIONS
        more = f" and {rest} more" if rest > 0 else ""
        message = f"{message}; it has {', '.join(names[:_MAX_SUGGESTIONS])}{more}"
        hint = "name one of these, or none for all"
    elif similar:
        message = f"{message}; similar: {', '.join(dict.fromkeys(similar))}"
    elif "@" in text:
        hint = f"engines know digests only of pulled or pushed images: name it by its tag; {hint}"
    elif buildx_builder(os.environ):
        hint = f"if docker buildx has built it, store it in the engine with --load; {hint}"
    return ImageNotFound(message, hint=hint, image=text)


def ambiguous(text: str, images: Sequence[Image]) -> ImageAmbiguous:
    """Return the error that lists each source and its image under a name."""
    listed = ", ".join(
        f"{image.origin.describe} has {(image.image_id or image.target).short}" for image in images
    )
    names = [image.source for image in images]
    choices = " or ".join(
        f"--from {shlex.quote(i.source if names.count(i.source) == 1 else i.origin.address)}"
        for i in images
    )
    message = f"{text!r} is ambiguous: {listed}"
    return ImageAmbiguous(message, hint=f"choose one with {choices}", image=text)
