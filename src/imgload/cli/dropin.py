"""Standing in for another loader's program: its exit statuses, and its way to speak."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any, NoReturn, TypeVar

import click

from imgload.cli.app import finish
from imgload.cli.progress import watching
from imgload.cli.text import show_report
from imgload.errors import ImageNotFound, ImgloadError, LoadFailed, UsageError
from imgload.events import Event, Note
from imgload.integrations.program import find_real, hand_over, install, uninstall
from imgload.integrations.tool import HandOver, Help, Request, Tool, carry_out

_FAILED = 1
_NOT_RUNNABLE = 126
_NO_REAL_ONE = 127
Command = TypeVar("Command", bound=Callable[..., Any])
Say = Callable[[str], None]


class Verbatim(click.Command):
    """Leaves all arguments as they are, unless the first is an option of its own."""

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        """Parse nothing of what is the other program's."""
        own = {name for param in self.get_params(ctx) for name in param.opts}
        if not args or args[0].partition("=")[0] in own:
            return super().parse_args(ctx, args)
        ctx.params = {"to": None, "off": None, "arguments": tuple(args)}
        return []


def dropin_options(command: Command) -> Command:
    """Add ``--install`` and ``--uninstall``, as ``to`` and ``off``, and ``arguments``."""
    folder = click.Path(path_type=Path)
    to = click.option(
        "--install", "to", metavar="DIR", type=folder, help="Write a program there that does this."
    )
    off = click.option(
        "--uninstall", "off", metavar="DIR", type=folder, help="Take it away from there."
    )
    arguments = click.argument("arguments", nargs=-1, metavar="[ARGUMENT]...")
    return arguments(to(off(command)))


def stand_in(tool: Tool, arguments: Sequence[str], to: Path | None, off: Path | None) -> NoReturn:
    """Do what a call of the command says, and exit."""
    if bool(to) + bool(off) + bool(arguments) > 1:
        raise UsageError(
            "--install and --uninstall stand alone", hint=f"imgload {tool.name} --help"
        )
    if to:
        for line in install(tool.name, to):
            click.echo(line, err=True)
    elif off:
        click.echo(f"{uninstall(tool.name, off)} is removed", err=True)
    else:
        raise click.exceptions.Exit(run(tool, arguments))
    raise click.exceptions.Exit(0)


def serve(tool: Tool) -> NoReturn:
    """Be the other program: what `install` writes comes here."""
    finish(partial(run, tool, sys.argv[1:]))


def run(tool: Tool, arguments: Sequence[str]) -> int:
    """Do what the other program would do, and return its exit status; or become that program."""
    say = _say_nothing if tool.silenced(arguments) else _say
    try:
        meaning = tool.understand(arguments, os.environ)
        if isinstance(meaning, HandOver):
            return _hand_over(tool, arguments, meaning.why)
        if isinstance(meaning, Help):
            return _help(meaning, say)
        return _load(tool, meaning, say)
    except ImgloadError as error:
        return _show(error, say)


def _say(line: str) -> None:
    click.echo(line, err=True)


def _say_nothing(_line: str) -> None:
    """As ``--quiet`` wants it."""


def _help(asked: Help, say: Say) -> int:
    click.echo(asked.text, nl=False)
    return _show(UsageError(asked.error), say) if asked.error else 0


def _load(tool: Tool, request: Request, say: Say) -> int:
    for note in request.notes:
        say(note)
    story = tool.story(request)
    tell = say if request.verbosity >= 0 else _say_nothing
    status = 0
    with watching(silent=say is _say_nothing or not sys.stderr.isatty()) as draw:

        def on_event(event: Event) -> None:
            for line in story.tell(event):
                tell(line)
            say(f"note: {event.text}") if isinstance(event, Note) else draw(event)

        for result in carry_out(tool, request, on_event):
            if isinstance(result, ImgloadError):
                status = _show(result, say)
                continue
            for line in story.conclude(result):
                tell(line)
            if request.verbosity > 0 and say is _say:
                show_report(result, quiet=False)
    return status


def _hand_over(tool: Tool, arguments: Sequence[str], why: str) -> int:
    real = find_real(tool.name)
    if real is None:
        missing = f"there is no real {tool.name} on PATH, which this is for"
        hint = f"get it from {tool.homepage}"
        _show(UsageError(f"{why}; {missing}" if why else missing, hint=hint), _say)
        return _NO_REAL_ONE
    if why:
        _say(f"{why}: this is done by {real}")
    try:
        hand_over(real, arguments)
    except OSError as error:
        _show(UsageError(f"cannot run {real}: {error.strerror}"), _say)
    except UsageError as error:
        _show(error, _say)
    return _NOT_RUNNABLE


def _show(error: ImgloadError, say: Say) -> int:
    """Say what went wrong and what to do; the status is the same for everything."""
    for message, hint in _failures(error):
        say(f"{click.style('ERROR', fg='red')}: {message}")
        if hint:
            say(f"{click.style('  try:', fg='cyan')} {hint}")
    return _FAILED


def _failures(error: ImgloadError) -> list[tuple[str, str]]:
    if isinstance(error, LoadFailed):
        return [
            (f"failed to load image: {name} on {node.node}: {node.error_text}", _hint(node.error))
            for name, node in error.report.failures()
        ]
    if isinstance(error, ImageNotFound):
        return [(f'image: "{error.image}" not present locally: {error.message}', error.hint)]
    return [(error.message, error.hint)]


def _hint(error: ImgloadError | None) -> str:
    return error.hint if error else ""
