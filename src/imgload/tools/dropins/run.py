"""Carries out what was asked for in another loader's words."""

from __future__ import annotations

import shlex
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, closing
from pathlib import Path
from typing import TYPE_CHECKING

from imgload.clusters.nodes.node import Node
from imgload.core.errors import ImageAmbiguous, ImgloadError, UsageError
from imgload.loader.events import Note
from imgload.loader.loader import Loader, OnEvent
from imgload.loader.report import Report
from imgload.loader.session import Connections
from imgload.sources.base import Image, Source
from imgload.sources.locate import Settle, ambiguous, require_names
from imgload.tools.dropins.select import select
from imgload.tools.dropins.tool import Request, Tool

if TYPE_CHECKING:
    from imgload.sources.archive import ArchiveSource


def carry_out(tool: Tool, request: Request, on_event: OnEvent) -> Iterator[Report | ImgloadError]:
    """Load what was asked for, and yield what came of it; an error ends its cluster's part.

    Raises:
        ImgloadError: when an archive, a cluster or a node is not there, or a name is none.

    """
    require_names(request.images, None)
    with ExitStack() as stack:
        archives = [stack.enter_context(archive) for archive in _archives(request)]
        connections = stack.enter_context(Connections.open())
        for nodes in [
            select(connections.engines, tool, request, name) for name in request.clusters
        ]:
            try:
                if request.images:
                    yield _load_images(request.images, connections.sources, nodes, on_event)
                for archive in archives:
                    yield Loader([archive], nodes).load([], on_event=on_event)
            except ImgloadError as error:
                yield error


def _archives(request: Request) -> list[closing[ArchiveSource]]:
    """Open the archives, each once for all clusters: standard input can be read only once."""
    if not request.archives and not request.piped:
        return []
    from imgload.sources.archive import ArchiveSource  # noqa: PLC0415 - start-up

    for path in request.archives:
        _demand(path)
    files = ["./-" if path == "-" else path for path in request.archives]
    return [closing(ArchiveSource(p)) for p in [*files, *(["-"] if request.piped else [])]]


def _demand(path: str) -> None:
    try:
        Path(path).stat()
    except OSError as error:
        why = (error.strerror or "").lower()
        raise UsageError(f"stat {path}: {why}", hint="docker save app:dev -o app.tar") from error


def _load_images(
    images: Sequence[str], sources: Sequence[Source], nodes: Sequence[Node], on_event: OnEvent
) -> Report:
    near = nodes[0].engine.endpoint.url
    ordered = sorted(sources, key=lambda source: source.address != near)
    return Loader(ordered, nodes, prefer(near, on_event)).load(images, on_event=on_event)


def prefer(address: str, on_event: OnEvent) -> Settle:
    """Take the image of the engine that runs the cluster, where engines have different ones."""

    def settle(text: str, images: Sequence[Image]) -> Image:
        taken = next((image for image in images if image.origin.address == address), None)
        if taken is None:
            near = (
                f"imgload load {shlex.quote(text)} --from {shlex.quote(images[0].origin.address)}"
            )
            raise ImageAmbiguous(ambiguous(text, images).message, hint=f"say which one: {near}")
        others = " and ".join(i.origin.describe for i in images if i.origin is not taken.origin)
        on_event(
            Note(
                f"{text} is another image in {others}; taken is the one of"
                f" {taken.origin.describe}, which runs the cluster"
            )
        )
        return taken

    return settle
