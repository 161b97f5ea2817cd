"""A custom builder for Skaffold: build an image, load it, and verify the names Skaffold deploys.

Skaffold deploys ``REPOSITORY:HEX``, with the built image's ID as the Docker API reports it, and not
the name that it requested (pkg/skaffold/build/local, pkg/skaffold/docker/image.go).

The start-up time is part of every build; modules for later steps are imported during the build.
"""

from __future__ import annotations

import shlex
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack, suppress
from functools import partial
from typing import TYPE_CHECKING, TypeVar

import attrs

from imgload.core.errors import (
    ArchiveInvalid,
    BuildFailed,
    ImageAmbiguous,
    ImgloadError,
    PlatformMissing,
    UsageError,
)
from imgload.engines.base import Engine
from imgload.engines.discovery.discover import Discovery, open_engines, with_discovery_errors
from imgload.oci.digest import Digest
from imgload.oci.platform import Platform
from imgload.tools.skaffold.builders import ENGINES, Builder, Recipe, choose, publish, push
from imgload.tools.skaffold.request import (
    EngineSnapshot,
    Request,
    docker_client,
    find_built,
    take_snapshots,
)

if TYPE_CHECKING:
    from imgload.clusters.nodes.base import NodeRuntime
    from imgload.loader.events import Event
    from imgload.loader.loader import Loader
    from imgload.loader.report import Report
    from imgload.tools.skaffold.layout import BuildFolder

T = TypeVar("T")
Destination = tuple[tuple[str, ...], tuple[str, ...]]
"""The clusters and the nodes to load into, as for `select_nodes`."""


def build(
    environ: Mapping[str, str],
    recipe: Recipe,
    destination: Destination | None,
    watch: Callable[[], Callable[[Event], None]],
) -> Report | str | None:
    """Build an image, and load it, or push it and return its digest.

    `watch` is called once, during the build, and returns the callback for events, which several
    threads call.
    """
    request = Request.from_environ(environ)
    with ExitStack() as stack:
        discovery, engines = stack.enter_context(open_engines())
        builder = choose(recipe, list(engines.values()))
        folder = None
        if builder.foreign and not request.push:
            from imgload.tools.skaffold.layout import BuildFolder  # noqa: PLC0415 - rarely needed

            folder = stack.enter_context(BuildFolder.make())
        job = _Job(request, builder, destination, discovery, tuple(engines.values()), watch, folder)
        if request.push:
            return str(job.push())
        if destination:
            return job.load()
        job.build(job.single_platform(()), lambda: None)
        return None


@attrs.frozen
class _Job:
    request: Request
    builder: Builder
    destination: Destination | None
    discovery: Discovery
    engines: tuple[Engine, ...]
    watch: Callable[[], Callable[[Event], None]]
    folder: BuildFolder | None
    """The destination of a builder that stores no images in the engine."""

    def push(self) -> Digest:
        multi_platform = self.request.multi_platform and not self.builder.recipe.command
        if multi_platform or self.builder.foreign:
            return publish(self.builder, self.request)
        engine, _, _ = self.build(self.request.platforms, lambda: None)
        is_engine = bool(self.builder.recipe.command)
        program = ENGINES[engine.endpoint.kind] if is_engine else self.builder.program
        return push(program, engine, self.request.image)

    def load(self) -> Report:
        nodes = self.nodes()
        platforms = self.single_platform(nodes)
        engine, image_id, loading = self.build(platforms, partial(self.prepare, nodes, platforms))
        self.check_docker_client(engine, image_id, loading)
        platform = platforms[0] if platforms and not self.builder.recipe.command else None
        if self.folder and (report := loading.load_layout(self.folder, self.request, image_id)):
            return report
        return loading.load(engine, self.request, image_id, platform)

    def build(
        self, platforms: Sequence[Platform], prepare: Callable[[], T]
    ) -> tuple[Engine, Digest, T]:
        """Build, and prepare the next step meanwhile; an error there stops the build."""
        if self.folder:
            return self.build_outside(self.folder, platforms, prepare)
        program, engines = self.builder.program, self.builder.engines
        before = [EngineSnapshot(engine) for engine in engines]
        in_podman = program == "docker" and engines[0].endpoint.kind == "podman"
        if self.builder.recipe.command or in_podman:  # only a comparison shows the built image
            before = take_snapshots(engines, self.request)
        image_id, prepared = self.builder.build(self.request, platforms, prepare)
        return (*find_built(self.request, before, image_id), prepared)

    def build_outside(
        self, folder: BuildFolder, platforms: Sequence[Platform], prepare: Callable[[], T]
    ) -> tuple[Engine, Digest, T]:
        """Build into a folder, without layers that the engine has, and load it into the engine.

        If the engine has lost such a layer, a second build, from the builder's cache, adds it.
        """
        from imgload.tools.skaffold.layout import EngineBuilds  # noqa: PLC0415 - rarely needed

        engine, request = self.builder.engines[0], self.request
        builds = EngineBuilds(engine, f"buildx {self.builder.foreign}", request)
        folder.omit(builds.known_layers())
        _, prepared = self.builder.build(request, platforms, prepare, folder.output)
        image = folder.image(str(request.reference))
        target = builds.store(folder, image)
        if target is None and image.absent_layers:
            self.builder.build(request, platforms, lambda: None, folder.output)
            image = folder.image(str(request.reference))
            target = builds.store(folder, image)
        if target is None:
            raise BuildFailed(
                f"{engine.endpoint} does not have {request.image} after it was loaded",
                hint="store it with buildx itself:"
                " imgload skaffold -- sh -c 'docker build --load -t \"$IMAGE\" .'",
            )
        builds.record(image, target)
        return engine, target, prepared

    def prepare(self, nodes: Sequence[NodeRuntime], platforms: Sequence[Platform]) -> PreparedLoad:
        import imgload.sources.push  # noqa: F401, PLC0415 - imported during the build
        from imgload.loader.loader import Loader  # noqa: PLC0415

        loading = PreparedLoad(Loader([], nodes), self.watch())
        with suppress(ImgloadError):  # `load` raises it again
            loading.loader.survey_ahead(self.request.image)
        if platforms != self.request.platforms:
            loading.note(f"building only for {platforms[0]}, the platform of the nodes")
        return loading

    def nodes(self) -> tuple[NodeRuntime, ...]:
        from imgload.clusters.select import select_nodes  # noqa: PLC0415 - only for a load

        cluster, names = self.destination or ((), ())
        with with_discovery_errors(self.discovery.unreachable):
            return select_nodes(self.engines, cluster, names, guess=False)

    def single_platform(self, nodes: Sequence[NodeRuntime]) -> tuple[Platform, ...]:
        """Return the nodes' platform if several are requested: an engine stores only one."""
        if not self.request.multi_platform or self.builder.recipe.command:
            return self.request.platforms
        from imgload.clusters.nodes.survey import NOTHING  # noqa: PLC0415 - rarely needed

        platforms = {node.survey(NOTHING).traits.platform for node in nodes}
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
        _, _, endpoint = docker_client(self.discovery)
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


@attrs.frozen
class PreparedLoad:
    """A load whose nodes were surveyed while its image was being built."""

    loader: Loader
    on_event: Callable[[Event], None]

    def note(self, text: str) -> None:
        from imgload.loader.events import Note  # noqa: PLC0415 - during the build

        self.on_event(Note(text))

    def load_layout(self, folder: BuildFolder, request: Request, target: Digest) -> Report | None:
        """Load the layers that a build has left in a folder; None if a node lacks others."""
        from imgload.loader.report import LoadFailed  # noqa: PLC0415 - during the build

        [image] = folder.source.all_images(None)
        self.loader.sources = [image.origin]
        ids = dict.fromkeys([target, image.target])
        try:
            return self.loader.load(
                [str(image.target)],
                tag=request.image,
                extra_tags=[request.name_by_id(digest) for digest in ids],
                on_event=self.on_event,
            )
        except ArchiveInvalid:
            return None
        except LoadFailed as error:
            if not any(isinstance(r.error, ArchiveInvalid) for _, r in error.report.failures()):
                raise
            return None

    def load(
        self, engine: Engine, request: Request, image: Digest, platform: Platform | None
    ) -> Report:
        """Load an engine's image by its ID: another build may take the name over meanwhile.

        The first load already uses the delta transport, so that Docker's graphdriver compresses the
        base layers then, and not at the first rebuild.
        """
        from imgload.sources.engine import EngineSource  # noqa: PLC0415 - during the build

        source = EngineSource(engine)
        self.loader.sources = [source]
        try:
            sourced = source.find(str(image), platform)
            known = source.identify(sourced) if sourced else None
            ids = [known.target, known.image_id] if known else []
            return self.loader.load(
                [str(image)],
                tag=request.image,
                extra_tags=[request.name_by_id(i) for i in dict.fromkeys(filter(None, ids))],
                platform=str(platform) if platform else None,
                transport="delta",
                on_event=self.on_event,
            )
        finally:
            source.release()
