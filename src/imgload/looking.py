"""The first half of the way: from references to images, and what the nodes have of them."""

from __future__ import annotations

import shlex
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from functools import partial
from importlib import import_module

import attrs

from imgload.engines.candidate import Attempt
from imgload.engines.discovery import explained
from imgload.errors import ImgloadError
from imgload.events import Event, ImageFound, Note
from imgload.identity import identified, identities, may_have, remembered
from imgload.nodes.node import Node
from imgload.nodes.survey import Question, Survey
from imgload.oci.platform import Platform
from imgload.parallel import Task, in_parallel, outcome
from imgload.plan import Image
from imgload.reference import string_or_none, strings
from imgload.sources.base import Found, Source
from imgload.sources.resolve import Located, Settle, locate, named, refit, require_names

Ask = Callable[[Node, Question], Survey | ImgloadError]


def read(node: Node, asked: Question) -> Survey | ImgloadError:
    """Survey a node; the error in its place where that fails."""
    return outcome(partial(node.survey, asked))


def expect(node: Node, asked: Question) -> Survey | ImgloadError:
    """Take what the last import of a node left, where that will do."""
    return node.expected(asked) or read(node, asked)


@attrs.frozen
class Request:
    """What a user asks for.

    Args:
        texts: names or image IDs; none for all of an archive.
        name: the name in place of the one image's own.
        also: names beside it.
        platform: None for the nodes'.

    Raises:
        ReferenceInvalid: when something is no name, and among the texts no image ID either.
        UsageError: when several images are to have one name.

    """

    texts: Sequence[str]
    name: str | None = None
    also: Sequence[str] = ()
    platform: Platform | None = None

    def __attrs_post_init__(self) -> None:
        require_names(self.texts, self.name, self.also)

    @classmethod
    def of(
        cls, texts: Sequence[str], name: str | None, also: Sequence[str], platform: str | None
    ) -> Request:
        """Check the arguments, and parse the platform."""
        wanted = string_or_none(platform, "platform")
        return cls(
            strings(texts, "images"),
            string_or_none(name, "name"),
            strings(also, "also"),
            Platform.parse(wanted) if wanted is not None else None,
        )

    def named(self, located: Iterable[Located]) -> dict[Image, Located]:
        """Return each image to load, with the ID that is remembered of it."""
        return named(remembered(located), self.name, self.also)


@attrs.define
class Look:
    """One look at sources and nodes.

    Args:
        sources: where images are looked for.
        nodes: where they are to be.
        settle: chooses where sources have different images under one name.
        silent: engines that could not be asked, though they were meant to be.
        on_event: told what is found.
        ask: how a node is asked.
        ahead: surveys that were made before.
        found: the images, and where each comes from.
        surveys: what each node has.
        failed: why the others do not answer.
        pushed: what the engines told of images whose ID was not known.

    """

    sources: Sequence[Source]
    nodes: Sequence[Node]
    settle: Settle
    silent: Sequence[Attempt]
    on_event: Callable[[Event], None]
    ask: Ask = read
    ahead: Mapping[str, Survey] = attrs.field(factory=dict)
    found: dict[Image, Located] = attrs.field(factory=dict)
    surveys: dict[str, Survey] = attrs.field(factory=dict)
    failed: dict[str, ImgloadError] = attrs.field(factory=dict)
    pushed: dict[Found, Found] = attrs.field(factory=dict)

    def at(self, request: Request) -> None:
        """Find the images, and survey the nodes."""
        with explained(self.silent):
            located = locate(request.texts, self.sources, request.platform, self.settle)
        self.found = request.named(located)
        for note in _not_asked(self.silent):
            self.on_event(note)
        self._survey_first()
        nodes = {survey.traits.platform for survey in self.surveys.values()}
        if request.platform is None and (fitted := refit(located, request.texts, nodes)):
            self.found = request.named(fitted)
            self.survey()
        self._identify()
        self._tell(request)

    def survey(self) -> None:
        """Ask all nodes about the images, and meanwhile the engines for IDs that they do not tell.

        An engine is asked by a push, which Ctrl-C must not leave half done: hence not on a thread.
        """
        asked = Question.about(list(self.found))
        surveying = Task(partial(ask_all, self.nodes, asked, self.ask))
        self.pushed |= identities(self.found.values(), self.pushed)
        self.surveys, self.failed = surveying.result()

    def _survey_first(self) -> None:
        """Survey, unless that was done ahead and holds nothing of the images."""
        if self.ahead and self._has_unknown:
            self.found = identified(self.found, self.ahead, self.pushed)
        if len(self.ahead) == len(self.nodes) and self._is_new:
            self.surveys = {n: attrs.evolve(s, fresh=False) for n, s in self.ahead.items()}
        else:
            self.survey()

    def _identify(self) -> None:
        unknown = {image.name for image in self.found if image.image_id is None}
        if unknown:
            self.found = identified(self.found, self.surveys, self.pushed)
            told = [image for image in self.found if image.name in unknown]
            if any(may_have(survey, told) for survey in self.surveys.values()):
                self.survey()

    @property
    def _has_unknown(self) -> bool:
        return any(image.image_id is None for image in self.found)

    @property
    def _is_new(self) -> bool:
        """Whether no node had anything under these images' IDs; an unknown one may be there."""
        wanted = {image.image_id for image in self.found}
        there = (survey.content.blobs for survey in self.ahead.values())
        return None not in wanted and all(wanted.isdisjoint(blobs) for blobs in there)

    def _tell(self, request: Request) -> None:
        for image in self.found:
            self.on_event(ImageFound(image.name, image.image_id, image.source, image.size))
        for image in {image.target: image for image in reversed(self.found)}.values():
            for note in _cannot_run(image, self.surveys):
                self.on_event(note)
            for note in () if request.texts else _kept_local(image):
                self.on_event(note)


def ask_all(
    nodes: Sequence[Node], asked: Question, ask: Ask = read
) -> tuple[dict[str, Survey], dict[str, ImgloadError]]:
    """Ask all nodes at once, and import meanwhile what comes after."""
    Task(partial(import_module, "imgload.transfer"))
    answers = in_parallel([partial(ask, node, asked) for node in nodes])
    pairs = list(zip((node.name for node in nodes), answers, strict=True))
    surveys = {name: answer for name, answer in pairs if isinstance(answer, Survey)}
    return surveys, {n: a for n, a in pairs if isinstance(a, ImgloadError)}


def _not_asked(silent: Iterable[Attempt]) -> Iterator[Note]:
    """Yield a note for each engine that was named for this run and does not answer."""
    for attempt in silent:
        if attempt.candidate.explicit and attempt.error:
            yield Note(f"going on without {attempt.error.message}")


def _cannot_run(image: Image, surveys: Mapping[str, Survey]) -> Iterator[Note]:
    for name, survey in surveys.items():
        if not survey.traits.platform.runs(image.platform):
            yield Note(
                f"{image.name} is for {image.platform}: {name}, which is"
                f" {survey.traits.platform}, runs it only with emulation"
            )


def _kept_local(image: Image) -> Iterator[Note]:
    """Say of a name out of an archive that Podman gave it (podman #15974)."""
    short = image.name.removeprefix("localhost/")
    if short != image.name:
        yield Note(
            f"{image.name} is what the archive calls it, and not what a pod finds as {short};"
            f" for that, load it by name: imgload load {shlex.quote(short)} --from …"
        )
