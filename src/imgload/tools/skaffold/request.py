"""Skaffold's request to a custom builder, and the image that the build leaves in an engine."""

from __future__ import annotations

import shlex
from collections.abc import Collection, Mapping, Sequence
from contextlib import suppress
from functools import partial
from pathlib import Path

import attrs

from imgload.core.errors import ImageAmbiguous, ImageNotFound, ReferenceInvalid, UsageError
from imgload.core.parallel import in_parallel
from imgload.engines.base import Engine
from imgload.engines.discovery.discover import Discovery
from imgload.engines.endpoint import Endpoint
from imgload.oci.digest import Digest
from imgload.oci.platform import Platform
from imgload.oci.reference import Reference

DEFAULT_SOCKET = "unix:///var/run/docker.sock"
_UNSET = "if your own shell exports it: env -u BUILD_CONTEXT -u PUSH_IMAGE skaffold dev"
_ALL = "all"
_BOOLS = {"true": True, "false": False, "": False}


@attrs.frozen
class Request:
    """A request to build an image from a folder, and to push it, or else load it.

    Without platforms the builder's own is requested, or all of them if `every_platform`.
    """

    image: str
    reference: Reference
    context: Path
    push: bool = False
    platforms: tuple[Platform, ...] = ()
    every_platform: bool = False

    @classmethod
    def from_environ(cls, environ: Mapping[str, str]) -> Request:
        """Parse the variables that Skaffold sets (skaffold.dev, custom build).

        Skaffold appends the user's variables to its own, so an ``IMAGE`` exported by a shell
        overrides the requested one; a different ``IMAGE_REPO`` or ``IMAGE_TAG`` reveals it.
        """
        missing = [name for name in ("IMAGE", "BUILD_CONTEXT") if not environ.get(name)]
        if missing:
            exported = "" if "IMAGE" in missing else "; your own shell exports IMAGE"
            raise UsageError(
                "this is a custom builder for Skaffold, which sets IMAGE and BUILD_CONTEXT:"
                f" {' and '.join(missing)} {'are' if len(missing) > 1 else 'is'} not set{exported}",
                hint="to run it by hand: IMAGE=app:dev BUILD_CONTEXT=. imgload skaffold",
            )
        image, context = environ["IMAGE"], Path(environ["BUILD_CONTEXT"])
        reference = Reference.parse(image)
        _refuse_exported(image, environ)
        if not context.is_dir():
            raise UsageError(f"BUILD_CONTEXT is not a folder: {str(context)!r}", hint=_UNSET)
        push = environ.get("PUSH_IMAGE", "")
        if push.lower() not in _BOOLS:
            raise UsageError(f"PUSH_IMAGE is neither true nor false: {push!r}", hint=_UNSET)
        platforms = [part.strip() for part in environ.get("PLATFORMS", "").split(",")]
        return cls(
            image=image,
            reference=reference,
            context=context.absolute(),
            push=_BOOLS[push.lower()],
            platforms=tuple(Platform.parse(p) for p in platforms if p and p != _ALL),
            every_platform=_ALL in platforms,
        )

    def name_by_id(self, digest: Digest) -> str:
        """Return the name that Skaffold deploys for an image with this ID."""
        return str(attrs.evolve(self.reference, tag=digest.hex, digest=None))

    @property
    def multi_platform(self) -> bool:
        return self.every_platform or len(self.platforms) > 1


def _refuse_exported(image: str, environ: Mapping[str, str]) -> None:
    repository, tag = environ.get("IMAGE_REPO", ""), environ.get("IMAGE_TAG", "")
    expected = f"{repository}:{tag}" if tag else repository
    with suppress(ReferenceInvalid):
        if Reference.parse(image.partition("@")[0]) == Reference.parse(expected):
            return
    if repository:
        raise UsageError(
            f"IMAGE is {image!r}, while IMAGE_REPO and IMAGE_TAG say {expected!r}: your own shell"
            " exports one of them, which overrides the value that Skaffold sets",
            hint="run Skaffold without it: env -u IMAGE -u IMAGE_REPO -u IMAGE_TAG skaffold dev",
        )


@attrs.frozen
class EngineSnapshot:
    """The images under one name in an engine: the one that it resolves to, and all by full name.

    Podman stores a short name with the prefix ``localhost/`` or without, and resolves it to either
    (podman #15974).
    """

    engine: Engine
    resolved: Digest | None = None
    by_name: Mapping[str, Digest] = attrs.field(factory=dict)

    @classmethod
    def take(cls, engine: Engine, request: Request) -> EngineSnapshot:
        names = [str(request.reference)]
        if engine.endpoint.kind == "podman" and request.reference.is_short:
            names.append(str(request.reference.with_localhost()))
        images = {name: image.target for name in names if (image := engine.find(name))}
        resolved = engine.find(request.image) if images else None
        return cls(engine, resolved.target if resolved else None, images)


def take_snapshots(engines: Sequence[Engine], request: Request) -> list[EngineSnapshot]:
    return in_parallel([partial(EngineSnapshot.take, engine, request) for engine in engines])


def find_built(
    request: Request, before: Sequence[EngineSnapshot], image_id: Digest | None
) -> tuple[Engine, Digest]:
    """Return the engine that has the built image, and the engine's ID of the image.

    `before` has the snapshots from before the build, or empty ones if a later one is enough.
    """
    after = take_snapshots([snapshot.engine for snapshot in before], request)
    built = _candidates(after, before, image_id)
    if not built:
        endpoints = " and ".join(str(snapshot.engine.endpoint) for snapshot in after)
        raise ImageNotFound(
            f"the build has left no {request.image} in {endpoints}",
            hint="tag the image $IMAGE, and set the socket of the engine that builds it:"
            " DOCKER_HOST=unix:///path/to/docker.sock or CONTAINER_HOST=unix:///path/to/podman.sock",
        )
    images = {str(s.engine.endpoint): s.resolved for s, _ in built}
    if len(set(images.values())) > 1:
        both = ", and ".join(f"{e} has {d.short if d else 'none'}" for e, d in images.items())
        raise ImageAmbiguous(
            f"which {request.image} was built just now is unknown: {both}",
            hint="name the engine that the command uses: --builder docker or --builder podman",
        )
    snapshot, new = built[0]
    engine, resolved = snapshot.engine, snapshot.resolved
    if resolved is None or resolved not in new:
        older = next((n for n, d in snapshot.by_name.items() if d == resolved), request.image)
        raise ImageAmbiguous(
            f"{engine.endpoint} takes {request.image} for an older image, {older}: the new one is"
            f" {', '.join(digest.short for digest in new)}",
            hint=f"remove the older one: {engine.name} rmi {shlex.quote(older)}",
        )
    return engine, resolved


def _candidates(
    after: Sequence[EngineSnapshot], before: Sequence[EngineSnapshot], image_id: Digest | None
) -> list[tuple[EngineSnapshot, Collection[Digest]]]:
    """Return the engines that may have the image, and which of their images it may be."""
    if image_id is not None:
        return [(s, [image_id]) for s in after if image_id in s.by_name.values()]
    changes = [
        (s, {digest for name, digest in s.by_name.items() if old.by_name.get(name) != digest})
        for s, old in zip(after, before, strict=True)
    ]
    changed = [(s, images) for s, images in changes if images]
    return [*changed] or [(s, [s.resolved]) for s in after if s.resolved]


def docker_client(discovery: Discovery) -> tuple[str, str, Endpoint | None]:
    """Return the address that Skaffold's Docker client uses, its origin, and the engine there.

    The address is ``DOCKER_HOST``, else the Docker context's, else the default socket
    (GoogleContainerTools/skaffold, pkg/skaffold/docker/client.go).
    """
    for attempt in discovery.attempts:
        candidate, endpoint = attempt.candidate, attempt.same_as or attempt.endpoint
        if candidate.kind == "docker" and not attempt.skip_reason:
            if candidate.chosen:
                return candidate.url, candidate.origin, endpoint
            if candidate.url == DEFAULT_SOCKET:
                return candidate.url, "the default", endpoint
    return DEFAULT_SOCKET, "the default", None
