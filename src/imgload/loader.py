"""The way through: references, source, nodes, survey, plan, transport, verification, report."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import partial
from importlib import import_module
from typing import TYPE_CHECKING

import attrs

from imgload.connect import Connections
from imgload.engines.candidate import Attempt
from imgload.engines.discovery import explained
from imgload.errors import ImgloadError, LoadFailed
from imgload.events import Event, ImageFound, Note
from imgload.nodes.node import Node
from imgload.nodes.survey import Question, Survey
from imgload.oci.digest import Digest
from imgload.oci.platform import Platform
from imgload.parallel import Task, in_parallel
from imgload.plan import Image, Plan, make_plan
from imgload.reference import Reference
from imgload.report import Report
from imgload.sources.base import Found, Source
from imgload.sources.resolve import (
    Located,
    Settle,
    locate,
    named,
    refit,
    refuse,
    require_pushers,
)

if TYPE_CHECKING:
    from imgload.transports.choose import TransportOption

OnEvent = Callable[[Event], None]
Names = tuple[str | None, Sequence[str]]
"""The name in place of an image's own, and those beside it."""
Ask = Callable[[Node, Question], Survey | ImgloadError]


def _read(node: Node, asked: Question) -> Survey | ImgloadError:
    try:
        return node.survey(asked)
    except ImgloadError as error:
        return error


def _expect(node: Node, asked: Question) -> Survey | ImgloadError:
    """Take what the last import of a node left, where that will do."""
    return node.expected(asked) or _read(node, asked)


@attrs.define
class Loader:
    """Loads images into a fixed set of nodes from a fixed set of sources; reuse it.

    Not to be shared between threads; separate loaders are independent.

    Args:
        sources: where images are looked for.
        nodes: where they are to be.
        settle: chooses where sources have different images under one name.

    """

    sources: Sequence[Source]
    nodes: Sequence[Node]
    settle: Settle = refuse
    silent: Sequence[Attempt] = ()
    """Engines that could not be asked, though they were meant to be."""
    _ahead: dict[str, Survey] = attrs.field(factory=dict, init=False)

    @classmethod
    @contextmanager
    def connect(
        cls,
        cluster: str | None = None,
        *,
        nodes: Sequence[str] = (),
        source: str | None = None,
    ) -> Iterator[Loader]:
        """Find the engines and the nodes, and keep the connections until the end.

        Args:
            cluster: name of the cluster; None for the kube context's, or else the only one.
            nodes: names of the nodes; empty for all of the cluster.
            source: ``docker``, ``podman``, an engine's URL, or a path; None for every engine.

        Raises:
            EngineError: when no engine can be used.
            ClusterError: when the cluster or a node is not there.
            UsageError: when the source is none of the above.

        """
        with Connections.open(source) as connections:
            chosen = connections.select_nodes(cluster, nodes)
            yield cls(connections.sources, chosen, silent=connections.found.silent)

    def survey_ahead(self, name: str) -> None:
        """Survey the nodes while an image is still being built, so that its load need not.

        The next load relies on it where it shows that the nodes have nothing of the image; what
        they lose meanwhile is sent after all. A node that cannot be asked is asked again then.

        Args:
            name: what the image is going to be called.

        Raises:
            ReferenceInvalid: when that is no image name.

        """
        self._ahead, _ = self._ask(Question((Reference.parse(name).record,), ()))

    def plan(
        self,
        images: Sequence[str],
        *,
        name: str | None = None,
        also: Sequence[str] = (),
        platform: str | None = None,
        on_event: OnEvent = lambda _: None,
    ) -> Plan:
        """Return what `load` would do now; nothing is changed."""
        found, surveys, _ = self._look(images, (name, also), platform, on_event)
        return make_plan(list(found), surveys)

    def load(
        self,
        images: Sequence[str],
        *,
        name: str | None = None,
        also: Sequence[str] = (),
        platform: str | None = None,
        transport: TransportOption = "auto",
        dry_run: bool = False,
        on_event: OnEvent = lambda _: None,
    ) -> Report:
        """Put images on all nodes and prove that they are there.

        Args:
            images: names or image IDs, as a pod spec or the engine would have them; none for
                all of an archive.
            name: the name to load one image under, in place of its own.
            also: names that the one image gets beside that, in the same transfer.
            transport: ``archive`` (whole images), ``delta`` (what is missing) or ``auto``.
            platform: ``os/arch[/variant]`` out of a multi-platform image.
            dry_run: stop after the plan.
            on_event: told what happens, from several threads.

        Raises:
            UsageError: when a source that cannot push is to be sent by ``delta``.
            LoadFailed: when a node was not proven; its `report` says which.
            ImgloadError: when nothing could be loaded at all.

        """
        if transport == "delta":
            require_pushers(self.sources)
        ask = _read if dry_run else _expect
        found, surveys, failed = self._look(images, (name, also), platform, on_event, ask)
        plan = make_plan(list(found), surveys)
        by_name = {node.name: node for node in self.nodes}
        from imgload.transfer import Transfer  # noqa: PLC0415 - see `_survey`

        origins = {image.name: origin for image, origin in found.items()}
        transfer = Transfer(by_name, surveys, origins, on_event, transport)
        transfer.refuse(list(found), failed)
        (transfer.pretend if dry_run else transfer.carry_out)(plan)
        report = transfer.report([node.name for node in self.nodes], dry_run=dry_run)
        if not report.ok:
            raise LoadFailed(report)
        return report

    def verify(
        self,
        images: Sequence[str],
        *,
        name: str | None = None,
        platform: str | None = None,
        on_event: OnEvent = lambda _: None,
    ) -> Report:
        """Read back whether every node has exactly these images; nothing is changed.

        Args:
            images: as for `load`.
            name: the name that one image has on the nodes, in place of its own.
            platform: ``os/arch[/variant]`` out of a multi-platform image.
            on_event: told each result.

        Raises:
            LoadFailed: when a node lacks an image, or has another one under its name.
            ImgloadError: when the images or the nodes could not be settled on.

        """
        from imgload.verification import Verification  # noqa: PLC0415 - start-up

        found, surveys, failed = self._look(images, (name, ()), platform, on_event)
        if any(image.image_id is None for image in found):
            found = _saved(found)
            surveys, failed = self._survey(list(found))
        report = Verification(self.nodes, surveys, failed, on_event).report(list(found))
        if not report.ok:
            raise LoadFailed(report)
        return report

    def _look(
        self,
        texts: Sequence[str],
        names: Names,
        platform: str | None,
        on_event: OnEvent,
        ask: Ask = _read,
    ) -> tuple[dict[Image, Located], dict[str, Survey], dict[str, ImgloadError]]:
        """Find the images in the sources, and what the nodes have."""
        wanted = Platform.parse(platform) if platform is not None else None
        with explained(self.silent):
            located = locate(texts, self.sources, wanted, self.settle)
        found = named([_remembered(*pair) for pair in located], *names)
        for note in _not_asked(self.silent):
            on_event(note)
        if self._ahead and any(image.image_id is None for image in found):
            found = _identified(found, self._ahead)
        surveys, failed = self._survey(list(found), ask)
        nodes = {survey.traits.platform for survey in surveys.values()}
        if wanted is None and (fitted := refit(located, texts, nodes)):
            found = named([_remembered(*pair) for pair in fitted], *names)
            surveys, failed = self._survey(list(found), ask)
        if any(image.image_id is None for image in found):
            found = _identified(found, surveys)
            if any(_may_have(survey, found) for survey in surveys.values()):
                surveys, failed = self._survey(list(found), ask)
        for image in found:
            on_event(ImageFound(image.name, image.image_id, image.source, image.size))
        for image in {image.target: image for image in reversed(found)}.values():
            for note in (*_cannot_run(image, surveys), *(() if texts else _kept_local(image))):
                on_event(note)
        return found, surveys, failed

    def _survey(
        self, images: Sequence[Image], ask: Ask = _read
    ) -> tuple[dict[str, Survey], dict[str, ImgloadError]]:
        """Survey all nodes at once, unless that was done ahead."""
        ahead, self._ahead = self._ahead, {}
        if len(ahead) == len(self.nodes) and _are_new(images, ahead.values()):
            return ahead, {}
        return self._ask(Question.about(images), ask)

    def _ask(
        self, asked: Question, ask: Ask = _read
    ) -> tuple[dict[str, Survey], dict[str, ImgloadError]]:
        """Ask all nodes at once, and import meanwhile what comes after."""
        Task(partial(import_module, "imgload.transfer"))
        answers = in_parallel([partial(ask, node, asked) for node in self.nodes])
        pairs = list(zip((node.name for node in self.nodes), answers, strict=True))
        surveys = {name: answer for name, answer in pairs if isinstance(answer, Survey)}
        return surveys, {n: a for n, a in pairs if isinstance(a, ImgloadError)}


def _not_asked(silent: Iterable[Attempt]) -> Iterator[Note]:
    """Yield a note for each engine that was named for this run and does not answer."""
    for attempt in silent:
        if attempt.candidate.explicit and attempt.error:
            yield Note(f"going on without {attempt.error.message}")


def _are_new(images: Iterable[Image], surveys: Iterable[Survey]) -> bool:
    """Whether no node has anything under these images' IDs; one that is not known may be there."""
    wanted = {image.image_id for image in images}
    return None not in wanted and all(wanted.isdisjoint(s.content.blobs) for s in surveys)


def _remembered(source: Source, found: Found) -> Located:
    """Take an image ID from memory where the engine does not tell it."""
    if found.image_id is None and found.manifest_digest is not None:
        from imgload.memory import Memory  # noqa: PLC0415 - start-up

        image_id = Memory.load().image_id(source.address, found.manifest_digest)
        return source, attrs.evolve(found, image_id=image_id)
    return source, found


def _identified(
    found: Mapping[Image, Located], surveys: Mapping[str, Survey]
) -> dict[Image, Located]:
    """Settle the image IDs that an engine does not tell: a node may, by the manifest's digest."""
    from imgload.memory import Memory  # noqa: PLC0415 - start-up

    known: dict[Image, Located] = {}
    for image, (source, there) in found.items():
        image_id = there.image_id or _config_of(there.manifest_digest, surveys.values())
        settled = attrs.evolve(there, image_id=image_id) if image_id else source.identify(there)
        known[attrs.evolve(image, image_id=settled.image_id)] = (source, settled)
        if settled.image_id and there.manifest_digest:
            Memory.load().identify(source.address, there.manifest_digest, settled.image_id)
    return known


def _saved(found: Mapping[Image, Located]) -> dict[Image, Located]:
    """Settle the image IDs that only a save tells."""
    from imgload.sources.saved import identified  # noqa: PLC0415 - start-up

    pairs = [(image, source, identified(source, there)) for image, (source, there) in found.items()]
    return {attrs.evolve(i, image_id=f.image_id, diff_ids=f.diff_ids): (s, f) for i, s, f in pairs}


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
            f" for that, load it by name: imgload load {short} --from …"
        )


def _config_of(manifest: Digest | None, surveys: Iterable[Survey]) -> Digest | None:
    found = (s.content.configs.get(manifest) for s in surveys) if manifest else ()
    return next(filter(None, found), None)


def _may_have(survey: Survey, images: Iterable[Image]) -> bool:
    """Whether a node has the config of an image, which has to be read then."""
    wanted = {image.image_id for image in images if image.image_id}
    return not wanted.isdisjoint(survey.content.blobs - survey.configs.keys())
