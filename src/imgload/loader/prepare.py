"""Finds the requested images and surveys the nodes, for the plan."""

from __future__ import annotations

import shlex
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import TypedDict, get_args

import attrs

from imgload.clusters.nodes.base import NodeRuntime
from imgload.clusters.nodes.survey import Survey, SurveyQuery
from imgload.core.arguments import (
    optional_string,
    require_choice,
    require_flags,
    require_strings,
)
from imgload.core.environment import in_ci
from imgload.core.errors import ImgloadError, PlatformMissing, UsageError
from imgload.core.parallel import Task, in_parallel, result_or_error
from imgload.engines.discovery.candidates import Attempt
from imgload.engines.discovery.discover import with_discovery_errors
from imgload.loader.events import Event, ImageFound, Note
from imgload.loader.plan import Verify
from imgload.oci.digest import Digest
from imgload.oci.platform import Platform
from imgload.sources.base import Image, Source, TransportOption
from imgload.sources.locate import Settle, locate, match_platform, named, require_names

Ask = Callable[[NodeRuntime, SurveyQuery], Survey | ImgloadError]


def survey(node: NodeRuntime, question: SurveyQuery) -> Survey | ImgloadError:
    """Survey a node; return the error if that fails."""
    return result_or_error(partial(node.survey, question))


def cached_survey(node: NodeRuntime, question: SurveyQuery) -> Survey | ImgloadError:
    """Return the survey of the node's last import if it suffices, or survey the node."""
    return node.cached_survey(question) or survey(node, question)


class LoadOptions(TypedDict, total=False):
    """Options of a load.

    Attributes:
        tag: the name to load one image under, instead of its own.
        extra_tags: additional names of the image, in the same transfer.
        platform: ``os/arch[/variant]`` out of a multi-platform image. [default: the nodes']
        transport: ``pull`` has the nodes pull from this process, and ``import`` streams into
            ``ctr images import``; ``auto`` pulls where a node can, and imports elsewhere.
            ``archive`` streams whole images, and ``delta`` has the engine push missing layers.
        verify: ``cri`` checks containerd and CRI; ``deep`` also hashes every blob of the images
            that the nodes store; ``files`` also compares the unpacked files with the source's
            layers, and ``contents`` hashes them as well.
        keep_manifest: whether the nodes store the source's manifest and its layers unchanged, so
            that its digest stays the same. Names with a digest always do.
        discard_layers: whether the nodes remove the layers from their content stores once they
            are unpacked, as kind's nodes do after their own pulls (CRI's setting
            ``discard_unpacked_layers``).
        complete: whether the nodes must store all layers: those that are unpacked, but not in the
            content store, are sent as well.
        pin: whether to pin the names on the nodes, so that the kubelet does not remove the images
            when the disk is full. A later load under a name keeps its pin; `imgload.prune` with
            `unpin` removes it. containerd before 1.7 has no pins, which a note reports.
        strict_platform: whether an image that a node can run neither natively nor by emulation is
            an error, instead of a warning. [default: in CI]

    """

    tag: str | None
    extra_tags: str | Sequence[str]
    platform: str | None
    transport: TransportOption
    verify: Verify
    keep_manifest: bool
    discard_layers: bool
    complete: bool
    pin: bool
    strict_platform: bool | None


def _images(values: object) -> tuple[str, ...]:
    return require_strings(values, "images")


def _tag(value: object) -> str | None:
    return optional_string(value, "tag")


def _extra_tags(values: object) -> tuple[str, ...]:
    return require_strings(values, "extra_tags")


def _platform(text: object) -> Platform | None:
    wanted = optional_string(text, "platform")
    return Platform.parse(wanted) if wanted is not None else None


@attrs.frozen
class Request:
    """The requested images, and the `LoadOptions`.

    Args:
        texts: names or image IDs; none for all images of an archive.
        tag: as in `LoadOptions`, and so are the rest.
        extra_tags: additional names.
        platform: None for the nodes' platform.
        transport: how images are obtained from an engine.
        verify: how nodes are verified.
        keep_manifest: whether manifest and layers are stored unchanged.
        discard_layers: whether the nodes keep no layers but the unpacked ones.
        complete: whether the nodes must store all layers.
        pin: whether the names are pinned.
        strict_platform: whether each node must be able to run the images; None for: in CI.

    Raises:
        ReferenceInvalid: if a name is invalid; `texts` may also contain image IDs.
        UsageError: if several images are to have one name, or an option has a wrong value.

    """

    texts: tuple[str, ...] = attrs.field(converter=_images)
    tag: str | None = attrs.field(default=None, converter=_tag)
    extra_tags: tuple[str, ...] = attrs.field(default=(), converter=_extra_tags)
    platform: Platform | None = attrs.field(default=None, converter=_platform)
    transport: TransportOption = "auto"
    verify: Verify = "cri"
    keep_manifest: bool = False
    discard_layers: bool = False
    complete: bool = False
    pin: bool = False
    strict_platform: bool | None = None

    def __attrs_post_init__(self) -> None:
        require_choice(self.transport, get_args(TransportOption), "transport")
        require_choice(self.verify, get_args(Verify), "verify")
        require_flags(
            keep_manifest=self.keep_manifest,
            discard_layers=self.discard_layers,
            complete=self.complete,
            pin=self.pin,
            strict_platform=self.strict_platform is not None and self.strict_platform,
        )
        require_names(self.texts, self.tag, self.extra_tags)
        if self.complete and self.discard_layers:
            raise UsageError("complete content has layers: omit complete or discard_layers")

    def name_images(self, images: Sequence[Image]) -> list[Image]:
        """Return each image to load, once for each name, with the image ID if it is cached."""
        return named(_from_cache(images), self.tag, self.extra_tags)


@attrs.define(eq=False, repr=False)
class Preparation:
    """Finds images in sources, and surveys nodes for them; the first four fields are `Loader`'s.

    Args:
        ask: surveys a node.
        ahead: surveys that were made before the images were known.
        archives: sources of which all images are requested.
        images: the images, each once for each name.
        unusable: the images that the source cannot provide; see their `error`.
        surveys: by node name.
        failed: why the other nodes could not be surveyed, by node name.

    """

    sources: Sequence[Source]
    nodes: Sequence[NodeRuntime]
    settle: Settle
    unreachable: Sequence[Attempt]
    on_event: Callable[[Event], None]
    ask: Ask = survey
    ahead: Mapping[str, Survey] = attrs.field(factory=dict)
    archives: Sequence[Source] = ()
    images: list[Image] = attrs.field(factory=list)
    unusable: list[Image] = attrs.field(factory=list)
    surveys: dict[str, Survey] = attrs.field(factory=dict)
    failed: dict[str, ImgloadError] = attrs.field(factory=dict)
    _unknown: set[str] = attrs.field(factory=set)
    """Names of images whose ID was not known when the nodes were surveyed."""

    def run(self, request: Request) -> None:
        """Find the images, and survey the nodes."""
        with with_discovery_errors(self.unreachable):
            groups: list[tuple[list[Image], Sequence[str]]] = [
                (locate((), [archive], request.platform), ()) for archive in self.archives
            ]
            if request.texts or not self.archives:
                images = locate(request.texts, self.sources, request.platform, self.settle)
                groups.append((images, request.texts))
        self._name(request, [image for images, _ in groups for image in images])
        for attempt in self.unreachable:
            if attempt.candidate.explicit and attempt.error:
                self.on_event(Note(f"continuing without {attempt.error.message}"))
        self._survey_unless_known()
        platforms = {survey.traits.platform for survey in self.surveys.values()}
        matched = [match_platform(*group, platforms) for group in groups]
        if request.platform is None and any(matched):
            pairs = zip(matched, groups, strict=True)
            self._name(request, [image for found, (own, _) in pairs for image in found or own])
            self.survey()
        if self._unknown:
            self.images = identify(self.images, self.surveys)
            ids = {i.image_id for i in self.images if i.name in self._unknown and i.image_id}
            if any(not survey.content.blobs.isdisjoint(ids) for survey in self.surveys.values()):
                self.survey()
        strict = in_ci() if request.strict_platform is None else request.strict_platform
        self._check_platforms(strict=strict)
        self._report(request)

    def _name(self, request: Request, images: Sequence[Image]) -> None:
        """Name the images; raise the error of an unusable one if all are unusable."""
        named = request.name_images(images)
        self.images = [image for image in named if not image.error]
        self.unusable = [image for image in named if image.error]
        for image in () if self.images else self.unusable:
            if image.error:
                raise image.error

    def survey(self) -> None:
        """Survey all nodes; meanwhile, have the engines push manifests of images of unknown ID.

        The push runs in this thread, so that Ctrl-C does not leave it incomplete.
        """
        question = SurveyQuery.about(self.images)
        self._unknown = {image.name for image in self.images if image.image_id is None}
        surveying = Task(partial(survey_all, self.nodes, question, self.ask))
        self.images = [
            image if image.image_id else image.origin.identify(image) for image in self.images
        ]
        self.surveys, self.failed = surveying.result()

    def _survey_unless_known(self) -> None:
        """Survey the nodes, unless the surveys made ahead show that no node has any image."""
        if self.ahead and any(image.image_id is None for image in self.images):
            self.images = identify(self.images, self.ahead)
        ids = {image.image_id for image in self.images}
        blobs = [survey.content.blobs for survey in self.ahead.values()]
        if len(blobs) == len(self.nodes) and None not in ids and all(map(ids.isdisjoint, blobs)):
            self.surveys = {n: attrs.evolve(s, fresh=False) for n, s in self.ahead.items()}
        else:
            self.survey()

    def _check_platforms(self, *, strict: bool) -> None:
        """Report each image that a node does not run natively.

        If `strict`, an image that a node cannot run at all is unusable.
        """
        refused: dict[Digest, PlatformMissing] = {}
        for image in {image.target: image for image in reversed(self.images)}.values():
            notes: dict[tuple[Platform, bool], tuple[str, list[str]]] = {}
            for node in self.nodes:
                if node.name not in self.surveys:
                    continue
                traits = self.surveys[node.name].traits
                mismatch = node.platform_mismatch(traits, image.name, image.platform)
                if mismatch is None:
                    continue
                if strict and not mismatch.emulated:
                    anyway = f"imgload load --no-strict-platform {shlex.quote(image.name)}"
                    hint = f"{mismatch.hint}; or load it anyway: {anyway}"
                    error = PlatformMissing(mismatch.text, hint=hint, image=image.name)
                    refused.setdefault(image.target, error)
                    continue
                key = traits.platform, mismatch.emulated
                notes.setdefault(key, (mismatch.text, []))[1].append(node.name)
            for (_, emulated), (text, names) in notes.items():
                also = f" (and on {', '.join(names[1:])})" if names[1:] else ""
                self.on_event(Note(f"{text}{also}", is_warning=not emulated))
        if not refused:
            return
        images = [attrs.evolve(i, error=refused.get(i.target)) for i in self.images]
        self.images = [image for image in images if not image.error]
        self.unusable += [image for image in images if image.error]
        if not self.images:
            raise next(iter(refused.values()))

    def _report(self, request: Request) -> None:
        archives = self.archives or (() if request.texts else self.sources)
        for note in (note for archive in archives for note in archive.notes()):
            self.on_event(Note(note))
        for image in self.images:
            self.on_event(ImageFound(image.name, image.image_id, image.source, image.size))
        for image in {image.target: image for image in reversed(self.images)}.values():
            for note in image.notes:
                self.on_event(Note(note))
            source = shlex.quote(image.origin.address)
            if image.name == str(image.image_id):
                command = f"imgload load {image.name} --from {source} --tag NAME"
                self.on_event(Note(f"a pod cannot refer to {image.name}; name it: {command}"))
            short = image.name.removeprefix("localhost/")
            if not image.query and short != image.name:  # added by Podman (podman #15974)
                text = f"the archive names it {image.name}, which a pod does not find as"
                command = f"imgload load {shlex.quote(short)} --from {source}"
                self.on_event(Note(f"{text} {short}; load it by name: {command}"))


def _from_cache(images: Sequence[Image]) -> list[Image]:
    """Look up image IDs that the engines do not report in the cache."""
    if all(image.image_id for image in images):
        return list(images)
    from imgload.engines.cache import EngineCache  # noqa: PLC0415 - start-up

    memory, result = EngineCache.load(), []
    for image in images:
        cut_off, image_id, digest = image.is_cut_off, image.image_id, image.manifest_digest
        if image_id is None:
            image_id = memory.image_id(image.origin.address, digest) if digest else None
            cut_off = memory.is_unreachable(image.origin.address)
        result.append(attrs.evolve(image, image_id=image_id, is_cut_off=cut_off))
    return result


def identify(images: Sequence[Image], surveys: Mapping[str, Survey]) -> list[Image]:
    """Determine the image IDs that an engine does not report, and cache them.

    A node may have the manifest; otherwise the engine pushes it.
    """
    from imgload.engines.cache import EngineCache  # noqa: PLC0415 - start-up

    memory, identified = EngineCache.load(), []
    for image in images:
        digest = image.manifest_digest
        configs = (s.content.configs.get(digest) for s in surveys.values()) if digest else ()
        image_id = image.image_id or next(filter(None, configs), None)
        known = attrs.evolve(image, image_id=image_id) if image_id else image.origin.identify(image)
        identified.append(known)
        if (manifest := known.manifest) and manifest.digest == known.manifest_digest:
            memory.record_image_id(image.origin.address, manifest.digest, manifest.config.digest)
    return identified


def survey_all(
    nodes: Sequence[NodeRuntime], question: SurveyQuery, ask: Ask = survey
) -> tuple[dict[str, Survey], dict[str, ImgloadError]]:
    """Survey all nodes in parallel."""
    answers = in_parallel([partial(ask, node, question) for node in nodes])
    pairs = list(zip((node.name for node in nodes), answers, strict=True))
    surveys = {name: answer for name, answer in pairs if isinstance(answer, Survey)}
    return surveys, {n: a for n, a in pairs if isinstance(a, ImgloadError)}
