"""Drop-in replacements for kind and k3d: their commands, exit statuses and messages."""

from __future__ import annotations

import os
import shlex
import sys
from collections.abc import Sequence
from functools import partial
from inspect import cleandoc
from pathlib import Path
from typing import TYPE_CHECKING, NoReturn

import attrs
import click

from imgload.cli.app import finish
from imgload.cli.process import FAILED, exit_fast, sanitize, say, style
from imgload.core.errors import ImageNotFound, ImgloadError, UsageError
from imgload.loader.report import LoadFailed
from imgload.tools.dropins.install import exec_real, find_real, install, uninstall
from imgload.tools.dropins.tool import K3D, KIND, HandOver, Help, Request, Tool

if TYPE_CHECKING:
    from imgload.loader.events import Event

_NOT_RUNNABLE, _NOT_FOUND = 126, 127


class Dropin(click.Command):
    """``imgload TOOL``: parses no arguments, unless the first is an option of imgload's own."""

    def __init__(self, tool: Tool, text: str) -> None:
        folder = partial(click.Option, metavar="DIR", type=click.Path())
        params: list[click.Parameter] = [
            folder(["--install", "install_dir"], help=f"Folder to install `{tool.name}` into."),
            folder(["--uninstall", "uninstall_dir"], help=f"Folder to remove `{tool.name}` from."),
            click.Argument(["arguments"], nargs=-1, metavar="[ARGUMENT]..."),
        ]
        run = partial(_run_command, tool)
        super().__init__(tool.name, None, run, params, cleandoc(text), no_args_is_help=True)

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        own = {name for param in self.get_params(ctx) for name in param.opts}
        if not args or args[0].partition("=")[0] in own:
            return super().parse_args(ctx, args)
        ctx.params = {"install_dir": None, "uninstall_dir": None, "arguments": tuple(args)}
        return []


def _run_command(
    tool: Tool, arguments: Sequence[str], install_dir: str | None, uninstall_dir: str | None
) -> int:
    hint = f"imgload {tool.name} --help"
    if "" in {install_dir, uninstall_dir}:  # an unset variable, and not the working folder
        raise UsageError("the name of the folder is empty", hint=hint)
    if bool(install_dir) + bool(uninstall_dir) + bool(arguments) > 1:
        raise UsageError("--install and --uninstall take no other arguments", hint=hint)
    if install_dir:
        for line in install(tool.name, tool.takes, Path(install_dir)):
            say(line, err=True)
    if uninstall_dir:
        say(f"removed {uninstall(tool.name, Path(uninstall_dir))}", err=True)
    return run(tool, arguments) if arguments else 0


def serve(name: str) -> NoReturn:
    """Run as the other program; called by the script of ``--install``."""
    tool = next(tool for tool in (KIND, K3D) if tool.name == name)
    exit_fast(partial(finish, partial(run, tool, sys.argv[1:])))


def run(tool: Tool, arguments: Sequence[str]) -> int:
    """Run a command line of the other program; return its exit status."""
    console = _Console(quiet=tool.is_quiet(arguments))
    try:
        meaning = tool.understand(arguments, os.environ)
        if isinstance(meaning, HandOver):
            return _hand_over(tool, arguments, meaning.why)
        if isinstance(meaning, Help):
            say(tool.help, nl=False)
            return console.show(UsageError(meaning.error)) if meaning.error else 0
        return _load(tool, meaning, attrs.evolve(console, verbosity=meaning.verbosity))
    except ImgloadError as error:
        return console.show(error)


@attrs.frozen
class _Console:
    """Writes to stderr as much as the flags of the other program ask for."""

    quiet: bool = False
    verbosity: int = 0

    def warn(self, line: str) -> None:
        """Write a line to sys.stderr, on which rich draws it above its bars."""
        if not self.quiet:
            text = sanitize(line) if sys.stderr.isatty() else click.unstyle(sanitize(line))
            sys.stderr.write(f"{text}\n")
            sys.stderr.flush()

    def inform(self, line: str) -> None:
        if self.verbosity >= 0:
            self.warn(line)

    def show(self, error: ImgloadError) -> int:
        """Print an error; return the exit status, which is the same for every error."""
        failures: list[tuple[str, ImgloadError | None]] = [(error.message, error)]
        if isinstance(error, LoadFailed):
            failures = [
                (f"failed to load image: {name} on {node.node}: {node.error_text}", node.error)
                for name, node in error.report.failures()
            ]
        elif isinstance(error, ImageNotFound):
            failures = [(f'image: "{error.image}" not present locally: {error.message}', error)]
        for message, cause in failures:
            self.warn(f"{style('ERROR', fg='red')}: {message}")
            if cause and cause.hint:
                self.warn(f"{style('  try:', fg='cyan')} {cause.hint}")
        return FAILED


def _load(tool: Tool, request: Request, console: _Console) -> int:
    from imgload.cli.output import note_text, show_report, watching  # noqa: PLC0415 - not to hand a call over
    from imgload.loader.events import Note  # noqa: PLC0415
    from imgload.tools.dropins.run import carry_out  # noqa: PLC0415

    for note in request.notes:
        console.warn(note)
    story, status = tool.story(request.images), 0

    def on_event(event: Event) -> None:
        for line in story.tell(event):
            console.inform(line)
        console.warn(note_text(event)) if isinstance(event, Note) else draw(event)

    with watching(silent=console.quiet or not sys.stderr.isatty()) as draw:
        results = list(carry_out(tool, request, on_event))
    for result in results:
        if isinstance(result, ImgloadError):
            status = console.show(result)
            continue
        for line in story.conclude(result):
            console.inform(line)
        if console.verbosity > 0 and not console.quiet:
            show_report(result, quiet=False, err=True)
    return status


def _hand_over(tool: Tool, arguments: Sequence[str], why: str) -> int:
    console, real = _Console(), find_real(tool.name)
    if real is None:
        problem = why or f"`{shlex.join([tool.name, *arguments])}` needs the real {tool.name}"
        message = f"{problem}, but there is no other {tool.name} on PATH"
        console.show(UsageError(message, hint=f"get it from {tool.homepage}"))
        return _NOT_FOUND
    if why:
        console.warn(f"{why}: running {real}")
    try:
        exec_real(real, arguments)
    except UsageError as error:
        console.show(error)
    return _NOT_RUNNABLE


kind = Dropin(
    KIND,
    """Run as kind: imgload does `kind load`.

    Takes kind's flags and variables, returns kind's exit statuses, and passes all other commands
    to the real kind. Installed as `kind` early on PATH, it serves Skaffold, Tilt and scripts
    unchanged.

    \b
    Examples:
      imgload kind --install ~/.local/bin              install imgload as `kind`
      imgload kind --uninstall ~/.local/bin            remove it
      imgload kind load docker-image app:dev           load into "kind"
      imgload kind load docker-image app:dev --name a  load into "a"
      imgload kind load image-archive app.tar          load an archive
      imgload kind get clusters                        run the real kind
    """,
)
k3d = Dropin(
    K3D,
    """Run as k3d: imgload does `k3d image import`.

    Passes all other commands to the real k3d. Installed as `k3d` early on PATH, it serves Skaffold,
    Tilt and scripts unchanged. Unlike in k3d, a failed import has exit status 1.

    \b
    Examples:
      imgload k3d --install ~/.local/bin            install imgload as `k3d`
      imgload k3d --uninstall ~/.local/bin          remove it
      imgload k3d image import app:dev              load into "k3s-default"
      imgload k3d image import app:dev db.tar -c a  load both into "a"
      docker save app | imgload k3d image import -  load an archive from a pipe
      imgload k3d cluster list                      run the real k3d
    """,
)
