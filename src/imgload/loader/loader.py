"""`Loader`: from image names to a report, by survey, plan, transfer and verification."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager, suppress
from importlib import import_module
from typing import TYPE_CHECKING

import attrs

from imgload.clusters.nodes.base import NodeRuntime
from imgload.clusters.nodes.survey import Survey, SurveyQuery
from imgload.core import trace
from imgload.core.arguments import optional_string, require_flags, require_strings
from imgload.core.errors import ImgloadError, UsageError
from imgload.core.parallel import Task
from imgload.engines.base import ImageStore
from imgload.engines.discovery.candidates import Attempt
from imgload.loader.events import Event, Note, NoteCollector
from imgload.loader.plan import make_plan
from imgload.loader.prepare import (
    Ask,
    LoadOptions,
    Preparation,
    Request,
    cached_survey,
    survey,
    survey_all,
)
from imgload.loader.report import (
    ImageResult,
    LoadFailed,
    NodeResult,
    Report,
    RestartFailed,
)
from imgload.loader.session import Session
from imgload.oci.reference import Reference
from imgload.sources.base import Source
from imgload.sources.engine import EngineSource
from imgload.sources.locate import Settle, refuse, require_pushers

if TYPE_CHECKING:
    from os import PathLike
    from typing import Unpack

    from imgload.clusters.cluster import Cluster
    from imgload.transports.base import Transport

OnEvent = Callable[[Event], None]


def _sources(sources: Source | ImageStore | Iterable[Source | ImageStore]) -> tuple[Source, ...]:
    several = (sources,) if isinstance(sources, (Source, ImageStore)) else tuple(sources)
    return tuple(EngineSource(s) if isinstance(s, ImageStore) else s for s in several)


@attrs.define(eq=False, repr=False)
class Loader:
    """Loads images from fixed sources into fixed nodes; reusable.

    Do not share a loader between threads; separate loaders are independent.

    Args:
        sources: an engine such as `imgload.Docker`, another source, or several to search.
        nodes: the nodes to load; `imgload.select_nodes` returns those of a cluster.
        settle: chooses if sources have different images under one name.
        unreachable: selected engines that do not answer.
        source: the user's selection of the sources.
        transport: delivers content to the nodes; None for imgload's own.
        follow_links: whether the source was opened with this option.
        address: the path of containerd's socket on the nodes, if the user selected it.
        notes: about the sources and nodes, for the user; every load and verification reports them.
        archives: sources of which every load and verification takes all images.
        clusters: the clusters of the nodes. `load` may restart their workloads, and records the
            images for `imgload.restore`.

    """

    sources: Sequence[Source] = attrs.field(converter=_sources)
    nodes: Sequence[NodeRuntime]
    settle: Settle = refuse
    unreachable: Sequence[Attempt] = ()
    source: str | None = None
    transport: Transport | None = None
    follow_links: bool = False
    address: str | None = None
    notes: Sequence[str] = ()
    archives: Sequence[Source] = ()
    clusters: Sequence[Cluster] = ()
    _ahead: dict[str, Survey] = attrs.field(factory=dict, init=False)

    @classmethod
    @contextmanager
    def connect(
        cls,
        cluster: str | Sequence[str] | None = None,
        *,
        nodes: str | Sequence[str] = (),
        address: str | None = None,
        source: str | PathLike[str] | None = None,
        follow_links: bool = False,
        images: str | Sequence[str] = (),
        archives: str | PathLike[str] | Sequence[str | PathLike[str]] = (),
    ) -> Iterator[Loader]:
        """Find the engines and the nodes; close the connections at the end.

        Args:
            cluster: names of the clusters; none for the kube context's, or else the only one.
            nodes: names or patterns of the nodes; empty for all of the cluster.
            address: the path of containerd's socket on the nodes; None to find it.
            source: ``docker``, ``podman``, an engine's URL, or a path; None for every engine.
            follow_links: whether symbolic links may lead out of a source that is a folder.
            images: names or image IDs that are used next; they are looked up at the same time.
            archives: paths of archives or folders of images, to load with all of their images.

        Raises:
            EngineError: if no engine can be used.
            ClusterError: if the cluster or a node does not exist.
            UsageError: if the source is not one of these, or `address` is no plain path.

        """
        require_flags(follow_links=follow_links)
        source, nodes = optional_string(source, "source"), require_strings(nodes, "nodes")
        address = optional_string(address, "address")
        texts, paths = require_strings(images, "images"), require_strings(archives, "archives")
        with Session.open(source, follow_links=follow_links, archives=paths) as session:
            Task(_import_ahead)
            for opened in session.sources:
                opened.look_ahead(texts)
            selection = session.select(cluster, nodes, address=address)
            yield cls(
                session.sources,
                selection.nodes,
                unreachable=session.discovery.unreachable,
                source=source,
                follow_links=follow_links,
                address=address,
                notes=(*selection.notes, *_also_images(session.archives, session.sources)),
                archives=session.archives,
                clusters=selection.clusters,
            )

    def survey_ahead(self, name: str) -> None:
        """Survey the nodes while an image is still being built, to save time in its load.

        The next load uses these surveys if they show that no node has anything of the image; if
        nodes lose layers in between, a full load follows. It surveys nodes that fail now again.

        Args:
            name: the image's future name.

        Raises:
            ReferenceInvalid: if `name` is no image name.

        """
        self._ahead, _ = survey_all(self.nodes, SurveyQuery((Reference.parse(name).record,), ()))

    def load(
        self,
        images: str | Sequence[str],
        *,
        dry_run: bool = False,
        restart: bool = False,
        on_event: OnEvent = lambda _: None,
        **options: Unpack[LoadOptions],
    ) -> Report:
        """Load images into all nodes, and verify them there.

        Arguments and errors are those of `imgload.load`.
        """
        require_flags(dry_run=dry_run, restart=restart)
        if restart:
            require_clusters(self.clusters)
        request = Request(images, **options)
        if request.transport == "delta":
            is_only_archives = self.archives and not request.texts
            require_pushers([*self.archives, *(() if is_only_archives else self.sources)])
        notes = NoteCollector(on_event)
        with self._preparing(request, notes, survey if dry_run else cached_survey) as preparation:
            preparation.run(request)
            before = dict(preparation.surveys)
            plan = make_plan(
                preparation.images,
                preparation.surveys,
                keep_manifest=request.keep_manifest,
                complete=request.complete,
            )
            for step in plan.steps:
                missing = f"{len(step.missing)} of {len(step.image.diff_ids)} layers missing"
                trace.log(f"plan: {step.image.name} on {step.node}: {step.action}, {missing}")
            from imgload.loader.execute import Executor  # noqa: PLC0415 - see `_import_ahead`

            executor = Executor(
                nodes={node.name: node for node in self.nodes},
                surveys=preparation.surveys,
                images={image.name: image for image in preparation.images},
                unusable=preparation.unusable,
                on_event=notes,
                option=request.transport,
                deep=request.verify == "deep" and not dry_run,
                files=request.verify == "files",
                contents=request.verify == "contents",
                keep_manifest=request.keep_manifest,
                discard_layers=request.discard_layers,
                complete=request.complete,
                pin=request.pin,
                transport=self.transport,
            )
            executor.mark_unreachable(preparation.images, preparation.failed)
            (executor.dry_run if dry_run else executor.run)(plan)
        names = [node.name for node in self.nodes]
        report = executor.report(names, dry_run=dry_run)
        report = attrs.evolve(report, changed=_changed(report, before, self.clusters))
        if self.clusters and not dry_run:
            from imgload.loader.record import record_load  # noqa: PLC0415 - start-up

            for cluster in self.clusters:
                record_load(cluster, names, executor.images, request, report)
        return finish(report, notes, restart=restart)

    def verify(
        self,
        images: str | Sequence[str],
        *,
        tag: str | None = None,
        platform: str | None = None,
        deep: bool = False,
        files: bool = False,
        contents: bool = False,
        complete: bool = False,
        strict_platform: bool | None = None,
        on_event: OnEvent = lambda _: None,
    ) -> Report:
        """Verify that every node has exactly these images; nothing is changed.

        Arguments and errors are those of `imgload.verify`.
        """
        require_flags(deep=deep, files=files, contents=contents)
        from imgload.loader.verify import Verification  # noqa: PLC0415 - start-up

        request = Request(
            images, tag, platform=platform, complete=complete, strict_platform=strict_platform
        )
        notes = NoteCollector(on_event)
        with self._preparing(request, notes, survey) as preparation:
            preparation.run(request)
            if any(image.image_id is None for image in preparation.images):
                from imgload.sources.engine import identify_by_save  # noqa: PLC0415

                preparation.images = [
                    image if image.image_id else identify_by_save(image)
                    for image in preparation.images
                ]
                preparation.survey()
            chosen = str(request.platform) if request.platform else None
            links = "" if self.follow_links else None
            options = {"--from": self.source, "--follow-links": links}
            options |= {"--address": self.address}
            options |= {"--tag": request.tag, "--platform": chosen}
            surveys, check = preparation.surveys, None
            if files or contents:
                from imgload.loader.files import FileCheck  # noqa: PLC0415 - start-up

                check = FileCheck({node.name: node for node in self.nodes}, surveys, contents)
            verification = Verification(
                self.nodes, surveys, preparation.failed, notes, options, deep, complete, check
            )
            report = verification.report((*preparation.images, *preparation.unusable))
        return finish(report, notes)

    @contextmanager
    def _preparing(self, request: Request, on_event: OnEvent, ask: Ask) -> Iterator[Preparation]:
        """Yield a preparation with all sources and nodes; it uses surveys made ahead only once."""
        if not self.sources and (request.texts or not self.archives):
            hint = "pass one: imgload.Loader(imgload.Docker(client), nodes)"
            raise UsageError("the loader has no source of images", hint=hint)
        if not self.nodes:
            hint = "pass those of a cluster: imgload.select_nodes([engine], 'kind', ())"
            raise UsageError("the loader has no nodes", hint=hint)
        ahead, self._ahead = self._ahead, {}
        with ExitStack() as stack:
            for source in (*self.sources, *self.archives):
                stack.callback(source.release)
            for node in self.nodes:
                stack.enter_context(node.waiting_shell())
            for note in self.notes:
                on_event(Note(note))
            yield Preparation(
                self.sources,
                self.nodes,
                self.settle,
                self.unreachable,
                on_event,
                ask,
                ahead,
                self.archives,
            )


def _also_images(archives: Sequence[Source], sources: Sequence[Source]) -> Iterator[str]:
    """Yield a note for each archive whose path is also the name of an image in an engine."""
    engines = [source for source in sources if isinstance(source, EngineSource)]
    for path in (archive.address for archive in archives):
        if path.startswith(("-", ".", "/")):
            continue
        with suppress(ImgloadError):
            if engine := next((source for source in engines if source.find(path, None)), None):
                text = f"{path} is a file, and an image in {engine.name}; loading the file"
                yield f"{text}: for the image, add --from {engine.name}"


def _import_ahead() -> None:
    """Import the modules that a transfer needs, while engines and nodes answer."""
    for name in ("loader.execute", "registry.server"):
        import_module(f"imgload.{name}")


def require_clusters(clusters: Sequence[Cluster]) -> None:
    """Raise UsageError unless there is a cluster whose workloads can be restarted."""
    if not clusters:
        hint = "omit --restart, and restart the pods yourself"
        raise UsageError("a restart needs a cluster, and the nodes belong to none", hint=hint)


def _changed(
    report: Report, before: Mapping[str, Survey], clusters: Sequence[Cluster]
) -> dict[str, frozenset[str]]:
    """Return the images that are new or replaced on a node, or will be, by the kube context."""
    changed: dict[str, frozenset[str]] = {}
    for cluster in clusters:
        members = {member.name for member in cluster.members}
        names = {
            image.reference
            for image in report.images
            for node in image.nodes
            if node.node in members and _is_new(image, node, before)
        }
        if names:
            context = cluster.context  # may read the kubeconfig
            changed[context] = changed.get(context, frozenset()) | names
    return changed


def _is_new(image: ImageResult, node: NodeResult, before: Mapping[str, Survey]) -> bool:
    if node.error or node.action == "present":
        return False
    survey = before[node.node]
    target = survey.records.get(image.reference)
    known = survey.content.configs_under(target) if target else ()
    return bool(node.replaced) or image.image_id not in known


def finish(report: Report, notes: NoteCollector, *, restart: bool = False) -> Report:
    """Return a report with its notes, and restart workloads if it is ok; otherwise raise it."""
    if restart and report.ok:
        from imgload.loader.restart import restart_workloads  # noqa: PLC0415 - start-up

        report = attrs.evolve(
            report, restart=restart_workloads(report.changed, dry_run=report.dry_run)
        )
    report = attrs.evolve(report, notes=tuple(notes.texts))
    if report.errors or report.failures():
        raise LoadFailed(report)
    if not report.ok:
        raise RestartFailed(report)
    return report
