"""The way through: references, source, nodes, survey, plan, transport, verification, report."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from typing import TYPE_CHECKING

import attrs

from imgload.connect import Connections
from imgload.engines.candidate import Attempt
from imgload.errors import LoadFailed
from imgload.events import Event
from imgload.identity import saved
from imgload.looking import Ask, Look, Request, ask_all, expect, read
from imgload.nodes.node import Node
from imgload.nodes.survey import Question, Survey
from imgload.plan import Plan, make_plan
from imgload.reference import Reference, require_callback, require_choice, string_or_none, strings
from imgload.report import Report
from imgload.sources.base import Source
from imgload.sources.resolve import Settle, refuse, require_pushers

if TYPE_CHECKING:
    from os import PathLike

    from imgload.plan import Verify
    from imgload.transports.choose import TransportOption

OnEvent = Callable[[Event], None]


def require_options(transport: object, verify: object, on_event: object) -> None:
    """Refuse invalid options of a load.

    Raises:
        UsageError: when one is invalid.

    """
    require_choice(transport, ("auto", "archive", "delta"), "transport")
    require_choice(verify, ("cri", "deep"), "verify")
    require_callback(on_event, "on_event")


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
    source: str | None = None
    """What the sources were chosen by."""
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
        self._ahead, _ = ask_all(self.nodes, Question((Reference.parse(name).record,), ()))

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
        with self._looking(on_event, read) as look:
            look.at(Request.of(images, name, also, platform))
            return make_plan(list(look.found), look.surveys)

    def load(
        self,
        images: Sequence[str],
        *,
        name: str | None = None,
        also: Sequence[str] = (),
        platform: str | None = None,
        transport: TransportOption = "auto",
        verify: Verify = "cri",
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
            verify: ``cri`` (what containerd and CRI say), or ``deep`` (and every blob that a node
                keeps of the images is read again, and hashed there).
            dry_run: stop after the plan.
            on_event: told what happens, from several threads.

        Raises:
            UsageError: when a source that cannot push is to be sent by ``delta``.
            LoadFailed: when a node was not proven; its `report` says which.
            ImgloadError: when nothing could be loaded at all.

        """
        require_options(transport, verify, on_event)
        if transport == "delta":
            require_pushers(self.sources)
        with self._looking(on_event, read if dry_run else expect) as look:
            look.at(Request.of(images, name, also, platform))
            plan = make_plan(list(look.found), look.surveys)
            by_name = {node.name: node for node in self.nodes}
            from imgload.transfer import Transfer  # noqa: PLC0415 - see `ask_all`

            origins = {image.name: origin for image, origin in look.found.items()}
            deep = verify == "deep" and not dry_run
            transfer = Transfer(by_name, look.surveys, origins, on_event, transport, deep)
            transfer.refuse(list(look.found), look.failed)
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
        deep: bool = False,
        on_event: OnEvent = lambda _: None,
    ) -> Report:
        """Read back whether every node has exactly these images; nothing is changed.

        Args:
            images: as for `load`.
            name: the name that one image has on the nodes, in place of its own.
            platform: ``os/arch[/variant]`` out of a multi-platform image.
            deep: also read every blob that a node keeps of them again, and hash it there.
            on_event: told each result.

        Raises:
            LoadFailed: when a node lacks an image, or has another one under its name.
            ImgloadError: when the images or the nodes could not be settled on.

        """
        from imgload.verification import Remedy, Verification  # noqa: PLC0415 - start-up

        name, platform = string_or_none(name, "name"), string_or_none(platform, "platform")
        with self._looking(on_event, read) as look:
            look.at(Request.of(images, name, (), platform))
            if any(image.image_id is None for image in look.found):
                look.found = saved(look.found)
                look.survey()
        remedy = Remedy.of(look.found, self.source, name, platform)
        verification = Verification(self.nodes, look.surveys, look.failed, on_event, remedy, deep)
        report = verification.report(list(look.found))
        if not report.ok:
            raise LoadFailed(report)
        return report

    @contextmanager
    def _looking(self, on_event: OnEvent, ask: Ask) -> Iterator[Look]:
        """Yield a look at all sources and nodes; what was surveyed ahead serves once."""
        require_callback(on_event, "on_event")
        ahead, self._ahead = self._ahead, {}
        with ExitStack() as stack:
            for source in self.sources:
                stack.callback(source.release)
            yield Look(self.sources, self.nodes, self.settle, self.silent, on_event, ask, ahead)
