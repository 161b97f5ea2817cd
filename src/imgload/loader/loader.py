"""The way through: references, source, nodes, survey, plan, transport, verification, report."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from typing import TYPE_CHECKING

import attrs

from imgload.clusters.nodes.node import Node
from imgload.clusters.nodes.survey import Question, Survey
from imgload.engines.discovery.attempt import Attempt
from imgload.loader.events import Event
from imgload.loader.plan import Plan, make_plan
from imgload.loader.prepare import (
    Ask,
    LoadOptions,
    Preparation,
    Request,
    cached_survey,
    survey,
    survey_all,
)
from imgload.loader.report import LoadFailed, Report
from imgload.loader.session import Connections
from imgload.oci.reference import (
    Reference,
    require_callback,
    string_or_none,
    strings,
)
from imgload.sources.base import Source
from imgload.sources.locate import Settle, refuse, require_pushers

if TYPE_CHECKING:
    from os import PathLike
    from typing import Unpack

    from imgload.transports.base import Transport

OnEvent = Callable[[Event], None]


def _several(sources: Source | Iterable[Source]) -> tuple[Source, ...]:
    return (sources,) if isinstance(sources, Source) else tuple(sources)


@attrs.define
class Loader:
    """Loads images into a fixed set of nodes from a fixed set of sources; reuse it.

    Not to be shared between threads; separate loaders are independent.

    Args:
        sources: the source of the images, or several that are searched.
        nodes: where images are loaded.
        settle: chooses where sources have different images under one name.
        silent: engines that were selected and do not answer.
        source: what the sources were selected by.
        transport: the way of the content to the nodes; None for imgload's own.

    """

    sources: Sequence[Source] = attrs.field(converter=_several)
    nodes: Sequence[Node]
    settle: Settle = refuse
    silent: Sequence[Attempt] = ()
    source: str | None = None
    transport: Transport | None = None
    _ahead: dict[str, Survey] = attrs.field(factory=dict, init=False)

    @classmethod
    @contextmanager
    def connect(
        cls,
        cluster: str | None = None,
        *,
        nodes: Sequence[str] = (),
        source: str | PathLike[str] | None = None,
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
        source, nodes = string_or_none(source, "source"), strings(nodes, "nodes")
        with Connections.open(source) as connections:
            chosen = connections.select_nodes(cluster, nodes)
            silent = connections.found.silent
            yield cls(connections.sources, chosen, silent=silent, source=source)

    def survey_ahead(self, name: str) -> None:
        """Survey the nodes while an image is still being built, so that its load need not.

        The next load relies on it where it shows that the nodes have nothing of the image; what
        they lose meanwhile is sent after all. A node that cannot be asked is asked again then.

        Args:
            name: what the image is going to be called.

        Raises:
            ReferenceInvalid: when that is no image name.

        """
        self._ahead, _ = survey_all(self.nodes, Question((Reference.parse(name).record,), ()))

    def plan(
        self,
        images: str | Sequence[str],
        *,
        on_event: OnEvent = lambda _: None,
        **options: Unpack[LoadOptions],
    ) -> Plan:
        """Return what `load` would do now; nothing is changed."""
        with self._preparing(on_event, survey) as preparation:
            preparation.run(Request(images, **options))
            return make_plan(preparation.images, preparation.surveys)

    def load(
        self,
        images: str | Sequence[str],
        *,
        dry_run: bool = False,
        on_event: OnEvent = lambda _: None,
        **options: Unpack[LoadOptions],
    ) -> Report:
        """Load images into all nodes, and verify them there.

        Args:
            images: names or image IDs; with an archive, none for all of its images.
            dry_run: stop after the plan.
            on_event: called with values of `imgload.Event`, from several threads.
            options: see `imgload.LoadOptions`.

        Raises:
            UsageError: when a source that cannot push is to be sent by ``delta``.
            LoadFailed: when a node could not be verified; its `report` says which.
            ImgloadError: when nothing could be loaded at all.

        """
        request = Request(images, **options)
        if request.transport == "delta":
            require_pushers(self.sources)
        with self._preparing(on_event, survey if dry_run else cached_survey) as preparation:
            preparation.run(request)
            plan = make_plan(preparation.images, preparation.surveys)
            from imgload.loader.execute import Transfer  # noqa: PLC0415 - see `survey_all`

            transfer = Transfer(
                nodes={node.name: node for node in self.nodes},
                surveys=preparation.surveys,
                images={image.name: image for image in preparation.images},
                on_event=on_event,
                option=request.transport,
                deep=request.verify == "deep" and not dry_run,
                transport=self.transport,
            )
            transfer.refuse(preparation.images, preparation.failed)
            (transfer.pretend if dry_run else transfer.carry_out)(plan)
        return _required_ok(transfer.report([node.name for node in self.nodes], dry_run=dry_run))

    def verify(
        self,
        images: str | Sequence[str],
        *,
        name: str | None = None,
        platform: str | None = None,
        deep: bool = False,
        on_event: OnEvent = lambda _: None,
    ) -> Report:
        """Verify that every node has exactly these images; nothing is changed.

        Args:
            images: as for `load`.
            name: the name that one image has on the nodes, instead of its own.
            platform: ``os/arch[/variant]`` out of a multi-platform image.
            deep: also hash every blob of the images on the nodes again.
            on_event: called with each result.

        Raises:
            LoadFailed: when a node lacks an image, or has another one under its name.
            ImgloadError: when the images or the nodes are not clear.

        """
        from imgload.loader.verify import Remedy, Verification  # noqa: PLC0415 - start-up

        with self._preparing(on_event, survey) as preparation:
            preparation.run(Request(images, name, platform=platform))
            if any(image.image_id is None for image in preparation.images):
                from imgload.sources.manifests import identify_by_save  # noqa: PLC0415

                preparation.images = [
                    image if image.image_id else identify_by_save(image)
                    for image in preparation.images
                ]
                preparation.survey()
        remedy = Remedy.of(preparation.images, self.source, name, platform)
        verification = Verification(
            self.nodes, preparation.surveys, preparation.failed, on_event, remedy, deep
        )
        return _required_ok(verification.report(preparation.images))

    @contextmanager
    def _preparing(self, on_event: OnEvent, ask: Ask) -> Iterator[Preparation]:
        """Yield a preparation with all sources and nodes; surveys made ahead serve once."""
        require_callback(on_event, "on_event")
        ahead, self._ahead = self._ahead, {}
        with ExitStack() as stack:
            for source in self.sources:
                stack.callback(source.release)
            yield Preparation(
                self.sources, self.nodes, self.settle, self.silent, on_event, ask, ahead
            )


def _required_ok(report: Report) -> Report:
    if not report.ok:
        raise LoadFailed(report)
    return report
