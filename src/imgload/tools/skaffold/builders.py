"""The programs that build and push images, the choice between them, and their processes."""

from __future__ import annotations

import os
import re
import shlex
import signal
import subprocess
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, Literal, TypeVar, get_args

import attrs

from imgload.core.errors import (
    ArchiveInvalid,
    BuildFailed,
    EngineUnreachable,
    PlatformMissing,
    UsageError,
)
from imgload.core.state import TemporaryFolder
from imgload.engines.base import Engine
from imgload.engines.discovery.buildx import build_builder
from imgload.engines.endpoint import EngineKind
from imgload.engines.temporary_tags import note_temporary_name
from imgload.oci.digest import Digest
from imgload.oci.document import parse_json
from imgload.oci.platform import Platform
from imgload.tools.dropins.install import on_path
from imgload.tools.skaffold.request import Request

T = TypeVar("T")
Environ = Mapping[str, str] | None
BuilderName = Literal["docker", "podman", "buildah"]
ENGINES: dict[str, EngineKind] = {"docker": "docker", "podman": "podman", "buildah": "podman"}
"""The kind of engine whose store each builds into; Buildah and Podman share one."""
_PUSHED = re.compile(r'(?:^|: digest: |"containerimage\.digest":\s*")(sha256:[0-9a-f]{64})\b')
"""The digest in ``docker push``'s output, buildx's metadata file, or Podman's digest file."""
_GRACE_SECONDS = 0.8
"""Skaffold kills its builder two seconds after SIGINT; the child must have ended by then."""
_POLL_SECONDS = 0.02
_TIMEOUT_SECONDS = 10.0


@attrs.frozen
class Recipe:
    """How to build: a Dockerfile, or the user's command.

    The builder is None for an installed one; with a command, it is the program whose engine the
    command builds in.
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
        options = {"file": self.file, "target": self.target}
        yield from (f"--{name}={value}" for name, value in options.items() if value)
        yield from (f"--build-arg={argument}" for argument in self.build_args)


@attrs.frozen
class Builder:
    """A program that builds and pushes, and the engines whose store it may build into.

    `foreign` is the builder of docker-buildx if it stores no images in the engine.
    """

    program: BuilderName
    engines: tuple[Engine, ...]
    recipe: Recipe
    foreign: str | None = None

    def build(
        self,
        request: Request,
        platforms: Sequence[Platform],
        prepare: Callable[[], T],
        output: str | None = None,
    ) -> tuple[Digest | None, T]:
        """Return the image ID, if the builder reports it, and the result of `prepare`.

        `prepare` is called during the build; an exception there ends the build. `output` replaces
        the store of the engine as the destination, without attestations.
        """
        if self.recipe.command:
            with running(self.recipe.command):
                return None, prepare()
        argv = [self.program, "build", f"--tag={request.image}", *self.recipe.options()]
        argv += [*(f"--platform={platform}" for platform in platforms), "."]
        if self.program == "docker":
            environ = docker_environ(self.engines[0])
            if output:
                argv.insert(2, f"--output={output}")
                environ |= {"BUILDX_NO_DEFAULT_ATTESTATIONS": "1"}
            with running(argv, request.context, environ):
                return None, prepare()
        with temporary_file("image-id") as file:
            argv.insert(2, f"--iidfile={file}")
            with running(argv, request.context):
                prepared = prepare()
            with suppress(ArchiveInvalid):
                return Digest.from_engine_id(file.read_text().strip()), prepared
            return None, prepared


def docker_environ(engine: Engine) -> dict[str, str]:
    """Make Docker's client use an engine; over TLS it keeps its context, for the certificates."""
    return {} if engine.endpoint.tls else {"DOCKER_HOST": engine.endpoint.url}


def choose(recipe: Recipe, engines: Sequence[Engine]) -> Builder:
    """Return the requested builder, or the first installed one whose engine answers."""
    name = recipe.builder if recipe.command else _installed_builder(recipe.builder, engines)
    matching = _engines_of(name, engines) if name else tuple(engines)
    if name == "docker" and not recipe.command:
        matching = (matching or tuple(engines))[:1]  # DOCKER_HOST may lead to Podman
    if name and not matching:
        kind = ENGINES[name]
        command, variable = "docker info", "DOCKER_HOST"
        if kind == "podman":
            command, variable = "systemctl --user start podman.socket", "CONTAINER_HOST"
        raise EngineUnreachable(
            f"--builder {name}: no {kind} engine answers, and imgload reads the image from it",
            hint=f"{command}; or set its socket: {variable}=unix:///path/to/{kind}.sock",
        )
    foreign = None
    if name == "docker" and not recipe.command:
        foreign = build_builder({**os.environ, **docker_environ(matching[0])})
    return Builder(name or ENGINES[matching[0].endpoint.kind], matching, recipe, foreign)


def _installed_builder(requested: BuilderName | None, engines: Sequence[Engine]) -> BuilderName:
    installed: list[BuilderName] = [name for name in get_args(BuilderName) if _installed(name)]
    if requested == "docker" and "docker" not in installed and any(on_path("docker")):
        requested = "podman"
    usable = [name for name in installed if _engines_of(name, engines)]
    for name in [requested] if requested else [*usable, "docker"]:
        if name in installed:
            return name
    if requested:
        hint = "install it, or choose another one with --builder"
        raise UsageError(f"--builder {requested}: there is no {requested} on PATH", hint=hint)
    available = " and ".join(str(engine.endpoint) for engine in engines)
    raise UsageError(
        f"no builder for {available}: there is no docker, podman or buildah on PATH",
        hint="install one, or run your own command: imgload skaffold -- COMMAND...",
    )


def _engines_of(name: BuilderName, engines: Sequence[Engine]) -> tuple[Engine, ...]:
    return tuple(engine for engine in engines if engine.endpoint.kind == ENGINES[name])


def _installed(name: BuilderName) -> bool:
    """Whether a program is on PATH; a ``docker`` that is Podman does not count.

    The package ``podman-docker`` installs a script of that name. Only a script is run for its
    version, since that takes as long as inspecting ten images.
    """
    path = next(on_path(name), None)
    if path is None or name != "docker":
        return path is not None
    is_podman, is_script = path.resolve().name.startswith("podman"), False
    with suppress(OSError), path.open("rb") as program:  # it may be executable, but not readable
        is_script = program.read(2) == b"#!"
    return not is_podman and not (is_script and "podman" in read([str(path), "--version"]).lower())


def push(program: BuilderName, engine: Engine, image: str) -> Digest:
    """Push an engine's image, and return its digest in the registry."""
    if program == "docker":
        output = run_and_read(["docker", "push", image], docker_environ(engine))
        return _pushed_digest(output, "docker push")
    with temporary_file("digest") as file:
        run([program, "push", f"--digestfile={file}", image])
        return _pushed_digest(file.read_text(), f"{program} push")


def publish(builder: Builder, request: Request) -> Digest:
    """Build and push without a copy in the engine; return the digest of the image or index."""
    if request.every_platform:
        hint = "name them: skaffold build --platform=linux/amd64,linux/arm64"
        raise UsageError("PLATFORMS is 'all', which no builder supports", hint=hint)
    platforms = ",".join(map(str, request.platforms))
    options = [*builder.recipe.options(), *([f"--platform={platforms}"] if platforms else []), "."]
    with temporary_file("output") as file:
        if builder.program != "docker":
            return _push_list(builder, request, options, file)
        argv = ["docker", "buildx", "build", f"--tag={request.image}", "--push"]
        environ = docker_environ(builder.engines[0])
        run([*argv, f"--metadata-file={file}", *options], request.context, environ)
        return _pushed_digest(file.read_text(), "docker buildx build")


def _push_list(builder: Builder, request: Request, options: list[str], file: Path) -> Digest:
    """Build and push a temporary manifest list: an existing one would grow with each build."""
    program, name = builder.program, f"localhost/imgload-{os.urandom(8).hex()}"
    lease = note_temporary_name(builder.engines[0].endpoint.url, name)
    push_all = [program, "manifest", "push", "--all", f"--digestfile={file}"]
    try:
        run([program, "build", f"--manifest={name}", *options], request.context)
        _require_platforms(request, read([program, "manifest", "inspect", name]))
        run([*push_all, name, f"docker://{request.reference}"])
        return _pushed_digest(file.read_text(), f"{program} manifest push")
    finally:
        removed = read([program, "manifest", "rm", name])
        if lease:
            lease.remove() if removed else lease.release()


def _require_platforms(request: Request, index: str) -> None:
    """Raise PlatformMissing if Podman's cache replaced one platform's image by another's."""
    manifests: list[Any] = []
    with suppress(ArchiveInvalid):
        manifests = parse_json(index.encode(), "manifest list").get("manifests") or []
    built = {Platform.from_json(entry.get("platform")) for entry in manifests}
    if missing := [platform for platform in request.platforms if platform not in built]:
        raise PlatformMissing(
            f"the builder omitted {', '.join(map(str, missing))} from {request.image}",
            hint="its cache used another platform's image: remove that image and build again",
        )


def _pushed_digest(text: str, command: str) -> Digest:
    """Return the digest in an output; BuildFailed if none: Buildah 1.28 hides its errors so."""
    if match := _PUSHED.search(text):
        return Digest.parse(match[1])
    message = f"{command} printed no digest, so the image may not have been pushed"
    raise BuildFailed(message, hint="see the builder's output above")


def run(argv: Sequence[str], folder: Path | None = None, environ: Environ = None) -> None:
    with running(argv, folder, environ):
        pass


def run_and_read(argv: Sequence[str], environ: Environ = None) -> str:
    """Run a program like `run`, and also return its stdout."""
    output = bytearray()
    with running(argv, None, environ, pipe=True) as process:
        while process.stdout and (chunk := os.read(process.stdout.fileno(), 1 << 16)):
            os.write(1, chunk)
            output += chunk
    return output.decode(errors="replace")


def read(argv: Sequence[str]) -> str:
    """Return the stdout of a program without showing it; empty if the program fails."""
    null = subprocess.DEVNULL
    with suppress(OSError, subprocess.SubprocessError):
        output = subprocess.check_output(argv, stdin=null, stderr=null, timeout=_TIMEOUT_SECONDS)  # noqa: S603
        return output.decode(errors="replace")
    return ""


@contextmanager
def running(
    argv: Sequence[str], folder: Path | None = None, environ: Environ = None, *, pipe: bool = False
) -> Iterator[subprocess.Popen[bytes]]:
    """Run a program during the block, and wait for its end; any exception ends its process group.

    `environ` is added to this process's environment. Raises UsageError when there is no such
    program, and BuildFailed when its exit status is not 0.
    """
    process, env = None, {**os.environ, **(environ or {})}
    try:
        with _deferred_signals():
            process = _start(argv, cwd=folder, env=env, stdout=subprocess.PIPE if pipe else None)
        yield process
        _wait(process, argv)
    except BaseException:
        if process:
            _stop(process)
        raise
    finally:
        if process and process.stdout:
            process.stdout.close()


def _start(argv: Sequence[str], **options: Any) -> subprocess.Popen[bytes]:
    try:
        return subprocess.Popen(argv, stdin=subprocess.DEVNULL, process_group=0, **options)  # noqa: S603 - the user's command
    except OSError as error:
        program = shlex.quote(argv[0])
        raise UsageError(
            f"cannot run {argv[0]!r}: {error.strerror or error}",
            hint=f"check that it is installed, executable and on PATH: command -v {program}",
        ) from error


def _wait(process: subprocess.Popen[bytes], argv: Sequence[str]) -> None:
    if status := process.wait():
        result = f"exit status {status}" if status > 0 else f"signal {signal.Signals(-status).name}"
        message = f"{' '.join(argv[:2])} failed with {result}"
        raise BuildFailed(message, hint="see the builder's output above")


@contextmanager
def _deferred_signals() -> Iterator[None]:
    """Defer SIGINT and SIGTERM while a child starts: until Popen returns, nothing can stop it."""
    pending: list[int] = []
    handlers = {
        deferred: signal.signal(deferred, lambda number, _frame: pending.append(number))
        for deferred in (signal.SIGINT, signal.SIGTERM)
    }
    try:
        yield
    finally:
        for number, handler in handlers.items():
            signal.signal(number, handler or signal.SIG_DFL)
        if pending:
            signal.raise_signal(pending[0])


def _stop(process: subprocess.Popen[bytes]) -> None:
    """Send SIGINT to the process group, like Ctrl-C, and SIGKILL if some process remains."""
    deadline = time.monotonic() + _GRACE_SECONDS
    with suppress(ProcessLookupError, PermissionError):
        os.killpg(process.pid, signal.SIGINT)
        while time.monotonic() < deadline:
            process.poll()
            os.killpg(process.pid, 0)
            time.sleep(_POLL_SECONDS)
        os.killpg(process.pid, signal.SIGKILL)
    process.wait()


@contextmanager
def temporary_file(name: str) -> Iterator[Path]:
    """Yield an empty file for a child to write to, and remove it afterwards."""
    folder = TemporaryFolder.make()
    try:
        path = folder.path / name
        path.touch()
        yield path
    finally:
        folder.remove()
