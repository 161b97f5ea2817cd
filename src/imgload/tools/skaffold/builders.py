"""The programs that build and push images, and the choice between them."""

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
from imgload.tools.skaffold.process import Child, parse_digest, read, started, temporary_file
from imgload.tools.skaffold.request import Request

BuilderName = Literal["docker", "podman", "buildah"]
_BUILDERS: tuple[BuilderName, ...] = get_args(BuilderName)
_KINDS: dict[BuilderName, EngineKind]
_KINDS = {"docker": "docker", "podman": "podman", "buildah": "podman"}
"""The kind of engine whose store each builds into; Buildah and Podman share one."""


@attrs.frozen
class Recipe:
    """How to build: a Dockerfile with its target stage and build arguments, or the user's command.

    The builder is None for an installed one; with a command, it is the program whose engine the
    command builds in. Raises UsageError when a command is combined with options for a Dockerfile.
    """

    builder: BuilderName | None = None
    command: tuple[str, ...] = ()
    file: str | None = None
    target: str | None = None
    build_args: tuple[str, ...] = ()

    def __attrs_post_init__(self) -> None:
        if self.command and any(self.options()):
            raise UsageError(
                f"{next(self.options())} is only for the build of a Dockerfile, not for a COMMAND",
                hint="add the command's own options after the --",
            )

    def options(self) -> Iterator[str]:
        """Yield the options for a Dockerfile, the same for all three builders."""
        if self.file:
            yield f"--file={self.file}"
        if self.target:
            yield f"--target={self.target}"
        yield from (f"--build-arg={argument}" for argument in self.build_args)


@attrs.frozen
class Builder:
    """A program that builds and pushes, and the engines whose store it may build into."""

    program: BuilderName
    engines: tuple[Engine, ...]
    recipe: Recipe

    @contextmanager
    def building(
        self, request: Request, platforms: Sequence[Platform]
    ) -> Iterator[Callable[[], Digest | None]]:
        """Start the build, and yield a function that waits for its end.

        The function returns the image ID if the builder reports it, and raises BuildFailed. Any
        exception in the block ends the build.
        """
        if self.recipe.command:
            with started(self.recipe.command) as child:
                yield partial(_finish, child)
            return
        argv = [self.program, "build", f"--tag={request.image}", *self.recipe.options()]
        argv += [*(f"--platform={platform}" for platform in platforms), "."]
        if self.program == "docker":
            with started(argv, request.context, docker_environ(self.engines[0])) as child:
                yield partial(_finish, child)
            return
        with temporary_file("image-id") as file:
            argv.insert(2, f"--iidfile={file}")
            with started(argv, request.context) as child:
                yield partial(_finish, child, file)

    @property
    def needs_snapshot(self) -> bool:
        """Whether only a comparison with the images before the build shows the built one."""
        in_podman = self.program == "docker" and self.engines[0].endpoint.kind == "podman"
        return bool(self.recipe.command) or in_podman

    def pusher(self, engine: Engine) -> BuilderName:
        """Return the program that pushes an engine's image."""
        return engine.endpoint.kind if self.recipe.command else self.program


def _finish(child: Child, file: Path | None = None) -> Digest | None:
    child.finish()
    return parse_digest(file.read_text()) if file else None


def docker_environ(engine: Engine) -> dict[str, str]:
    """Return the variables that make Docker's client use an engine, whatever its context is.

    There are none for TLS: the client uses a context's certificates only with that context.
    """
    return {} if engine.endpoint.tls else {"DOCKER_HOST": engine.endpoint.url}


def choose(recipe: Recipe, engines: Sequence[Engine]) -> Builder:
    """Return the requested builder, or the first installed one whose engine answers.

    Docker comes first. A ``docker`` that is Podman counts as Podman. Raises UsageError when the
    program is not installed, and EngineUnreachable when its engine does not answer.
    """
    name = recipe.builder
    if recipe.command:
        matching = _engines_of(name, engines) if name else tuple(engines)
    else:
        name = _installed_builder(name) if name else _default(engines)
        matching = _engines_of(name, engines)
        if name == "docker":
            matching = (matching or tuple(engines))[:1]  # DOCKER_HOST may lead to Podman
    if name and not matching:
        raise _unreachable(name)
    return Builder(name or matching[0].endpoint.kind, matching, recipe)


def _installed_builder(name: BuilderName) -> BuilderName:
    if name == "docker" and any(on_path(name)) and not _installed(name):
        name = "podman"
    if not _installed(name):
        raise UsageError(
            f"--builder {name}: there is no {name} on PATH",
            hint="install it, or choose another one with --builder",
        )
    return name


def _default(engines: Sequence[Engine]) -> BuilderName:
    for name in _BUILDERS:
        if _engines_of(name, engines) and _installed(name):
            return name
    if _installed("docker"):
        return "docker"
    available = " and ".join(str(engine.endpoint) for engine in engines)
    raise UsageError(
        f"no builder for {available}: there is no docker, podman or buildah on PATH",
        hint="install one, or run your own command: imgload skaffold -- COMMAND...",
    )


def _unreachable(name: BuilderName) -> EngineUnreachable:
    kind = _KINDS[name]
    command, variable = "docker info", "DOCKER_HOST"
    if kind == "podman":
        command, variable = "systemctl --user start podman.socket", "CONTAINER_HOST"
    return EngineUnreachable(
        f"--builder {name}: no {kind} engine answers, and imgload reads the image from it",
        hint=f"{command}; or set its socket: {variable}=unix:///path/to/{kind}.sock",
    )


def _engines_of(name: BuilderName, engines: Sequence[Engine]) -> tuple[Engine, ...]:
    return tuple(engine for engine in engines if engine.endpoint.kind == _KINDS[name])


def _installed(name: BuilderName) -> bool:
    """Whether a program is on PATH; a ``docker`` that is Podman does not count.

    The package ``podman-docker`` installs a script of that name. Only a script is asked for its
    version, since that takes as long as inspecting ten images.
    """
    path = next(on_path(name), None)
    if path is None or name != "docker":
        return path is not None
    is_podman, is_script = path.resolve().name.startswith("podman"), False
    with suppress(OSError), path.open("rb") as program:  # it may be executable, but not readable
        is_script = program.read(2) == b"#!"
    return not is_podman and not (is_script and "podman" in read([str(path), "--version"]).lower())
