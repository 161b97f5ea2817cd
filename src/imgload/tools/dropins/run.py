"""Run the load command of another tool."""

from __future__ import annotations

import shlex
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, closing
from pathlib import Path
from typing import TYPE_CHECKING

from imgload.core.errors import ImageAmbiguous, ImgloadError, UsageError
from imgload.loader.events import Note
from imgload.loader.loader import Loader, OnEvent
from imgload.loader.report import Report
from imgload.loader.session import Connections
from imgload.sources.locate import Located, Settle, ambiguous, require_names
from imgload.tools.dropins.select import select
from imgload.tools.dropins.tool import Request, Tool

if TYPE_CHECKING:
    from imgload.sources.archive import ArchiveSource


def carry_out(tool: Tool, request: Request, on_event: OnEvent) -> Iterator[Report | ImgloadError]:
    """Load the images and archives of a request, and yield a report for each load.

    An error while loading ends the loads into that cluster, and is yielded.

    Raises:
        ImgloadError: when an archive, a cluster or a node does not exist, or a name is not valid.

    """
    require_names(request.images, None)
    with ExitStack() as stack:
        archives = [stack.enter_context(closing(archive)) for archive in _archives(request)]
        connections = stack.enter_context(Connections.open())
        selected = [select(connections.engines, tool, request, name) for name in request.clusters]
        for nodes in selected:
            near = nodes[0].engine.endpoint.url
            sources = sorted(connections.sources, key=lambda source: source.address != near)
            try:
                if request.images:
                    loader = Loader(sources, nodes, prefer(near, on_event))
                    yield loader.load(request.images, on_event=on_event)
                for archive in archives:
                    yield Loader([archive], nodes).load([], on_event=on_event)
            except ImgloadError as error:
                yield error


def _archives(request: Request) -> list[ArchiveSource]:
    """Open each archive once for all clusters: standard input can be read only once."""
    if not request.archives and not request.piped:
        return []
    from imgload.sources.archive import ArchiveSource  # noqa: PLC0415 - start-up

    for path in request.archives:
        try:
            Path(path).stat()
        except OSError as error:
            reason = (error.strerror or "").lower()
            hint = "docker save app:dev -o app.tar"
            raise UsageError(f"stat {path}: {reason}", hint=hint) from error
    files = ["./-" if path == "-" else path for path in request.archives]
    return [ArchiveSource(path) for path in [*files, *(["-"] if request.piped else [])]]


def prefer(address: str, on_event: OnEvent) -> Settle:
    """Choose the image of the engine at an address if engines have different ones."""

    def choose(text: str, located: Sequence[Located]) -> Located:
        chosen = next((origin for origin in located if origin[0].address == address), None)
        if chosen is None:
            command = (
                f"imgload load {shlex.quote(text)} --from {shlex.quote(located[0][0].address)}"
            )
            message = ambiguous(text, located).message
            raise ImageAmbiguous(message, hint=f"choose one: {command}")
        others = " and ".join(s.describe for s, _ in located if s is not chosen[0])
        on_event(
            Note(
                f"{text} is another image in {others}; loading the one in {chosen[0].describe},"
                " which runs the cluster"
            )
        )
        return chosen

    return choose
