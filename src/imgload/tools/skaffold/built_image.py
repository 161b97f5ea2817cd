"""What a build left, and where: told by what the engines had before and have afterwards."""

from __future__ import annotations

import shlex
from collections.abc import Collection, Iterable, Mapping, Sequence
from functools import partial

import attrs

from imgload.core.errors import ImageAmbiguous, ImageNotFound
from imgload.core.parallel import in_parallel
from imgload.engines.base import Engine
from imgload.oci.digest import Digest
from imgload.tools.skaffold.request import Request


@attrs.frozen
class Held:
    """What one engine has under an image's name.

    Args:
        engine: which one.
        seen: the image that it takes the name for, or None.
        by_name: the image under each full name that the name may mean there: Podman gives a short
            one its ``localhost/`` or none, and takes it for either (podman #15974).

    """

    engine: Engine
    seen: Digest | None
    by_name: Mapping[str, Digest]

    @classmethod
    def by(cls, engine: Engine, request: Request) -> Held:
        """Ask an engine."""
        names = [str(request.reference)]
        if engine.endpoint.kind == "podman" and request.reference.short:
            names.append(str(request.reference.on_localhost()))
        found = {name: image.target for name in names if (image := engine.find(name))}
        seen = engine.find(request.image) if found else None
        return cls(engine, seen.target if seen else None, found)

    def new(self, before: Held) -> set[Digest]:
        """Return the images whose names are new or have moved since."""
        return {d for name, d in self.by_name.items() if before.by_name.get(name) != d}


def look(engines: Sequence[Engine], request: Request) -> list[Held]:
    """Ask all engines at once."""
    return in_parallel([partial(Held.by, engine, request) for engine in engines])


def nothing(engines: Sequence[Engine]) -> list[Held]:
    """Return what engines have that are not asked."""
    return [Held(engine, None, {}) for engine in engines]


def settle(request: Request, before: Sequence[Held], told: Digest | None) -> tuple[Engine, Digest]:
    """Return the engine that has what was just built, and what it calls the image's ID.

    Args:
        request: what was asked for.
        before: what each engine had that the build may have gone into, where that says more than
            what it has now.
        told: the image ID, where the builder told it.

    Raises:
        ImageNotFound: when none has it: the build went elsewhere, or under another name.
        ImageAmbiguous: when that cannot be told from older images of the name.

    """
    after = look([held.engine for held in before], request)
    built = _built(after, before, told)
    if not built:
        raise _missing(after, request)
    if len({held.seen for held, _ in built}) > 1:
        raise _ambiguous(request, [held for held, _ in built])
    held, images = built[0]
    if held.seen is None or held.seen not in images:
        raise _shadowed(request, held, images)
    return held.engine, held.seen


def _built(
    after: Sequence[Held], before: Sequence[Held], told: Digest | None
) -> list[tuple[Held, Collection[Digest]]]:
    """Return the engines that may have the image, and which of theirs it may be."""
    if told is not None:
        return [(held, [told]) for held in after if told in held.by_name.values()]
    news = [(held, held.new(old)) for held, old in zip(after, before, strict=True)]
    changed = [(held, images) for held, images in news if images]
    return [*changed] or [(held, [held.seen]) for held in after if held.seen]


def _missing(held: Iterable[Held], request: Request) -> ImageNotFound:
    places = " and ".join(str(each.engine.endpoint) for each in held)
    return ImageNotFound(
        f"the build has left no {request.image} in {places}",
        hint="tag the image $IMAGE, and name the socket of the engine that it is built in:"
        " DOCKER_HOST=unix:///path/to/docker.sock or CONTAINER_HOST=unix:///path/to/podman.sock",
    )


def _ambiguous(request: Request, held: Sequence[Held]) -> ImageAmbiguous:
    both = ", and ".join(
        f"{h.engine.endpoint} holds {h.seen.short if h.seen else ''}" for h in held
    )
    return ImageAmbiguous(
        f"which {request.image} was built just now cannot be told: {both}",
        hint="say where the command builds: --builder docker or --builder podman",
    )


def _shadowed(request: Request, held: Held, images: Iterable[Digest]) -> ImageAmbiguous:
    new = ", ".join(image.short for image in images)
    older = next((n for n, d in held.by_name.items() if d == held.seen), request.image)
    return ImageAmbiguous(
        f"{held.engine.endpoint} takes {request.image} for an older image, {older}: the new one is"
        f" {new}",
        hint=f"remove the older one: {held.engine.name} rmi {shlex.quote(older)}",
    )
