"""A custom builder for Skaffold: build, load, and prove the names that Skaffold will deploy.

Skaffold deploys ``REPOSITORY:HEX``, of the ID that it reads out of the Docker API for the image
built, and not the name that it asked for (pkg/skaffold/build/local, pkg/skaffold/docker/image.go).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import suppress
from functools import partial
from importlib import import_module

import attrs

from imgload.connect import Connections
from imgload.engines.base import Engine
from imgload.errors import ImageAmbiguous, ImgloadError, PlatformMissing, UsageError
from imgload.events import Event, Note
from imgload.integrations.builders import Builder, Recipe, choose
from imgload.integrations.client import Client
from imgload.integrations.held import Held, look, settle
from imgload.integrations.publishing import publish, push
from imgload.integrations.request import Request
from imgload.loader import Loader
from imgload.nodes.node import Node
from imgload.nodes.survey import Question
from imgload.oci.digest import Digest
from imgload.oci.platform import Platform
from imgload.parallel import Task
from imgload.reference import Reference
from imgload.report import Report
from imgload.sources.engine import EngineSource

OnEvent = Callable[[Event], None]


@attrs.frozen
class Built:
    """What came of a build: the `report` of a load, or the `digest` that a registry has it by."""

    report: Report | None = None
    digest: Digest | None = None


@attrs.frozen
class Destination:
    """Where the image is to go, unless it is pushed.

    Args:
        load: whether to load it at all.
        cluster: the cluster's name; None for that of the current kube context.
        nodes: names of the nodes; empty for all of the cluster.

    """

    load: bool = True
    cluster: str | None = None
    nodes: tuple[str, ...] = ()


def build(
    request: Request,
    recipe: Recipe,
    destination: Destination,
    *,
    on_event: OnEvent = lambda _: None,
) -> Built:
    """Build an image, and load it as Skaffold will deploy it, or push it.

    Args:
        request: what Skaffold asked for.
        recipe: how to build it.
        destination: where the image is to go.
        on_event: told what happens, from several threads.

    Raises:
        BuildFailed: when the build, or the push, fails.
        LoadFailed: when a node was not proven to have the image under all its names.
        ImgloadError: when there is no engine, no cluster, or no such image afterwards.

    """
    with Connections.open() as connections:
        builder = choose(recipe, connections.engines)
        return _Run(request, builder, on_event).carry_out(connections, destination)


@attrs.frozen
class _Run:
    request: Request
    builder: Builder
    on_event: OnEvent

    def carry_out(self, connections: Connections, destination: Destination) -> Built:
        if self.request.push:
            return self._push()
        nodes: tuple[Node, ...] = ()
        if destination.load:
            names = destination.nodes
            nodes = connections.select_nodes(destination.cluster, names, guess=False)
        platforms = self._one_platform(nodes)
        loader = Loader([], nodes)
        ahead = Task(partial(_ahead, loader, self.request.image))
        engine, image_id = self._build(platforms)
        if not destination.load:
            return Built()
        self._require_found(Client.of(connections.found), connections.engines, engine, image_id)
        ahead.wait()
        loader.sources = [EngineSource(engine)]
        return Built(report=self._load(loader, platforms))

    @property
    def _own_command(self) -> bool:
        return bool(self.builder.recipe.command)

    def _build(self, platforms: Sequence[Platform]) -> tuple[Engine, Digest]:
        before = look(self.builder.engines, self.request)
        told = self.builder.build(self.request, platforms)
        return settle(self.request, before, told)

    def _push(self) -> Built:
        if self.request.multi_platform and not self._own_command:
            return Built(digest=publish(self.builder, self.request))
        engine, _ = self._build(self.request.platforms)
        return Built(digest=push(self.builder.pusher(engine), engine, self.request.image))

    def _one_platform(self, nodes: Sequence[Node]) -> tuple[Platform, ...]:
        """Return the platform to build for: of several, an engine keeps one, and nodes run one."""
        if not self.request.multi_platform or self._own_command:
            return self.request.platforms
        there = {node.survey(_NOTHING).traits.platform for node in nodes}
        if len(there) != 1:
            listed = " and ".join(sorted(map(str, there)))
            raise UsageError(
                "PLATFORMS asks for several, of which one can be built without a push, and"
                f" {f'the nodes are {listed}' if listed else 'there is no node to say which'}",
                hint="name one: skaffold build --platform=linux/amd64",
            )
        platform = there.pop()
        self._require_asked_for(platform)
        self.on_event(Note(f"building for {platform} only, which is what the nodes are"))
        return (platform,)

    def _require_asked_for(self, platform: Platform) -> None:
        asked = self.request.platforms
        if not self.request.every_platform and not any(platform.runs(each) for each in asked):
            raise PlatformMissing(
                f"the nodes are {platform}, and PLATFORMS is {','.join(map(str, asked))}",
                hint=f"name theirs: skaffold build --platform={platform}",
            )

    def _require_found(
        self, client: Client, engines: Sequence[Engine], engine: Engine, image_id: Digest
    ) -> None:
        """Refuse a build in place of which Skaffold would find an older one."""
        theirs = next((each for each in engines if each.endpoint == client.endpoint), None)
        if theirs is None or theirs is engine:
            return
        seen = Held.by(theirs, self.request).seen
        told = f"Skaffold looks for {self.request.image} in {theirs.endpoint}"
        if seen is None:
            self.on_event(Note(f"{told}, and it is in {engine.endpoint}: set {_variable(engine)}"))
        elif seen != image_id:
            raise ImageAmbiguous(
                f"{told}, which holds {seen.short}; {engine.endpoint} holds what was built,"
                f" {image_id.short}",
                hint=f"run Skaffold with {_variable(engine)}",
            )

    def _load(self, loader: Loader, platforms: Sequence[Platform]) -> Report:
        source = loader.sources[0]
        found = source.find(self.request.image, None)
        known = source.identify(found) if found else None
        ids = [known.target, known.image_id] if known else []
        wanted = platforms[0] if platforms and not self._own_command else None
        return loader.load(
            [self.request.image],
            also=deployed(self.request.reference, ids),
            platform=str(wanted) if wanted else None,
            transport="delta",
            on_event=self.on_event,
        )


_NOTHING = Question((), ())


def deployed(reference: Reference, ids: Sequence[Digest | None]) -> list[str]:
    """Return the names that Skaffold gives to an image of these IDs."""
    unique = dict.fromkeys(each.hex for each in ids if each)
    return [str(attrs.evolve(reference, tag=digits, digest=None)) for digits in unique]


def _ahead(loader: Loader, image: str) -> None:
    """Do during the build what a load begins with; what is wrong the load will say."""
    with suppress(ImgloadError):
        loader.survey_ahead(image)
    import_module("imgload.pushing")


def _variable(engine: Engine) -> str:
    return f"DOCKER_HOST={engine.endpoint.url}"
