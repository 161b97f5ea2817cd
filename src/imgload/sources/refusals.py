"""Why an engine cannot give an image for a platform."""

from __future__ import annotations

import shlex
from collections.abc import Iterable

from imgload.core.errors import ImageIncomplete, PlatformMissing, SourceError
from imgload.engines.base import Engine, EngineImage
from imgload.oci.platform import Platform


def refusal(image: EngineImage, wanted: Platform | None, text: str, engine: Engine) -> SourceError:
    """Return the error for what `EngineImage.suited` did not find.

    Docker's containerd image store may have an image only in part: an index, and not all that it
    lists (kind #3795).

    Args:
        image: as the engine describes it.
        wanted: the platform asked for; None for the engine's own choice.
        text: what the image was asked for by.
        engine: where it is.

    """
    if not image.whole or (wanted and wanted.best(image.absent)):
        return _incomplete(image, wanted, text, engine)
    return PlatformMissing(
        f"{text} in {engine.endpoint} is for {_listed(image.platforms)}, not {wanted}",
        hint=f"build it with --platform {wanted}, or choose one that is there with --platform",
    )


def _incomplete(
    image: EngineImage, wanted: Platform | None, text: str, engine: Engine
) -> ImageIncomplete:
    lacking = {wanted} if wanted else image.absent
    held = f"{engine.endpoint} holds {text} only in part"
    what = f"content of {_listed(lacking)} is absent" if lacking else "content is absent"
    there = f", {_listed(image.platforms)} is there" if image.platforms else ""
    pull = f"{engine.name} pull {f'--platform {wanted} ' if wanted else ''}{shlex.quote(text)}"
    other = "; or load what is there with --platform" if image.platforms else ""
    return ImageIncomplete(f"{held}: {what}{there}", hint=f"{pull}, or build it again{other}")


def _listed(platforms: Iterable[Platform]) -> str:
    return ", ".join(sorted(map(str, platforms)))
