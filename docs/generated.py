"""Generate the reference pages from the program, as Markdown."""

from __future__ import annotations

import inspect
import re
import textwrap
from collections.abc import Callable, Iterator

import click

import imgload
from imgload.cli.app import cli
from imgload.core import errors
from imgload.core.errors import ImgloadError

_STATUS = re.compile(r"^\s*(\d+)\s{2,}(\S.*)$", re.MULTILINE)
_TITLES = {
    "loader": "Load and verify",
    "engines": "Engines",
    "clusters": "Clusters",
    "nodes": "Nodes",
    "watch": "Watch",
    "inventory": "Images on nodes",
    "doctor": "Diagnosis",
    "remote_registry": "Registries",
    "core": "Errors and cache",
    "oci": "Names, digests and content",
    "sources": "Sources",
    "transports": "Transports",
}
"""The sections of the library's page, by the folder of the module."""
_PARTS = (
    "doctor.finding.Finding",
    "inventory.images.ListedImage",
    "inventory.images.NodeImage",
    "inventory.prune.Kept",
    "inventory.prune.NodePruned",
    "remote_registry.api.Hosting",
    "remote_registry.configure.NodeWiring",
    "remote_registry.push.PushedImage",
)
"""Values within results, which callers read and do not name."""


def commands() -> Iterator[tuple[click.Command, click.Context]]:
    """Yield every command with its context: the group, then the visible commands below it."""
    yield from _with_commands_below(
        cli, click.Context(cli, info_name="imgload", **cli.context_settings)
    )


def _with_commands_below(
    command: click.Command, context: click.Context
) -> Iterator[tuple[click.Command, click.Context]]:
    yield command, context
    for name, below in _visible(command, context):
        yield from _with_commands_below(below, click.Context(below, context, info_name=name))


def _visible(command: click.Command, context: click.Context) -> Iterator[tuple[str, click.Command]]:
    """Yield the visible commands of a group with their names; nothing for another command."""
    if not isinstance(command, click.Group):
        return
    for name in command.list_commands(context):
        below = command.get_command(context, name)
        if below and not below.hidden:
            yield name, below


def command_line() -> str:
    """Return every command with its text, options and examples."""
    return "\n".join(line for command, context in commands() for line in _command(command, context))


def _command(command: click.Command, context: click.Context) -> Iterator[str]:
    yield f"\n## {context.command_path}\n"
    yield f"```text\n{command.get_usage(context)}\n```\n"
    yield from map(_paragraph, paragraphs(command))
    yield "| option | meaning |\n| --- | --- |"
    yield from (_option(*record) for record in option_records(command, context))
    if isinstance(command, click.Group):
        yield "\n| command | effect |\n| --- | --- |"
        yield from (_row(f"{context.command_path} {n}", c) for n, c in _visible(command, context))


def paragraphs(command: click.Command) -> list[str]:
    """Return the paragraphs of a command's help; a preformatted one begins with a backspace."""
    text = inspect.cleandoc(command.help or "").partition("\f")[0]
    return [*text.split("\n\n"), *filter(None, [command.epilog])]


def _paragraph(text: str) -> str:
    """Return a paragraph of a help text; a preformatted one becomes a title and a code block."""
    if not text.startswith("\b"):
        return f"{text}\n"
    title, _, lines = text.removeprefix("\b").strip("\n").partition("\n")
    return f"{title}\n\n```text\n{textwrap.dedent(lines)}\n```\n"


def option_records(command: click.Command, context: click.Context) -> Iterator[tuple[str, str]]:
    """Yield the flags and the help of each documented parameter."""
    records = (parameter.get_help_record(context) for parameter in command.get_params(context))
    yield from (record for record in records if record and record[1])


def _option(flags: str, meaning: str) -> str:
    return f"| `{_cell(flags)}` | {_cell(meaning)} |"


def _row(path: str, command: click.Command) -> str:
    return f"| [`{path}`](#{path.replace(' ', '-')}) | {_cell(command.get_short_help_str(100))} |"


def _cell(text: str) -> str:
    return " ".join(text.split()).replace("|", "\\|")


def error_tables() -> str:
    """Return the exit statuses from the help, and the kinds of errors from the classes."""
    return "\n".join([*_statuses(), *_kinds(), *_tree()])


def _statuses() -> Iterator[str]:
    yield "\n## Exit statuses\n\n| status | meaning |\n| --- | --- |"
    yield from (f"| {n} | {meaning} |" for n, meaning in _STATUS.findall(cli.epilog or ""))


def _kinds() -> Iterator[str]:
    yield "\n## Kinds\n"
    yield "| kind | exit status | meaning | caught by |\n| --- | --- | --- | --- |"
    for error in error_classes():
        doc = inspect.cleandoc(error.__doc__ or "").partition("\n")[0]
        yield f"| `{_kind(error)}` | {error.exit_status} | {doc} | `{_public(error)}` |"


def error_classes() -> Iterator[type[ImgloadError]]:
    """Yield the error classes in the order of the tree, without the root."""
    for name in re.findall(r"[├└]── (\w+)", errors.__doc__ or ""):
        yield getattr(errors, name, None) or getattr(imgload, name)


def _public(error: type[ImgloadError]) -> str:
    """Return the name of the exported class that catches an error."""
    return next(f"imgload.{c.__name__}" for c in error.__mro__ if c.__name__ in imgload.__all__)


def _kind(error: type[ImgloadError]) -> str:
    return error.__new__(error).kind


def _tree() -> Iterator[str]:
    """Return the tree from the module's docstring."""
    drawn = inspect.cleandoc(errors.__doc__ or "").partition("::\n")[2]
    yield "\n## The tree\n\n```{eval-rst}\n.. py:module:: imgload.core.errors\n```\n"
    yield f"```text\n{inspect.cleandoc(drawn)}\n```\n"


def library() -> str:
    """Return every public name with its docstring, by the folder of its module."""
    names: dict[str, list[str]] = {folder: [] for folder in _TITLES}
    for name, module in vars(imgload)["_MODULES"].items():
        names[module.split(".")[-2]].append(name)
    parts = (f".. autoclass:: imgload.tools.{part}\n   :members:" for part in _PARTS)
    end = ["\n## Parts of results\n\n```{eval-rst}", *parts, "```\n"]
    lines = [line for folder in _TITLES for line in _section(folder, names[folder])]
    return "\n".join([*lines, *end])


def _section(folder: str, names: list[str]) -> Iterator[str]:
    yield f"\n## {_TITLES[folder]}\n\n```{{eval-rst}}"
    yield from map(_directive, sorted(names, key=lambda name: (name[0].isupper(), name)))
    yield "```\n"


def _directive(name: str) -> str:
    value = getattr(imgload, name)
    if inspect.isclass(value) and issubclass(value, Exception):
        return f".. autoexception:: imgload.{name}"
    if inspect.isclass(value):
        return f".. autoclass:: imgload.{name}\n   :members:"
    return f".. auto{'function' if inspect.isfunction(value) else 'data'}:: imgload.{name}"


PAGES: dict[str, Callable[[], str]] = {
    "reference/cli": command_line,
    "reference/errors": error_tables,
    "reference/library": library,
}
"""The generated text to append to each page."""
