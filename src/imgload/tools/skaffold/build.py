"""A custom builder for Skaffold: build, load, and prove the names that Skaffold will deploy.

Its start is part of every build: what is not needed to start one is imported while it runs.
"""

from __future__ import annotations

import shlex
from collections.abc import Callable, Sequence
from functools import partial
from typing import TYPE_CHECKING, TypeVar

import attrs

from imgload.core.errors import ImageAmbiguous, PlatformMissing, UsageError
from imgload.engines.base import Engine
from imgload.engines.discovery.discover import Discovery, open_engines
from imgload.oci.digest import Digest
from imgload.oci.platform import Platform
from imgload.tools.skaffold.builders import Builder, Recipe, choose
from imgload.tools.skaffold.built_image import Held, look, nothing, settle
from imgload.tools.skaffold.docker_client import Client
from imgload.tools.skaffold.request import Request

if TYPE_CHECKING:
    from imgload.clusters.nodes.node import Node
    from imgload.loader.events import Event
    from imgload.loader.report import Report
    from imgload.tools.skaffold.load import Loading

    OnEvent = Callable[[Event], None]

Made = TypeVar("Made")


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
    watch: Callable[[], OnEvent] = lambda: _unseen,
) -> Built:
    """Build an image, and load it as Skaffold will deploy it, or push it.

    Args:
        request: what Skaffold asked for.
        recipe: how to build it.
        destination: where the image is to go.
        watch: asked once, when the build runs, what to call with each event, from several threads.

    Raises:
        BuildFailed: when the build, or the push, fails.
        LoadFailed: when a node was not proven to have the image under all its names.
        ImgloadError: when there is no engine, no cluster, or no such image afterwards.

    """
    with open_engines() as (found, engines):
        builder = choose(recipe, list(engines.values()))
        run = _Run(request, builder, destination, found, tuple(engines.values()), watch)
        if request.push:
            return run.push()
        return run.load() if destination.load else run.keep()


@attrs.frozen
class _Run:
    request: Request
    builder: Builder
    destination: Destination
    found: Discovery
    engines: tuple[Engine, ...]
    watch: Callable[[], OnEvent]

    def push(self) -> Built:
        from imgload.tools.skaffold.push import publish, push  # noqa: PLC0415 - start-up

        if self.request.multi_platform and not self._own_command:
            return Built(digest=publish(self.builder, self.request))
        engine, _, _ = self._build(self.request.platforms, _nothing)
        return Built(digest=push(self.builder.pusher(engine), engine, self.request.image))

    def keep(self) -> Built:
        self._build(self._one_platform(tuple), _nothing)
        return Built()

    def load(self) -> Built:
        platforms = self._one_platform(self._nodes)
        engine, image_id, ready = self._build(platforms, partial(self._prepare, platforms))
        self._require_found(engine, image_id, ready)
        wanted = platforms[0] if platforms and not self._own_command else None
        return Built(ready.load(engine, self.request, image_id, wanted))

    @property
    def _own_command(self) -> bool:
        return bool(self.builder.recipe.command)

    def _build(
        self, platforms: Sequence[Platform], meanwhile: Callable[[], Made]
    ) -> tuple[Engine, Digest, Made]:
        """Build, and do something else meanwhile; when that fails, the build is stopped."""
        engines = self.builder.engines
        before = nothing(engines) if self.builder.is_plain else look(engines, self.request)
        with self.builder.building(self.request, platforms) as finish:
            made = meanwhile()
            told = finish()
        return (*settle(self.request, before, told), made)

    def _prepare(self, platforms: Sequence[Platform]) -> Loading:
        from imgload.tools.skaffold.load import Loading  # noqa: PLC0415 - while it is built

        ready = Loading.prepared(self._nodes(), self.request.image, self.watch())
        if platforms != self.request.platforms:
            ready.note(f"building for {platforms[0]} only, which is what the nodes are")
        return ready

    def _nodes(self) -> tuple[Node, ...]:
        from imgload.loader.session import Connections  # noqa: PLC0415 - while it is built

        cluster, names = self.destination.cluster, self.destination.nodes
        connections = Connections((), self.engines, self.found)
        return connections.select_nodes(cluster, names, guess=False)

    def _one_platform(self, nodes: Callable[[], Sequence[Node]]) -> tuple[Platform, ...]:
        """Return the platform to build for: of several, an engine keeps one, and nodes run one."""
        if not self.request.multi_platform or self._own_command:
            return self.request.platforms
        from imgload.tools.skaffold.load import platforms_of  # noqa: PLC0415 - seldom

        there = platforms_of(nodes())
        if len(there) != 1:
            listed = " and ".join(sorted(map(str, there)))
            raise UsageError(
                "PLATFORMS asks for several, of which one can be built without a push, and"
                f" {f'the nodes are {listed}' if listed else 'there is no node to say which'}",
                hint="name one: skaffold build --platform=linux/amd64",
            )
        platform = there.pop()
        self._require_asked_for(platform)
        return (platform,)

    def _require_asked_for(self, platform: Platform) -> None:
        asked = self.request.platforms
        if not self.request.every_platform and not any(platform.runs(each) for each in asked):
            raise PlatformMissing(
                f"the nodes are {platform}, and PLATFORMS is {','.join(map(str, asked))}",
                hint=f"name theirs: skaffold build --platform={platform}",
            )

    def _require_found(self, engine: Engine, image_id: Digest, ready: Loading) -> None:
        """Refuse a build in place of which Skaffold would find an older one."""
        asked = Client.of(self.found).endpoint
        theirs = next((each for each in self.engines if each.endpoint == asked), None)
        if theirs is None or theirs is engine:
            return
        seen = Held.by(theirs, self.request).seen
        told = f"Skaffold looks for {self.request.image} in {theirs.endpoint}"
        variable = f"DOCKER_HOST={shlex.quote(engine.endpoint.url)}"
        if seen is None:
            ready.note(f"{told}, and it is in {engine.endpoint}: set {variable}")
        elif seen != image_id:
            raise ImageAmbiguous(
                f"{told}, which holds {seen.short}; {engine.endpoint} holds what was built,"
                f" {image_id.short}",
                hint=f"run Skaffold with {variable}",
            )


def _unseen(_: Event) -> None:
    """Show nothing."""


def _nothing() -> None:
    pass
