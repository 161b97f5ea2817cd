"""The way through: references, source, nodes, survey, plan, transport, verification, report."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial

import attrs

from imgload.connect import Connections
from imgload.errors import ImgloadError, LoadFailed
from imgload.events import Event, ImageFound
from imgload.nodes.node import Node
from imgload.nodes.survey import Question, Survey
from imgload.oci.platform import Platform
from imgload.parallel import in_parallel
from imgload.plan import Image, Plan, make_plan
from imgload.report import Report
from imgload.sources.base import Source
from imgload.sources.resolve import Located, locate, named
from imgload.transfer import Transfer, question
from imgload.transports.choose import TransportOption

OnEvent = Callable[[Event], None]


@attrs.define
class Loader:
    """Loads images into a fixed set of nodes from a fixed set of sources; reuse it.

    Not to be shared between threads; separate loaders are independent.
    """

    sources: Sequence[Source]
    nodes: Sequence[Node]

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
            yield cls(connections.sources, connections.select_nodes(cluster, nodes))

    def plan(
        self,
        images: Sequence[str],
        *,
        name: str | None = None,
        platform: str | None = None,
        on_event: OnEvent = lambda _: None,
    ) -> Plan:
        """Return what `load` would do now; nothing is changed."""
        found = self._find(images, name, platform, on_event)
        surveys, _ = self._survey(list(found))
        return make_plan(list(found), surveys)

    def load(
        self,
        images: Sequence[str],
        *,
        name: str | None = None,
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
            transport: ``archive`` (whole images), ``delta`` (what is missing) or ``auto``.
            platform: ``os/arch[/variant]`` out of a multi-platform image.
            dry_run: stop after the plan.
            on_event: told what happens, from several threads.

        Raises:
            LoadFailed: when a node was not proven; its `report` says which.
            ImgloadError: when nothing could be loaded at all.

        """
        found = self._find(images, name, platform, on_event)
        surveys, failed = self._survey(list(found))
        plan = make_plan(list(found), surveys)
        by_name = {node.name: node for node in self.nodes}
        origins = {image.name: origin for image, origin in found.items()}
        transfer = Transfer(by_name, surveys, origins, on_event, transport)
        transfer.refuse(list(found), failed)
        (transfer.pretend if dry_run else transfer.carry_out)(plan)
        report = transfer.report([node.name for node in self.nodes], dry_run=dry_run)
        if not report.ok:
            raise LoadFailed(report)
        return report

    def _find(
        self, texts: Sequence[str], name: str | None, platform: str | None, on_event: OnEvent
    ) -> dict[Image, Located]:
        wanted = Platform.parse(platform) if platform else None
        found = named(locate(texts, self.sources, wanted), name)
        for image in found:
            on_event(ImageFound(image.name, image.image_id, image.source, image.size))
        return found

    def _survey(self, images: Sequence[Image]) -> tuple[dict[str, Survey], dict[str, ImgloadError]]:
        answers = in_parallel([partial(_survey, node, question(images)) for node in self.nodes])
        pairs = list(zip((node.name for node in self.nodes), answers, strict=True))
        surveys = {name: answer for name, answer in pairs if isinstance(answer, Survey)}
        return surveys, {n: a for n, a in pairs if isinstance(a, ImgloadError)}


def _survey(node: Node, asked: Question) -> Survey | ImgloadError:
    try:
        return node.survey(asked)
    except ImgloadError as error:
        return error
