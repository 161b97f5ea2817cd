"""A custom builder for Skaffold: build an image, load it, and verify the names Skaffold deploys.

Its start-up time is part of every build; modules for later steps are imported during the build.
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
from imgload.tools.skaffold.built_image import EngineSnapshot, find_built, take_snapshots
from imgload.tools.skaffold.docker_client import Client
from imgload.tools.skaffold.request import Request

if TYPE_CHECKING:
    from imgload.clusters.nodes.node import Node
    from imgload.loader.events import Event
    from imgload.loader.report import Report
    from imgload.tools.skaffold.load import PreparedLoad

T = TypeVar("T")


@attrs.frozen
class Built:
    """The result of a build: the `report` of the load, or the `digest` in the registry."""

    report: Report | None = None
    digest: Digest | None = None


@attrs.frozen
class Destination:
    """The nodes to load the image into, unless it is pushed.

    `cluster` is None for that of the current kube context, and `nodes` empty for all its nodes.
    """

    load: bool = True
    cluster: str | None = None
    nodes: tuple[str, ...] = ()


def build(
    request: Request,
    recipe: Recipe,
    destination: Destination,
    *,
    watch: Callable[[], Callable[[Event], None]] = lambda: lambda _: None,
) -> Built:
    """Build an image, and load it under the names that Skaffold deploys, or push it.

    `watch` is called once, during the build, and returns the callback for events, which several
    threads call. Raises BuildFailed when the build or the push fails, LoadFailed when a node's
    verification fails, and ImgloadError when no engine, cluster or built image is found.
    """
    with open_engines() as (discovery, engines):
        builder = choose(recipe, list(engines.values()))
        job = _Job(request, builder, destination, discovery, tuple(engines.values()), watch)
        if request.push:
            return job.push()
        if destination.load:
            return job.load()
        job.build(job.single_platform(tuple), lambda: None)
        return Built()


@attrs.frozen
class _Job:
    request: Request
    builder: Builder
    destination: Destination
    discovery: Discovery
    engines: tuple[Engine, ...]
    watch: Callable[[], Callable[[Event], None]]

    def push(self) -> Built:
        from imgload.tools.skaffold.push import publish, push  # noqa: PLC0415 - start-up

        if self.request.multi_platform and not self.builder.recipe.command:
            return Built(digest=publish(self.builder, self.request))
        engine, _, _ = self.build(self.request.platforms, lambda: None)
        return Built(digest=push(self.builder.pusher(engine), engine, self.request.image))

    def load(self) -> Built:
        platforms = self.single_platform(self.nodes)
        engine, image_id, loading = self.build(platforms, partial(self.prepare, platforms))
        self.check_docker_client(engine, image_id, loading)
        platform = platforms[0] if platforms and not self.builder.recipe.command else None
        return Built(loading.load(engine, self.request, image_id, platform))

    def build(
        self, platforms: Sequence[Platform], prepare: Callable[[], T]
    ) -> tuple[Engine, Digest, T]:
        """Build, and prepare the next step meanwhile; an error there stops the build."""
        before = [EngineSnapshot(engine) for engine in self.builder.engines]
        if self.builder.needs_snapshot:
            before = take_snapshots(self.builder.engines, self.request)
        with self.builder.building(self.request, platforms) as finish:
            prepared = prepare()
            image_id = finish()
        return (*find_built(self.request, before, image_id), prepared)

    def prepare(self, platforms: Sequence[Platform]) -> PreparedLoad:
        from imgload.tools.skaffold.load import PreparedLoad  # noqa: PLC0415 - during the build

        loading = PreparedLoad.prepared(self.nodes(), self.request.image, self.watch())
        if platforms != self.request.platforms:
            loading.note(f"building only for {platforms[0]}, the platform of the nodes")
        return loading

    def nodes(self) -> tuple[Node, ...]:
        from imgload.loader.session import Session  # noqa: PLC0415 - during the build

        connections = Session((), self.engines, self.discovery)
        destination = self.destination
        return connections.select_nodes(destination.cluster, destination.nodes, guess=False)

    def single_platform(self, nodes: Callable[[], Sequence[Node]]) -> tuple[Platform, ...]:
        """Return the nodes' platform if several are requested: an engine stores only one."""
        if not self.request.multi_platform or self.builder.recipe.command:
            return self.request.platforms
        from imgload.tools.skaffold.load import platforms_of  # noqa: PLC0415 - rarely needed

        platforms = platforms_of(nodes())
        if len(platforms) != 1:
            listed = " and ".join(sorted(map(str, platforms)))
            raise UsageError(
                "PLATFORMS lists several, of which one can be built without a push, and"
                f" {f'the nodes are {listed}' if listed else 'no node selects one'}",
                hint="name one: skaffold build --platform=linux/amd64",
            )
        platform, requested = platforms.pop(), self.request.platforms
        if not self.request.every_platform and not any(platform.runs(p) for p in requested):
            raise PlatformMissing(
                f"the nodes are {platform}, and PLATFORMS is {','.join(map(str, requested))}",
                hint=f"name theirs: skaffold build --platform={platform}",
            )
        return (platform,)

    def check_docker_client(self, engine: Engine, image_id: Digest, loading: PreparedLoad) -> None:
        """Raise ImageAmbiguous if Skaffold's Docker client would find an older build."""
        endpoint = Client.of(self.discovery).endpoint
        other = next((e for e in self.engines if e.endpoint == endpoint), None)
        if other is None or other is engine:
            return
        resolved = EngineSnapshot.take(other, self.request).resolved
        message = f"Skaffold looks for {self.request.image} in {other.endpoint}"
        variable = f"DOCKER_HOST={shlex.quote(engine.endpoint.url)}"
        if resolved is None:
            loading.note(f"{message}, but it is in {engine.endpoint}: set {variable}")
        elif resolved != image_id:
            raise ImageAmbiguous(
                f"{message}, which holds {resolved.short}; {engine.endpoint} has the new build,"
                f" {image_id.short}",
                hint=f"run Skaffold with {variable}",
            )
