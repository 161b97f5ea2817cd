"""Find the engine that has an image."""

from __future__ import annotations

import shlex
from collections.abc import Iterator, Sequence
from contextlib import closing
from functools import partial

import attrs

from imgload.core.errors import ImgloadError
from imgload.engines.base import Engine
from imgload.engines.discovery.candidates import Attempt
from imgload.engines.discovery.discover import connect, discover
from imgload.oci.digest import Digest
from imgload.oci.reference import Reference, image_id_prefix, is_full_image_id, parse_unless_id
from imgload.sources.base import Image
from imgload.sources.engine import EngineSource
from imgload.sources.locate import ambiguous, named
from imgload.tools.doctor.finding import Finding
from imgload.tools.doctor.timeouts import call_each

_SECONDS = 5.0


@attrs.frozen
class Wanted:
    """The image that the nodes should have: the user's name or ID, and as the kubelet resolves it.

    `image` is None if no engine has it, or two have different ones.
    """

    query: str
    name: str
    image: Image | None = None

    @property
    def image_id(self) -> Digest | None:
        """The digest of the engine's config, if the engine reports it."""
        return self.image.image_id if self.image else None


def name_of(text: str) -> str:
    """Return a name as the kubelet resolves it, or an image ID; else raise ReferenceInvalid."""
    name = parse_unless_id(text)
    return name.record if name else text


def check_name(text: str, name: str) -> Iterator[Finding]:
    """Yield how the kubelet resolves the user's text, and whether it always pulls that name."""
    if is_full_image_id(name):
        return
    if name != text:
        means = "is" if image_id_prefix(text) else "in a pod spec means"
        yield Finding("image", "info", f"{text!r} {means} {name}")
    if Reference.parse(name).pulls_always:
        what = f"the kubelet pulls {name} each time, even if the node has it"
        fix = "set imagePullPolicy: IfNotPresent in the pod spec; or use a tag other than latest"
        yield Finding("image", "warning", what, fix)


def find_in_engines(text: str, engines: Sequence[Engine]) -> tuple[list[Finding], Wanted]:
    """Return the findings about the engines, and the image that the nodes should have."""
    sources = [EngineSource(engine) for engine in engines]
    findings: list[Finding] = []
    images: list[Image] = []
    for source, result in call_each(partial(_find, text), sources, _SECONDS):
        if isinstance(result, ImgloadError):
            findings.append(Finding.of("image", result))
        elif result:
            image_id = result.image_id
            what = f"image {image_id.short}" if image_id else result.target.short
            what = f"{source.describe} has {text}: {what}, {result.platform}"
            findings.append(Finding("image", "ok", what))
            images.append(result)
    if not images:
        findings += _not_found(text, sources)
    elif len({image.image_id or image.target for image in images}) > 1:
        findings.append(Finding.of("image", ambiguous(text, images)))
    else:
        image = named(images[:1], None)[0]
        return findings, Wanted(text, image.name, image)
    return findings, Wanted(text, name_of(text))


def _find(text: str, source: EngineSource) -> Image | None:
    try:
        image = source.find(text, None)
        return source.identify(image) if image else None
    finally:
        source.release()


def _not_found(text: str, sources: Sequence[EngineSource]) -> Iterator[Finding]:
    """Yield that no engine has the image, and the engines that have it but are not used."""
    if not sources:
        yield Finding("image", "problem", f"no engine can be asked for {text!r}")
        return
    places = " and ".join(source.describe for source in sources)
    build = f"{sources[0].engine.name} build -t {shlex.quote(text)} ."
    hint = f"list images with: {sources[0].listing}; or build it: {build}"
    yield Finding("image", "problem", f"no image {text!r} in {places}", hint)
    try:
        attempts = discover(everything=True).attempts
    except ImgloadError:
        return
    unused = [attempt for attempt in attempts if attempt.skip_reason and attempt.endpoint]
    for attempt, has_image in call_each(partial(_has, text), unused, _SECONDS):
        if has_image is True:
            what = f"{attempt.endpoint} has it but is not used: {attempt.skip_reason}"
            load = shlex.join(["imgload", "load", text, "--from", attempt.resolved_endpoint.url])
            yield Finding("image", "info", what, load)


def _has(text: str, attempt: Attempt) -> bool:
    with closing(connect(attempt.resolved_endpoint)) as engine:
        return EngineSource(engine).find(text, None) is not None
