"""Standing in for another loader's program: its exit statuses, and its way to speak."""

from __future__ import annotations

import os
import shlex
import sys
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn, TypeVar

import attrs
import click

from imgload.cli.app import finish
from imgload.cli.process import quickly, say, shown, style
from imgload.core.errors import ImageNotFound, ImgloadError, UsageError
from imgload.loader.report import LoadFailed
from imgload.tools.dropins.install import find_real, hand_over, install, uninstall
from imgload.tools.dropins.tool import HandOver, Help, Request, Story, Tool

_FAILED = 1
_NOT_RUNNABLE = 126
_NO_REAL_ONE = 127
Command = TypeVar("Command", bound=Callable[..., Any])

if TYPE_CHECKING:
    from imgload.loader.events import Event
    from imgload.loader.report import Report


class Verbatim(click.Command):
    """Leaves all arguments as they are, unless the first is an option of its own."""

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        """Parse nothing of what is the other program's."""
        own = {name for param in self.get_params(ctx) for name in param.opts}
        if not args or args[0].partition("=")[0] in own:
            return super().parse_args(ctx, args)
        ctx.params = {"to": None, "off": None, "arguments": tuple(args)}
        return []


class _Folder(click.Path):
    """A folder; a variable that is not set is none, and not the working folder."""

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        """Return the path."""
        if not value:
            self.fail("it is empty", param, ctx)
        return super().convert(value, param, ctx)


def dropin_options(command: Command) -> Command:
    """Add ``--install`` and ``--uninstall``, as ``to`` and ``off``, and ``arguments``."""
    folder = _Folder(path_type=Path)
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
        for line in install(tool.name, tool.takes, to):
            say(line, err=True)
    elif off:
        say(f"{uninstall(tool.name, off)} is removed", err=True)
    else:
        raise click.exceptions.Exit(run(tool, arguments))
    raise click.exceptions.Exit(0)


def serve(tool: Tool) -> NoReturn:
    """Be the other program: what `install` writes comes here."""
    quickly(partial(finish, partial(run, tool, sys.argv[1:])))


def run(tool: Tool, arguments: Sequence[str]) -> int:
    """Do what the other program would do, and return its exit status; or become that program."""
    voice = _Voice(quiet=tool.silenced(arguments))
    try:
        meaning = tool.understand(arguments, os.environ)
        if isinstance(meaning, HandOver):
            return _hand_over(tool, arguments, meaning.why)
        if isinstance(meaning, Help):
            return _help(meaning, voice)
        return _load(tool, meaning, attrs.evolve(voice, verbosity=meaning.verbosity))
    except ImgloadError as error:
        return _show(error, voice)


@attrs.frozen
class _Voice:
    """How much is said on stderr."""

    quiet: bool = False
    verbosity: int = 0

    def warn(self, line: str) -> None:
        """Say what is wrong; rich draws it above its bars, since it is written to sys.stderr."""
        if not self.quiet:
            text = shown(line) if sys.stderr.isatty() else click.unstyle(shown(line))
            sys.stderr.write(f"{text}\n")
            sys.stderr.flush()

    def inform(self, line: str) -> None:
        """Say what goes on."""
        if self.verbosity >= 0:
            self.warn(line)


def _help(asked: Help, voice: _Voice) -> int:
    say(asked.text, nl=False)
    return _show(UsageError(asked.error), voice) if asked.error else 0


def _load(tool: Tool, request: Request, voice: _Voice) -> int:
    from imgload.cli.progress import watching  # noqa: PLC0415 - a call handed over needs none
    from imgload.tools.dropins.run import carry_out  # noqa: PLC0415

    for note in request.notes:
        voice.warn(note)
    story = tool.story(request)
    with watching(silent=voice.quiet or not sys.stderr.isatty()) as draw:
        listen = partial(_tell, story, voice, draw)
        results = list(carry_out(tool, request, listen))
    return max(_conclude(result, story, voice) for result in results)


def _tell(story: Story, voice: _Voice, draw: Callable[[Event], None], event: Event) -> None:
    from imgload.loader.events import Note  # noqa: PLC0415 - start-up

    for line in story.tell(event):
        voice.inform(line)
    voice.warn(f"note: {event.text}") if isinstance(event, Note) else draw(event)


def _conclude(result: Report | ImgloadError, story: Story, voice: _Voice) -> int:
    if isinstance(result, ImgloadError):
        return _show(result, voice)
    for line in story.conclude(result):
        voice.inform(line)
    if voice.verbosity > 0 and not voice.quiet:
        from imgload.cli.text import show_report  # noqa: PLC0415 - start-up

        show_report(result, quiet=False)
    return 0


def _hand_over(tool: Tool, arguments: Sequence[str], why: str) -> int:
    voice, real = _Voice(), find_real(tool.name)
    if real is None:
        command = shlex.join([tool.name, *arguments])
        problem = why or f"`{command}` is for the real {tool.name}"
        message = f"{problem}, and there is no other {tool.name} on PATH"
        _show(UsageError(message, hint=f"get it from {tool.homepage}"), voice)
        return _NO_REAL_ONE
    if why:
        voice.warn(f"{why}: {real} does this")
    try:
        hand_over(real, arguments)
    except OSError as error:
        message, hint = f"cannot run {real}: {error.strerror}", f"ls -lL {shlex.quote(str(real))}"
        _show(UsageError(message, hint=hint), voice)
    except UsageError as error:
        _show(error, voice)
    return _NOT_RUNNABLE


def _show(error: ImgloadError, voice: _Voice) -> int:
    """Say what went wrong and what to do; the status is the same for everything."""
    for message, hint in _failures(error):
        voice.warn(f"{style('ERROR', fg='red')}: {message}")
        if hint:
            voice.warn(f"{style('  try:', fg='cyan')} {hint}")
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
