"""What it takes to stand in for another loader's command."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping, Sequence
from contextlib import closing
from pathlib import Path

import attrs

from imgload.connect import Connections
from imgload.engines.base import EngineKind
from imgload.errors import ImageAmbiguous, ImgloadError, UsageError
from imgload.events import Event, Note
from imgload.loader import Loader, OnEvent
from imgload.nodes.node import Node
from imgload.report import Report
from imgload.sources.archive import ArchiveSource
from imgload.sources.base import Source
from imgload.sources.resolve import Located, Settle, ambiguous


@attrs.frozen
class Request:
    """Images to load, asked for in another loader's words.

    Args:
        clusters: by name.
        images: as they were written.
        archives: paths; ``-`` is standard input.
        nodes: only these; empty for all.
        engine: the only one whose clusters are meant, or None.
        verbosity: from 1 on, the proof is shown, too; below 0, only warnings and errors.
        notes: what to say before.

    """

    clusters: tuple[str, ...]
    images: tuple[str, ...] = ()
    archives: tuple[str, ...] = ()
    nodes: tuple[str, ...] = ()
    engine: EngineKind | None = None
    verbosity: int = 0
    notes: tuple[str, ...] = ()


@attrs.frozen
class Help:
    """A text that was asked for, or that goes with an error."""

    text: str
    error: str = ""


@attrs.frozen
class HandOver:
    """Something for the real program; `why` it is, where that is not plain."""

    why: str = ""


class Story(ABC):
    """Tells of one request in the other loader's words, line by line."""

    @abstractmethod
    def tell(self, event: Event) -> Iterator[str]:
        """Yield what to say of an event; called from several threads."""

    @abstractmethod
    def conclude(self, report: Report) -> Iterator[str]:
        """Yield what to say of a load that went well."""


class Tool(ABC):
    """Another loader, of whose commands ours does some.

    Attributes:
        name: of its program.
        homepage: where to get it.

    """

    name: str
    homepage: str

    @abstractmethod
    def understand(
        self, arguments: Sequence[str], environ: Mapping[str, str]
    ) -> Request | Help | HandOver:
        """Return what a command line means.

        Raises:
            UsageError: in the tool's words.

        """

    @abstractmethod
    def silenced(self, arguments: Sequence[str]) -> bool:
        """Whether nothing is to be said on stderr, whatever happens."""

    @abstractmethod
    def select(self, connections: Connections, request: Request, cluster: str) -> Sequence[Node]:
        """Return the nodes of a cluster that are meant, which one engine runs.

        Raises:
            ClusterError: when there are none.

        """

    @abstractmethod
    def story(self, request: Request) -> Story:
        """Return who tells of a request."""


def carry_out(tool: Tool, request: Request, on_event: OnEvent) -> Iterator[Report | ImgloadError]:
    """Load what was asked for, and yield what came of it; an error ends its cluster's part.

    Raises:
        ImgloadError: when an archive, a cluster or a node is not there.

    """
    for path in request.archives:
        _demand(path)
    with Connections.open() as connections:
        for nodes in [tool.select(connections, request, name) for name in request.clusters]:
            try:
                yield from _load(request, connections.sources, nodes, on_event)
            except ImgloadError as error:
                yield error


def _demand(path: str) -> None:
    try:
        path == "-" or Path(path).stat()
    except OSError as error:
        why = (error.strerror or "").lower()
        raise UsageError(f"stat {path}: {why}", hint="docker save app:dev -o app.tar") from error


def _load(
    request: Request, sources: Sequence[Source], nodes: Sequence[Node], on_event: OnEvent
) -> Iterator[Report]:
    if request.images:
        near = nodes[0].engine.endpoint.url
        ordered = sorted(sources, key=lambda source: source.address != near)
        loader = Loader(ordered, nodes, _prefer(near, on_event))
        yield loader.load(request.images, on_event=on_event)
    for path in request.archives:
        with closing(ArchiveSource(path)) as source:
            yield Loader([source], nodes).load([], on_event=on_event)


def _prefer(address: str, on_event: OnEvent) -> Settle:
    """Take the image of the engine that runs the cluster, where engines have different ones."""

    def settle(text: str, held: Sequence[Located]) -> Located:
        taken = next((each for each in held if each[0].address == address), None)
        if taken is None:
            near = f"imgload load {text} --from {held[0][0].address}"
            raise ImageAmbiguous(ambiguous(text, held).message, hint=f"say which one: {near}")
        others = " and ".join(source.describe for source, _ in held if source is not taken[0])
        on_event(
            Note(
                f"{text} is another image in {others}; taken is the one of"
                f" {taken[0].describe}, which runs the cluster"
            )
        )
        return taken

    return settle
