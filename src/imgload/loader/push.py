"""Having an engine push images into a delta."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from imgload.core.errors import EngineError
from imgload.engines.cache import Memory
from imgload.oci.image import Image
from imgload.sources.base import Found, Pusher, Source
from imgload.transports.delta import Delta, DeltaIncomplete, Pushed

_MARGIN = 16 << 20
"""Bytes that what is pushed may have beyond twice what it is unpacked."""


def push(source: Source, images: Mapping[Image, Found], delta: Delta, memory: Memory) -> None:
    """Have the source push each image once, and remember what is learnt of its engine.

    Raises:
        DeltaIncomplete: when a push fails, or does not bring what is needed.

    """
    if not isinstance(source, Pusher):
        raise DeltaIncomplete(f"{source.describe} cannot push")
    unique = {found.target: found for found in images.values()}
    for target, found in unique.items():
        names = tuple(image.name for image in images if image.target == target)
        delta.begin(_pushed(source, found, names, memory, delta))
        try:
            source.push(found, delta)
        except EngineError as error:
            from imgload.registry.push_session import CutOff  # noqa: PLC0415 - start-up

            if isinstance(error, CutOff):
                memory.cut_off(source.address)
            raise DeltaIncomplete(error.message) from error
        delta.end()
    delta.close()


def _pushed(
    source: Pusher, found: Found, names: tuple[str, ...], memory: Memory, delta: Delta
) -> Pushed:
    if found.image_id is None:
        raise DeltaIncomplete("the image ID is not known before the transfer")
    known = memory.layers(source.address)
    plain = {diff_id: size for digest, (diff_id, size) in known.items() if digest == diff_id}
    sizes = source.layer_sizes(found)
    sizes = sizes if len(sizes) == len(found.diff_ids) else ()
    style = source.push_style(found)
    if style == "stored":
        blobs = zip(found.blobs, found.diff_ids, sizes, strict=True)
        known = {blob: (diff_id, size) for blob, diff_id, size in blobs}
    elif style == "compressing":
        known |= {d: (d, s) for d, s in zip(found.diff_ids, sizes, strict=False)} | {
            d: (d, s) for d, s in plain.items() if d in found.diff_ids
        }
    return Pushed(
        image_id=found.image_id,
        diff_ids=found.diff_ids,
        names=names,
        platform=found.platform,
        known=known,
        exact=style == "stored",
        plain=plain,
        manifest=found.manifest.digest if found.stored and found.manifest else None,
        limit=_limit(found, sizes, delta),
        room=2 * (sum(sizes) or found.size) + _MARGIN,
    )


def _limit(found: Found, sizes: Sequence[int], delta: Delta) -> int:
    """Return the bytes that the largest layer to be sent can have, compressed, with room."""
    if not sizes:
        return 2 * found.size + _MARGIN
    missing = delta.missing(found.diff_ids)
    return 2 * max((sizes[place] for place in missing), default=0) + _MARGIN
