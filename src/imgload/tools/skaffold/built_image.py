"""Find a built image, and the engine in which Skaffold looks for it."""

from __future__ import annotations

import shlex
from collections.abc import Collection, Mapping, Sequence
from functools import partial

import attrs

from imgload.core.errors import ImageAmbiguous, ImageNotFound
from imgload.core.parallel import in_parallel
from imgload.engines.base import Engine
from imgload.engines.discovery.discover import Discovery
from imgload.engines.endpoint import Endpoint
from imgload.oci.digest import Digest
from imgload.tools.skaffold.request import Request

DEFAULT_SOCKET = "unix:///var/run/docker.sock"


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
    """Query all engines in parallel."""
    return in_parallel([partial(EngineSnapshot.take, engine, request) for engine in engines])


def find_built(
    request: Request, before: Sequence[EngineSnapshot], image_id: Digest | None
) -> tuple[Engine, Digest]:
    """Return the engine that has the built image, and the engine's ID of the image.

    `before` has the snapshots from before the build, without images where a later snapshot is
    enough; `image_id` is the image ID, if the builder reported it. Raises ImageNotFound when no
    engine has the image, and ImageAmbiguous when older images of the name may be it, too.
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
            f"which {request.image} was built just now cannot be told: {both}",
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


@attrs.frozen
class Client:
    """The address that Skaffold's Docker client uses, and the engine that answers there, if any.

    The origin is the variable or context that sets the address, for messages.
    """

    url: str
    origin: str
    endpoint: Endpoint | None = None

    @classmethod
    def of(cls, discovery: Discovery) -> Client:
        """Return ``DOCKER_HOST``, else the Docker context's address, else the default socket.

        GoogleContainerTools/skaffold, pkg/skaffold/docker/client.go.
        """
        for attempt in discovery.attempts:
            candidate, endpoint = attempt.candidate, attempt.same_as or attempt.endpoint
            if candidate.kind == "docker" and not attempt.skip_reason:
                if candidate.chosen:
                    return cls(candidate.url, candidate.origin, endpoint)
                if candidate.url == DEFAULT_SOCKET:
                    return cls(candidate.url, "the default", endpoint)
        return cls(DEFAULT_SOCKET, "the default")
