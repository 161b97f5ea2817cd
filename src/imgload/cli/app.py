"""The command group, and what every command shares: exit status and how errors are shown."""

from __future__ import annotations

import os
import signal
import sys
import time
from collections.abc import Callable
from importlib import import_module
from io import StringIO
from types import FrameType
from typing import NoReturn

import click

from imgload import __version__
from imgload.cli.process import colors, quickly, say, style, unwritten
from imgload.core.errors import ImgloadError, UsageError

_INTERRUPTED = 130
_CLEANING_SECONDS = 2.0
_SETTINGS = {"help_option_names": ["-h", "--help"], "max_content_width": 100}
_COMMANDS = {
    "load": "Put images on every node, and prove it.",
    "verify": "Read back whether every node has exactly these images.",
    "watch": "Load each image the moment it is built or tagged.",
    "clusters": "List the clusters that can be loaded, with their nodes.",
    "doctor": "Say what is wrong between here and the nodes, and the command that changes it.",
    "images": "Which images the nodes have, and what they take.",
    "prune": "Remove old builds from the nodes.",
    "registry": "Have the nodes pull from a registry, and push to it.",
    "skaffold": "A Skaffold custom builder: build, load, and prove what Skaffold deploys.",
    "kind": "Take kind's arguments: do `kind load`, hand the rest to kind.",
    "k3d": "Take k3d's arguments: do `k3d image import`, hand the rest to k3d.",
    "completion": "Print the script that completes arguments in bash, zsh or fish.",
}
"""Each is the module and the function ``imgload.cli.NAME.NAME``."""


class _Commands(click.Group):
    """Imports a command when it is called: start-up is part of every load."""

    def list_commands(self, _ctx: click.Context) -> list[str]:
        """Return the names in the order of the help."""
        return list(_COMMANDS)

    def get_command(self, _ctx: click.Context, cmd_name: str) -> click.Command | None:
        """Return ``imgload.cli.NAME``'s command of the same name."""
        if cmd_name not in _COMMANDS:
            return None
        found: click.Command = getattr(import_module(f"imgload.cli.{cmd_name}"), cmd_name)
        return found

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        """Find a command, or say which one may be meant."""
        try:
            return super().resolve_command(ctx, args)
        except click.UsageError as error:
            from difflib import get_close_matches  # noqa: PLC0415 - start-up

            for close in get_close_matches(args[0], _COMMANDS, 1):
                raise click.UsageError(f"{error.message} Did you mean '{close}'?", ctx) from None
            raise

    def format_commands(self, _ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Write the list without importing what is in it."""
        with formatter.section("Commands"):
            formatter.write_dl(list(_COMMANDS.items()))


@click.group(
    cls=_Commands,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100},
)
@click.version_option(__version__, "-V", "--version", message="imgload %(version)s")
def cli() -> None:
    """Put locally built images on the nodes of a local Kubernetes cluster, and prove it.

    \b
    Examples:
      imgload load app:dev                  into the current kube context's cluster
      imgload load app:dev --cluster kind   into this one
      imgload load --help                   for more

    \b
    Exit status:
      0  every node is proven to have every image
      1  some node failed; the others were done
      2  wrong usage
      3  image not found, or ambiguous
      4  cluster or node not found
      5  container engine or registry unreachable, or not permitted
      6  the source is invalid: corrupt archive, digest mismatch, no such platform
    130  interrupted by Ctrl-C or SIGTERM, after cleaning up
    """  # noqa: D301 - click's mark for a block that keeps its lines


def program() -> NoReturn:
    """Be the program; ``kubectl imgload`` and ``python -m imgload`` come here, too."""
    quickly(main)


def main() -> NoReturn:
    """Run the command line and exit."""
    finish(_run)


def _run() -> int | None:
    """Run a command; what click finds wrong with the call is told in the format asked for."""
    try:
        status: int | None = cli(prog_name="imgload", standalone_mode=False, color=colors())
    except click.UsageError as error:
        from imgload.cli.output import asked_for, failures  # noqa: PLC0415 - start-up

        output = asked_for(sys.argv[1:])
        if output == "text":
            raise
        command = error.ctx.command_path if error.ctx else "imgload"
        with failures(output, quiet=False):
            raise UsageError(error.format_message(), hint=f"{command} --help") from error
    return status


def finish(run: Callable[[], int | None]) -> NoReturn:
    """Run to the end, show what went wrong, and exit with the status that it has."""
    heed_signals()
    if "_IMGLOAD_COMPLETE" in os.environ:
        import_module("imgload.cli.completion")
    with click.Context(cli, color=colors()).scope(cleanup=False):
        status = _status_of(run)
    sys.exit(status)


def _status_of(run: Callable[[], int | None]) -> int:
    try:
        return run() or 0
    except click.exceptions.Exit as request:
        return request.exit_code
    except click.ClickException as error:
        error.show(text := StringIO())
        say(text.getvalue(), err=True, nl=False)
        return error.exit_code
    except ImgloadError as error:
        show_error(error)
        return error.exit_status
    except (click.Abort, KeyboardInterrupt):
        say("interrupted", err=True)
        return _INTERRUPTED
    except OSError as error:
        return unwritten(error)


class Interruption:
    """Takes SIGINT and SIGTERM for Ctrl-C, and is deaf for a moment after the first.

    A terminal's Ctrl-C reaches a whole process group, and programs in it pass it on besides; a
    second one must not cut short what the first one cleans up.
    """

    def __init__(self) -> None:
        self._since = -_CLEANING_SECONDS

    def __call__(self, _number: int, _frame: FrameType | None) -> None:
        """Raise KeyboardInterrupt, unless that was done just now."""
        now = time.monotonic()
        if now - self._since >= _CLEANING_SECONDS:
            self._since = now
            raise KeyboardInterrupt


def heed_signals() -> None:
    """Have SIGTERM and SIGINT raise KeyboardInterrupt; a SIGINT that is ignored stays so."""
    interruption = Interruption()
    signal.signal(signal.SIGTERM, interruption)
    if signal.getsignal(signal.SIGINT) is not signal.SIG_IGN:
        signal.signal(signal.SIGINT, interruption)


def show_error(error: ImgloadError) -> None:
    """Print an error and what to do about it."""
    say(style("error: ", fg="red", bold=True) + error.message, err=True)
    if error.hint:
        say(style("  try: ", fg="cyan") + error.hint, err=True)
