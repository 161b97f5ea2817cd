"""Which platform of an engine's image is meant, and whether the engine has all of it."""

from __future__ import annotations

from collections.abc import Iterable

from imgload.engines.base import Engine, EngineImage
from imgload.errors import ImageIncomplete, PlatformMissing
from imgload.oci.platform import Platform


def own_platform(image: EngineImage) -> Platform:
    """Return the engine's own choice as its index lists it: a config may lack the variant."""
    alike = [
        platform
        for platform in image.manifests
        if (platform.os, platform.architecture) == (image.platform.os, image.platform.architecture)
    ]
    return alike[0] if len(alike) == 1 else image.platform


def suited_platform(
    image: EngineImage, wanted: Platform | None, text: str, engine: Engine
) -> Platform:
    """Return the platform to load.

    Args:
        image: as the engine describes it.
        wanted: the platform asked for; None for the engine's own choice.
        text: what the image was asked for by.
        engine: where it is.

    Raises:
        ImageIncomplete: when Docker's containerd image store has it only in part: an index, and
            not all that it lists (kind #3795).
        PlatformMissing: when it is for other platforms.

    """
    if not image.whole:
        raise _incomplete(image, wanted, text, engine)
    there = set(image.manifests) or ({image.platform} if image.image_id else set())
    if wanted is None:
        return own_platform(image)
    best = wanted.best(there) if there else wanted
    if best is None and wanted.best(image.absent):
        raise _incomplete(image, wanted, text, engine)
    if best is None:
        raise PlatformMissing(
            f"{text} in {engine.endpoint} is for {_listed(there)}, not {wanted}",
            hint=f"build it with --platform {wanted}, or choose one that is there with --platform",
        )
    return best


def _incomplete(
    image: EngineImage, wanted: Platform | None, text: str, engine: Engine
) -> ImageIncomplete:
    lacking = {wanted} if wanted else image.absent
    held = f"{engine.endpoint} holds {text} only in part"
    what = f"content of {_listed(lacking)} is absent" if lacking else "content is absent"
    there = f", {_listed(image.manifests)} is there" if image.manifests else ""
    pull = f"{engine.name} pull {f'--platform {wanted} ' if wanted else ''}{text}"
    other = "; or load what is there with --platform" if image.manifests else ""
    return ImageIncomplete(f"{held}: {what}{there}", hint=f"{pull}, or build it again{other}")


def _listed(platforms: Iterable[Platform]) -> str:
    return ", ".join(sorted(map(str, platforms)))
