"""The programs that build and push images, and which of them to take."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from functools import partial
from pathlib import Path
from typing import Literal, get_args

import attrs

from imgload.core.errors import EngineUnreachable, UsageError
from imgload.engines.base import Engine
from imgload.engines.endpoint import EngineKind
from imgload.oci.digest import Digest
from imgload.oci.platform import Platform
from imgload.tools.dropins.install import on_path
from imgload.tools.skaffold.process import Child, digest_in, read, scratch, started
from imgload.tools.skaffold.request import Request

BuilderName = Literal["docker", "podman", "buildah"]
BUILDERS: tuple[BuilderName, ...] = get_args(BuilderName)
_KINDS: dict[BuilderName, EngineKind] = {
    "docker": "docker",
    "podman": "podman",
    "buildah": "podman",
}
"""Whose store each builds into; Buildah and Podman share one."""


@attrs.frozen
class Recipe:
    """How to build.

    Args:
        builder: which program to build with; None for the one that is here. Beside a command, the
            one whose engine that builds in.
        command: a build of the user's own, in place of a Dockerfile's.
        file: the Dockerfile; None for the builder's default.
        target: the stage of the Dockerfile to build; None for the last.
        build_args: ``KEY=VALUE``, or ``KEY`` for that of the environment.

    Raises:
        UsageError: when a command is to get what only a Dockerfile's build knows.

    """

    builder: BuilderName | None = None
    command: tuple[str, ...] = ()
    file: str | None = None
    target: str | None = None
    build_args: tuple[str, ...] = ()

    def __attrs_post_init__(self) -> None:
        if self.command and any(self.words()):
            raise UsageError(
                f"{next(self.words())} is for the build of a Dockerfile, and there is a COMMAND",
                hint="give the command its own options, behind the --",
            )

    def words(self) -> Iterator[str]:
        """Yield the options of a Dockerfile's build as all three builders spell them."""
        if self.file:
            yield f"--file={self.file}"
        if self.target:
            yield f"--target={self.target}"
        yield from (f"--build-arg={each}" for each in self.build_args)


@attrs.frozen
class Builder:
    """A way to build and to push.

    Args:
        program: ``docker``, ``podman`` or ``buildah``.
        engines: those whose store it may build into; one for Docker, whose client is pinned to it.
        recipe: how to build.

    """

    program: BuilderName
    engines: tuple[Engine, ...]
    recipe: Recipe

    @contextmanager
    def building(
        self, request: Request, platforms: Sequence[Platform]
    ) -> Iterator[Callable[[], Digest | None]]:
        """Start the build, and yield what waits for its end.

        That returns the image ID where the builder tells it, and raises BuildFailed. Whatever is
        raised within ends the build.
        """
        if self.recipe.command:
            with started(self.recipe.command) as child:
                yield partial(_finished, child)
            return
        words = [*self.recipe.words(), *(f"--platform={each}" for each in platforms), "."]
        start = [self.program, "build", f"--tag={request.image}"]
        if self.program == "docker":
            environ = pinned_to(self.engines[0])
            with started([*start, *words], request.context, environ) as child:
                yield partial(_finished, child)
            return
        with scratch("image-id") as told:
            argv = [*start, f"--iidfile={told}", *words]
            with started(argv, request.context) as child:
                yield partial(_finished, child, told)

    @property
    def is_plain(self) -> bool:
        """Whether what was built shows without a look at what was there before."""
        told = self.program != "docker" or self.engines[0].endpoint.kind == "docker"
        return told and not self.recipe.command

    def pusher(self, engine: Engine) -> BuilderName:
        """Return the program that pushes what an engine has."""
        return engine.endpoint.kind if self.recipe.command else self.program


def _finished(child: Child, told: Path | None = None) -> Digest | None:
    child.finish()
    return digest_in(told.read_text()) if told else None


def pinned_to(engine: Engine) -> dict[str, str]:
    """Return what makes Docker's client use an engine, whatever its context is.

    Over TLS it is left to itself: the certificates of a context are only used with that.
    """
    return {} if engine.endpoint.tls else {"DOCKER_HOST": engine.endpoint.url}


def choose(recipe: Recipe, engines: Sequence[Engine]) -> Builder:
    """Return the builder asked for, or the one whose program is here and whose engine answers.

    Docker comes first. A ``docker`` that is Podman in disguise counts as Podman.

    Raises:
        UsageError: when the program is not installed.
        EngineUnreachable: when the engine that it builds into does not answer.

    """
    if recipe.command:
        return _for_command(recipe, engines)
    if recipe.builder is not None:
        return _named(recipe.builder, recipe, engines)
    for name in BUILDERS:
        if _engines_of(name, engines) and _installed(name):
            return _builder(name, recipe, engines)
    if _installed("docker"):
        return _builder("docker", recipe, engines)
    there = " and ".join(str(engine.endpoint) for engine in engines)
    raise UsageError(
        f"nothing to build with: there is {there}, and no docker, podman or buildah on PATH for it",
        hint="install one, or give your own command: imgload skaffold -- COMMAND...",
    )


def _for_command(recipe: Recipe, engines: Sequence[Engine]) -> Builder:
    name = recipe.builder
    fitting = _engines_of(name, engines) if name else tuple(engines)
    if name and not fitting:
        raise _unreachable(name)
    return Builder(name or fitting[0].endpoint.kind, fitting, recipe)


def _named(name: BuilderName, recipe: Recipe, engines: Sequence[Engine]) -> Builder:
    if name == "docker" and any(on_path(name)) and not _installed(name):
        return _named("podman", recipe, engines)
    if not _installed(name):
        raise UsageError(
            f"--builder {name}: there is no {name} on PATH",
            hint="install it, or choose another one with --builder",
        )
    return _builder(name, recipe, engines)


def _builder(name: BuilderName, recipe: Recipe, engines: Sequence[Engine]) -> Builder:
    fitting = _engines_of(name, engines)
    if name == "docker":
        fitting = (fitting or tuple(engines))[:1]  # DOCKER_HOST may lead its client to Podman
    if not fitting:
        raise _unreachable(name)
    return Builder(name, fitting, recipe)


def _unreachable(name: BuilderName) -> EngineUnreachable:
    kind = _KINDS[name]
    start = "systemctl --user start podman.socket" if kind == "podman" else "docker info"
    variable = "CONTAINER_HOST" if kind == "podman" else "DOCKER_HOST"
    return EngineUnreachable(
        f"--builder {name}: no {kind} engine answers, and the image is read from there",
        hint=f"{start}; or name its socket: {variable}=unix:///path/to/{kind}.sock",
    )


def _engines_of(name: BuilderName, engines: Sequence[Engine]) -> tuple[Engine, ...]:
    return tuple(engine for engine in engines if engine.endpoint.kind == _KINDS[name])


def _installed(name: BuilderName) -> bool:
    """Whether a program is on PATH, and is what it is called."""
    path = next(on_path(name), None)
    return path is not None and (name != "docker" or not _is_podman(path))


def _is_podman(path: Path) -> bool:
    """Whether a program called docker is Podman: ``podman-docker`` installs a script of that name.

    Only a script is asked, since asking takes as long as inspecting ten images.
    """
    is_script = False
    with suppress(OSError), path.open("rb") as program:  # it may be runnable only
        is_script = program.read(2) == b"#!"
    linked = path.resolve().name.startswith("podman")
    return linked or (is_script and "podman" in read([str(path), "--version"]).lower())
