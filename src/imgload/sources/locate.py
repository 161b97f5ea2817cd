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
from imgload.oci.image import Image
from imgload.oci.platform import Platform
from imgload.oci.reference import Reference, name_or_id
from imgload.sources.base import Found, Pusher, Source

Located = tuple[Source, Found]
_MOST_TOLD = 10
Settle = Callable[[str, Sequence[Located]], Located]
"""Chooses between different images that sources have under one name, or raises."""


def refuse(text: str, held: Sequence[Located]) -> Located:
    """Choose none: never a guess."""
    raise ambiguous(text, held)


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
) -> list[Located]:
    """Return the source and image for each name or image ID; all of an archive for none.

    Raises:
        ImageNotFound: when no source has it.
        ImageAmbiguous: when two sources have different images under it, and that is not settled.

    """
    if not texts:
        return [(source, found) for source in sources for found in source.everything(platform)]
    located = {text: _locate(text, sources, platform, settle) for text in dict.fromkeys(texts)}
    return [(s, attrs.evolve(found, asked=text)) for text, (s, found) in located.items()]


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


def refit(
    located: Sequence[Located], texts: Sequence[str], nodes: Collection[Platform]
) -> list[Located] | None:
    """Return the images for the nodes' platform, or None where they are, or cannot be.

    Args:
        located: what `locate` returned for these texts, without a platform.
        texts: what was asked for.
        nodes: their platforms; with several, none is the right one.

    Raises:
        ImageIncomplete: when a source lists the platform, and does not have it.

    """
    if len(nodes) != 1:
        return None
    [platform] = nodes
    if texts:
        pairs = zip(located, dict.fromkeys(texts), strict=True)
        fitted = [x for one, text in pairs for x in _fitted([one], [text], platform)]
    else:
        fitted = _fitted(located, texts, platform)
    return fitted if fitted != list(located) else None


def _fitted(located: Sequence[Located], texts: Sequence[str], platform: Platform) -> list[Located]:
    if all(platform.runs(found.platform) for _, found in located):
        return list(located)
    try:
        return locate(texts, list(dict.fromkeys(source for source, _ in located)), platform)
    except PlatformMissing:
        return list(located)


def named(
    located: Sequence[Located], name: str | None, also: Sequence[str] = ()
) -> dict[Image, Located]:
    """Return each image to load, one for each name, with where it comes from.

    Args:
        located: the images found.
        name: the one name to load the one image under, or None for their own.
        also: names that the one image gets beside that.

    Raises:
        UsageError: when several images are to have one name.
        ImageAmbiguous: when two different images have a name.

    """
    _require_one(len(located), name, also)
    given = (Reference.parse(name).record,) if name is not None else None
    further = tuple(Reference.parse(each).record for each in also)
    origins: dict[str, Located] = {}
    for source, found in located:
        names = tuple(dict.fromkeys((*(given or found.names), *further)))
        for each in names:
            other = origins.setdefault(each, (source, attrs.evolve(found, names=names)))
            if other[1].target != found.target:
                raise ambiguous(each, [other, (source, found)])
    return {_image(each, *pair): pair for each, pair in origins.items()}


def _require_one(count: int, name: str | None, also: Sequence[str]) -> None:
    if (name is not None or also) and count != 1:
        raise UsageError("one name cannot be given to several images", hint="load them one by one")


def _image(name: str, source: Source, found: Found) -> Image:
    return Image(
        name=name,
        target=found.target,
        image_id=found.image_id,
        diff_ids=found.diff_ids,
        platform=found.platform,
        size=found.size,
        source=source.name,
    )


def _locate(
    text: str, sources: Sequence[Source], platform: Platform | None, settle: Settle
) -> Located:
    answers = in_parallel([partial(_find, source, text, platform) for source in sources])
    held = [(s, f) for s, f in zip(sources, answers, strict=True) if isinstance(f, Found)]
    for answer in () if held else answers:
        if isinstance(answer, SourceError):
            raise answer
    if not held:
        raise _not_found(text, sources)
    if len(held) > 1:
        held = [(source, source.identify(found)) for source, found in held]
    if len({found.image_id or found.target for _, found in held}) > 1:
        return settle(text, held)
    return held[0]


def _find(source: Source, text: str, platform: Platform | None) -> Found | SourceError | None:
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


def ambiguous(text: str, held: Sequence[Located]) -> ImageAmbiguous:
    """Return the error that names who holds what under a name."""
    both = ", and ".join(
        f"{source.describe} holds {(found.image_id or found.target).short}"
        for source, found in held
    )
    names = [source.name for source, _ in held]
    choices = " or ".join(
        f"--from {shlex.quote(source.name if names.count(source.name) == 1 else source.address)}"
        for source, _ in held
    )
    return ImageAmbiguous(
        f"{text!r} is not one image: {both}", hint=f"say which one is meant: {choices}"
    )
