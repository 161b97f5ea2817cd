"""The ``imgload`` command group: exit statuses, error messages and signals of every command."""

from __future__ import annotations

import os
import shlex
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
from imgload.cli.process import colors, exit_fast, report_write_error, say, style
from imgload.core.errors import ImgloadError, UsageError

_CLEANUP_SECONDS = 2.0
_COMMANDS = {
    "load": "Load images onto every node and verify them.",
    "verify": "Check that every node has exactly these images.",
    "restore": "Load images again after a cluster was recreated.",
    "watch": "Load each image as soon as it is built or tagged.",
    "serve": "Let nodes pull local builds by themselves.",
    "clusters": "List local clusters and their nodes.",
    "doctor": "Diagnose problems between this machine and the nodes.",
    "images": "List the images on the nodes.",
    "prune": "Remove old builds from the nodes.",
    "registry": "Connect nodes to a registry, and push images to it.",
    "skaffold": "Build and load an image for Skaffold.",
    "kind": "Run as kind: imgload does `kind load`.",
    "k3d": "Run as k3d: imgload does `k3d image import`.",
    "completion": "Print a completion script for bash, zsh or fish.",
    "help": "Show the help of a command.",
    "version": "Print the version.",
}
_SETTINGS = {"help_option_names": ["-h", "--help"], "max_content_width": 80}
_MODULES = {
    "verify": "load",
    "clusters": "environment",
    "doctor": "environment",
    "prune": "images",
    "kind": "dropin",
    "k3d": "dropin",
}
"""Other commands are ``imgload.cli.NAME.NAME``. A module is imported when its command runs."""
_REGISTRY = ("connect", "disconnect", "push")
_CONFIGURABLE = {
    *("load", "verify", "restore", "watch", "serve", "doctor", "images", "prune", "registry"),
}
"""The commands whose options have defaults in imgload.toml files."""
_CUTOFF = 0.7
"""The similarity, from 0 to 1, from which an option is suggested in place of another."""


class _Commands(click.Group):
    def list_commands(self, _ctx: click.Context) -> list[str]:
        return list(_COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        if cmd_name in _OWN:
            return _OWN[cmd_name]
        if cmd_name in _COMMANDS:
            module = import_module(f"imgload.cli.{_MODULES.get(cmd_name, cmd_name)}")
            command: click.Command = getattr(module, cmd_name)
            return command
        from difflib import get_close_matches  # noqa: PLC0415 - start-up

        for name in get_close_matches(cmd_name, () if ctx.resilient_parsing else _COMMANDS, 1):
            raise click.UsageError(f"No such command '{cmd_name}'; did you mean '{name}'?", ctx)
        return None

    def format_options(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        self.format_commands(ctx, formatter)
        click.Command.format_options(self, ctx, formatter)

    def format_commands(self, _ctx: click.Context, formatter: click.HelpFormatter) -> None:
        with formatter.section("Commands"):
            formatter.write_dl(list(_COMMANDS.items()))


_EXIT_STATUS = """\b
Exit status:
  0  every image is verified on every node
  1  some nodes failed; the others are done
  2  wrong usage
  3  image not found, or ambiguous
  4  cluster or node not found
  5  container engine or registry unreachable, or permission denied
  6  invalid source: corrupt archive, digest mismatch, platform missing
130  interrupted by Ctrl-C or SIGTERM, after cleaning up
141  the output was closed before its end, as by | head -1
"""


@click.group(cls=_Commands, context_settings=_SETTINGS, epilog=_EXIT_STATUS)
@click.version_option(__version__, "-V", "--version", message="imgload %(version)s")
@click.pass_context
def cli(context: click.Context) -> None:
    """Load locally built images into local Kubernetes clusters.

    Every image is verified on every node.

    \b
    Examples:
      imgload load app:dev                 load into the kube context's cluster
      imgload load app:dev --cluster kind  load into the cluster "kind"
      imgload help load                    show all options of a command
    """
    if context.invoked_subcommand in _CONFIGURABLE:
        from imgload.cli.settings import read_settings  # noqa: PLC0415 - not for drop-ins

        if defaults := read_settings():
            context.default_map = dict.fromkeys(_CONFIGURABLE, defaults)
            context.default_map["registry"] = dict.fromkeys(_REGISTRY, defaults)


@click.command("help")
@click.argument("names", nargs=-1, metavar="[COMMAND]...")
def _help(names: tuple[str, ...]) -> None:
    """Show the help of a command."""
    command: click.Command | None = cli
    context = click.Context(cli, info_name="imgload", **_SETTINGS)  # type: ignore[arg-type]
    for name in names:
        group = command if isinstance(command, click.Group) else None
        command = group.get_command(context, name) if group else None
        if command is None:
            raise click.UsageError(f"No such command '{name}'.", context)
        context = click.Context(command, context, name, **_SETTINGS)  # type: ignore[arg-type]
    say(context.get_help())


@click.command("version")
def _version() -> None:
    """Print the version."""
    say(f"imgload {__version__}")


_OWN = {"help": _help, "version": _version}


def program() -> NoReturn:
    """Run ``imgload``, ``kubectl imgload`` or ``python -m imgload``."""
    exit_fast(main)


def main() -> NoReturn:
    finish(_run)


def _run() -> int | None:
    try:
        status: int | None = cli(prog_name="imgload", standalone_mode=False, color=colors())
    except (click.UsageError, UsageError) as error:
        from imgload.cli.output import failures, requested_format  # noqa: PLC0415 - start-up

        output = requested_format(sys.argv[1:])
        if isinstance(error, click.UsageError) and type(error).__name__ == "NoArgsIsHelpError":
            say(error.format_message())  # as gh and kind do; click's status is 2, on stderr
            return 0
        words = [word for word in sys.argv[1:] if word in _COMMANDS]
        context = error.ctx if isinstance(error, click.UsageError) else None
        command = (context and context.info_name) or next(iter(words), "")
        with failures(output, quiet=False, command=command):
            raise (error if isinstance(error, UsageError) else _usage_error(error)) from error
    return status


def _usage_error(error: click.UsageError) -> UsageError:
    """Return click's error in the style of all other errors."""
    command = error.ctx.command_path if error.ctx else "imgload"
    message, hint = " ".join(error.format_message().split()), f"{command} --help"
    if isinstance(error, click.NoSuchOption):
        from difflib import get_close_matches  # noqa: PLC0415 - start-up

        message = f"no such option: {error.option_name}"
        close = get_close_matches(error.option_name, error.possibilities or (), 1, _CUTOFF)
        if close:
            hint = f"{shlex.quote(close[0])}; all options: {hint}"
        elif error.ctx and error.ctx.command is cli:
            option = shlex.quote(error.option_name)
            hint = f"write options after the command: imgload load {option}; commands: {hint}"
    return UsageError(message[:1].lower() + message[1:].rstrip("."), hint=hint)


def finish(run: Callable[[], int | None]) -> NoReturn:
    """Call `run`, show its error if it raises one, and exit with its status."""
    handle_signals()
    if "_IMGLOAD_COMPLETE" in os.environ:
        import_module("imgload.cli.completion")
    with click.Context(cli, color=colors()).scope(cleanup=False):
        try:
            status = run() or 0
        except click.exceptions.Exit as request:
            status = request.exit_code
        except click.ClickException as error:
            error.show(text := StringIO())
            say(text.getvalue(), err=True, nl=False)
            status = error.exit_code
        except ImgloadError as error:
            say(style("error: ", fg="red", bold=True) + error.message, err=True)
            if error.hint:
                say(style("  try: ", fg="cyan") + error.hint, err=True)
            status = error.exit_status
        except (click.Abort, KeyboardInterrupt):
            say("interrupted", err=True)
            status = 130  # 128 + SIGINT, as in shells
        except OSError as error:
            status = report_write_error(error)
    sys.exit(status)


def handle_signals() -> None:
    """Raise KeyboardInterrupt on SIGTERM and SIGINT, but at most once in two seconds.

    A terminal sends Ctrl-C to the whole process group, and programs in it forward it as well. The
    second signal must not cut short the cleanup that the first one started. An ignored SIGINT
    stays ignored.
    """
    last = -_CLEANUP_SECONDS

    def interrupt(_number: int, _frame: FrameType | None) -> None:
        nonlocal last
        now = time.monotonic()
        if now - last >= _CLEANUP_SECONDS:
            last = now
            raise KeyboardInterrupt

    signal.signal(signal.SIGTERM, interrupt)
    if signal.getsignal(signal.SIGINT) is not signal.SIG_IGN:
        signal.signal(signal.SIGINT, interrupt)
