"""Run the load command of another tool."""

from __future__ import annotations

import shlex
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, closing
from pathlib import Path
from typing import TYPE_CHECKING

from imgload.clusters.cluster import find_clusters
from imgload.clusters.provider import providers
from imgload.clusters.select import Selection
from imgload.core.errors import (
    ClusterAmbiguous,
    ClusterNotFound,
    EngineUnreachable,
    ImageAmbiguous,
    ImgloadError,
    NodeNotFound,
    UsageError,
)
from imgload.engines.base import Engine
from imgload.loader.events import Note
from imgload.loader.loader import Loader, OnEvent
from imgload.loader.report import Report
from imgload.loader.session import Session
from imgload.sources.base import Image
from imgload.sources.locate import Settle, ambiguous, require_names
from imgload.tools.dropins.tool import Request, Tool, quoted

if TYPE_CHECKING:
    from imgload.sources.archive import ArchiveSource


def carry_out(tool: Tool, request: Request, on_event: OnEvent) -> Iterator[Report | ImgloadError]:
    """Load the images and archives of a request, and yield a report for each load.

    An error while loading ends the loads into that cluster, and is yielded.
    """
    require_names(request.images, None)
    with ExitStack() as stack:
        archives = [stack.enter_context(closing(archive)) for archive in _archives(request)]
        connections = stack.enter_context(Session.open())
        selected = [select(connections.engines, tool, request, name) for name in request.clusters]
        for selection in selected:
            nodes, clusters = selection.nodes, selection.clusters
            near = nodes[0].engine.endpoint.url
            sources = sorted(connections.sources, key=lambda source: source.address != near)
            try:
                if request.images:
                    loader = Loader(sources, nodes, prefer(near, on_event), clusters=clusters)
                    yield loader.load(request.images, strict_platform=False, on_event=on_event)
                for archive in archives:
                    loader = Loader([archive], nodes, clusters=clusters)
                    yield loader.load([], strict_platform=False, on_event=on_event)
            except ImgloadError as error:
                yield error


def _archives(request: Request) -> list[ArchiveSource]:
    """Open each archive once for all clusters: standard input can be read only once."""
    paths = ["-"] if request.piped else []
    for path in request.archives:
        try:
            Path(path).stat()
        except OSError as error:
            message = f"stat {path}: {(error.strerror or '').lower()}"
            raise UsageError(message, hint="docker save app:dev -o app.tar") from error
        paths.append("./-" if path == "-" else path)
    if paths:
        from imgload.sources.archive import ArchiveSource  # noqa: PLC0415 - start-up
    return [ArchiveSource(path) for path in paths]


def prefer(address: str, on_event: OnEvent) -> Settle:
    """Choose the image of the engine at an address if engines have different ones."""

    def choose(text: str, images: Sequence[Image]) -> Image:
        chosen = next((image for image in images if image.origin.address == address), None)
        if chosen is None:
            command = shlex.join(["imgload", "load", text, "--from", images[0].origin.address])
            message = ambiguous(text, images).message
            raise ImageAmbiguous(message, hint=f"choose one: {command}")
        others = " and ".join(i.origin.describe for i in images if i.origin is not chosen.origin)
        source = f"{chosen.origin.describe}, which runs the cluster"
        on_event(Note(f"{text} is another image in {others}; loading it from {source}"))
        return chosen

    return choose


def select(engines: Sequence[Engine], tool: Tool, request: Request, cluster: str) -> Selection:
    """Return the nodes of the tool's cluster with this exact name, all on one engine."""
    if request.engine and request.engine not in {engine.name for engine in engines}:
        message = f"KIND_EXPERIMENTAL_PROVIDER is {request.engine}, and no {request.engine} answers"
        hint = "start it, or set its address in DOCKER_HOST or CONTAINER_HOST"
        raise EngineUnreachable(message, hint=hint)
    clusters = find_clusters(engines, [p for p in providers() if p.name == tool.name])
    named = [c for c in clusters if c.name == cluster]
    matching = [c for c in named if request.engine in {None, c.engine.name}]
    if not matching:
        hint = f"create one: {tool.makes}"
        if named:
            hint = "another engine runs it: unset KIND_EXPERIMENTAL_PROVIDER"
        elif clusters:
            hint = f"name one of those with {tool.name_flag}"
        engine = f" on {request.engine}" if request.engine else ""
        available = ", ".join(map(str, clusters)) or "none"
        message = f"no nodes found for cluster {quoted(cluster)}{engine}; available: {available}"
        raise ClusterNotFound(message, hint=hint)
    first, *others = sorted(matching, key=lambda c: c.engine.name != "docker")  # as kind does
    if others and others[0].engine.name == first.engine.name:
        both = f"{first.engine.endpoint} and {others[0].engine.endpoint}"
        message = f"two clusters have the name {quoted(cluster)}: on {both}"
        raise ClusterAmbiguous(message, hint="select an engine with DOCKER_HOST or CONTAINER_HOST")
    nodes = {node.name: node for node in first.nodes}
    for name in request.nodes:
        if name not in nodes:
            message = f"unknown node: {quoted(name)}; available: {', '.join(nodes)}"
            raise NodeNotFound(message, hint="name some of those with --nodes A,B")
    picked = tuple(nodes[name] for name in dict.fromkeys(request.nodes))
    return Selection(picked or first.nodes, (first,))
