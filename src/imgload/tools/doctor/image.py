"""Which engine has an image, and which image that is."""

from __future__ import annotations

import shlex
from collections.abc import Iterator, Sequence
from contextlib import closing
from functools import partial

import attrs

from imgload.core.errors import ImgloadError
from imgload.engines.base import Engine
from imgload.engines.discovery.discover import connect, discover
from imgload.engines.endpoint import Endpoint
from imgload.oci.digest import Digest
from imgload.oci.platform import Platform
from imgload.oci.reference import Reference, image_id_prefix, is_full_image_id, name_or_id
from imgload.sources.base import Image, Source
from imgload.sources.engine import EngineSource
from imgload.sources.locate import ambiguous
from imgload.tools.doctor.finding import Finding
from imgload.tools.doctor.timeouts import answers

SECONDS = 5.0


@attrs.frozen
class Wanted:
    """The image that nodes should have.

    Args:
        asked: the user's text for it.
        name: as the kubelet resolves it.
        image_id: of the image that an engine has; None where none has it, or does not tell.
        diff_ids: its layers; empty where no engine has it.
        platform: what it runs on; None where no engine has it.

    """

    asked: str
    name: str
    image_id: Digest | None = None
    diff_ids: tuple[Digest, ...] = ()
    platform: Platform | None = None

    @property
    def known(self) -> bool:
        """Whether an engine has it, so that nodes can be compared with that."""
        return self.platform is not None


def name_of(text: str) -> str:
    """Return a name as the kubelet resolves it; an image ID stays as it is.

    Raises:
        ReferenceInvalid: when it is neither.

    """
    name = name_or_id(text)
    return name.record if name else text


def check_name(text: str, name: str) -> Iterator[Finding]:
    """Yield what the kubelet takes the name for, and whether it pulls it in any case.

    Args:
        text: as the user wrote it; an image ID, perhaps.
        name: of the image that it means.

    """
    if is_full_image_id(name):
        return
    if name != text:
        means = "is" if image_id_prefix(text) else "in a pod spec means"
        yield Finding("image", "info", f"{text!r} {means} {name}")
    if Reference.parse(name).pulls_always:
        what = f"the kubelet pulls {name} each time, whatever the node has"
        better = "set imagePullPolicy: IfNotPresent in the pod spec; or use a tag but latest"
        yield Finding("image", "warning", what, better)


def check_engines_for(text: str, engines: Sequence[Engine]) -> tuple[list[Finding], Wanted]:
    """Return what the engines have under a name, and which image is wanted of the nodes."""
    sources = [EngineSource(engine) for engine in engines]
    told = answers([partial(_find, source, text) for source in sources], SECONDS)
    errors = [Finding.of("image", t) for t in told if isinstance(t, ImgloadError)]
    images = [t for t in told if isinstance(t, Image)]
    if not images:
        return [*errors, *_absent(text, sources)], Wanted(text, name_of(text))
    findings = [*errors, *(_holder(text, image) for image in images)]
    if len({image.image_id or image.target for image in images}) > 1:
        findings.append(Finding.of("image", ambiguous(text, images)))
        return findings, Wanted(text, name_of(text))
    image = images[0]
    return findings, Wanted(text, image.names[0], image.image_id, image.diff_ids, image.platform)


def _find(source: Source, text: str) -> Image | None:
    try:
        found = source.find(text, None)
        return source.identify(found) if found else None
    finally:
        source.release()


def _holder(text: str, image: Image) -> Finding:
    what = f"image {image.image_id.short}" if image.image_id else f"{image.target.short}"
    return Finding("image", "ok", f"{image.origin.describe} has {text}: {what}, {image.platform}")


def _absent(text: str, sources: Sequence[EngineSource]) -> Iterator[Finding]:
    if not sources:
        yield Finding("image", "problem", f"no engine can be asked for {text!r}")
        return
    places = " and ".join(source.describe for source in sources)
    build = f"{sources[0].engine.name} build -t {shlex.quote(text)} ."
    hint = f"see what is there: {sources[0].listing}; or build it: {build}"
    yield Finding("image", "problem", f"no image {text!r} in {places}", hint)
    yield from _elsewhere(text)


def _elsewhere(text: str) -> Iterator[Finding]:
    """Yield the engines that have it, and are not asked by a load."""
    try:
        places = [a for a in discover(everything=True).attempts if a.passed_over and a.endpoint]
    except ImgloadError:
        return
    calls = [partial(_holds, place.answered, text) for place in places]
    for place, holds in zip(places, answers(calls, SECONDS), strict=True):
        if holds is True:
            what = f"{place.endpoint} has it, and is not asked: {place.passed_over}"
            take = shlex.join(["imgload", "load", text, "--from", place.answered.url])
            yield Finding("image", "info", what, take)


def _holds(endpoint: Endpoint, text: str) -> bool:
    with closing(connect(endpoint)) as engine:
        return EngineSource(engine).find(text, None) is not None
