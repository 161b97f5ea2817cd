"""Which image ID an image has, where its engine does not tell it."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING

import attrs

from imgload.clusters.nodes.survey import Survey
from imgload.oci.digest import Digest
from imgload.oci.image import Image
from imgload.sources.base import Found, Source
from imgload.sources.locate import Located

if TYPE_CHECKING:
    from imgload.engines.cache import Memory


def remembered(located: Iterable[Located]) -> list[Located]:
    """Take image IDs from memory where the engines do not tell them, and who cannot push them."""
    pairs = list(located)
    if all(found.image_id for _, found in pairs):
        return pairs
    from imgload.engines.cache import Memory  # noqa: PLC0415 - start-up

    memory = Memory.load()
    return [(source, _recalled(memory, source, found)) for source, found in pairs]


def _recalled(memory: Memory, source: Source, found: Found) -> Found:
    if found.image_id:
        return found
    known = found.manifest_digest and memory.image_id(source.address, found.manifest_digest)
    return attrs.evolve(found, image_id=known, cut_off=memory.is_cut_off(source.address))


def identities(found: Iterable[Located], pushed: Mapping[Found, Found]) -> dict[Found, Found]:
    """Have the engines tell the image IDs that are not known yet, each once."""
    unknown = ((s, there) for s, there in found if there.image_id is None and there not in pushed)
    return {there: source.identify(there) for source, there in unknown}


def identified(
    found: Mapping[Image, Located],
    surveys: Mapping[str, Survey],
    pushed: Mapping[Found, Found],
) -> dict[Image, Located]:
    """Settle the image IDs that an engine does not tell: a node may, by the manifest's digest.

    Args:
        found: the images.
        surveys: what the nodes have.
        pushed: what `identities` returned of them; an engine is asked for others where need be.

    """
    from imgload.engines.cache import Memory  # noqa: PLC0415 - start-up

    memory = Memory.load()
    known: dict[Image, Located] = {}
    for image, (source, there) in found.items():
        settled = _settled(source, there, surveys, pushed)
        known[attrs.evolve(image, image_id=settled.image_id)] = (source, settled)
        if settled.manifest and settled.manifest.digest == settled.manifest_digest:
            memory.identify(source.address, settled.manifest.digest, settled.manifest.config.digest)
    return known


def _settled(
    source: Source, there: Found, surveys: Mapping[str, Survey], pushed: Mapping[Found, Found]
) -> Found:
    told = pushed.get(there, there)
    image_id = told.image_id or _config_of(there.manifest_digest, surveys.values())
    if image_id:
        return attrs.evolve(told, image_id=image_id)
    return told if there in pushed else source.identify(there)


def saved(found: Mapping[Image, Located]) -> dict[Image, Located]:
    """Settle the image IDs that only a save tells."""
    from imgload.sources import saved as archive  # noqa: PLC0415 - start-up

    pairs = [
        (image, source, archive.identified(source, there))
        for image, (source, there) in found.items()
    ]
    return {attrs.evolve(i, image_id=f.image_id, diff_ids=f.diff_ids): (s, f) for i, s, f in pairs}


def _config_of(manifest: Digest | None, surveys: Iterable[Survey]) -> Digest | None:
    found = (s.content.configs.get(manifest) for s in surveys) if manifest else ()
    return next(filter(None, found), None)


def may_have(survey: Survey, images: Iterable[Image]) -> bool:
    """Whether a node has, or had when it was asked, the config of an image: to be read then."""
    return not survey.content.blobs.isdisjoint({i.image_id for i in images if i.image_id})
