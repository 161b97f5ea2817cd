"""Generate the reference pages from the program, as Markdown."""

from __future__ import annotations

import inspect
import re
from collections.abc import Callable, Iterator
from importlib import import_module

import click

import imgload
from imgload.cli.app import cli
from imgload.core import errors
from imgload.core.errors import ImgloadError

_STATUS = re.compile(r"^\s*(\d+)\s{2,}(\S.*)$", re.MULTILINE)
_TITLES = {
    "imgload.clusters.select": "Clusters",
    "imgload.loader.api": "Functions",
    "imgload.tools.remote_registry.api": "Registries",
}


def command_line() -> str:
    """Return every command with its text, options and examples."""
    return "\n".join(_command(cli, click.Context(cli, info_name="imgload", **cli.context_settings)))


def _command(command: click.Command, context: click.Context) -> Iterator[str]:
    yield f"\n## {context.command_path}\n"
    yield f"```text\n{command.get_usage(context)}\n```\n"
    yield from map(_paragraph, _paragraphs(command.help or ""))
    yield "| option | meaning |\n| --- | --- |"
    yield from (_option(*record) for record in _options(command, context))
    if isinstance(command, click.Group):
        for name in command.list_commands(context):
            below = command.get_command(context, name)
            if below and not below.hidden:
                yield from _command(below, click.Context(below, context, info_name=name))


def _paragraphs(text: str) -> list[str]:
    return inspect.cleandoc(text).partition("\f")[0].split("\n\n")


def _paragraph(text: str) -> str:
    """Return a paragraph of a help text; a preformatted one becomes a title and a code block."""
    if not text.startswith("\b"):
        return f"{text}\n"
    title, _, lines = text.removeprefix("\b").strip("\n").partition("\n")
    return f"{title}\n\n```text\n{inspect.cleandoc(lines)}\n```\n"


def _options(command: click.Command, context: click.Context) -> Iterator[tuple[str, str]]:
    records = (parameter.get_help_record(context) for parameter in command.get_params(context))
    yield from (record for record in records if record and record[1])


def _option(flags: str, meaning: str) -> str:
    return f"| `{_cell(flags)}` | {_cell(meaning)} |"


def _cell(text: str) -> str:
    return " ".join(text.split()).replace("|", "\\|")


def error_tables() -> str:
    """Return the exit statuses from the help, and the kinds of errors from the classes."""
    return "\n".join([*_statuses(), *_kinds(), *_tree()])


def _statuses() -> Iterator[str]:
    yield "\n## Exit statuses\n\n| status | meaning |\n| --- | --- |"
    yield from (f"| {n} | {meaning} |" for n, meaning in _STATUS.findall(cli.help or ""))


def _kinds() -> Iterator[str]:
    yield "\n## Kinds\n"
    yield "| kind | exit status | meaning | in Python |\n| --- | --- | --- | --- |"
    for error in error_classes():
        doc = inspect.cleandoc(error.__doc__ or "").partition("\n")[0]
        yield f"| `{_kind(error)}` | {error.exit_status} | {doc} | `imgload.{error.__name__}` |"


def error_classes() -> Iterator[type[ImgloadError]]:
    """Yield the public error classes in the order of the tree, without the root."""
    for name in re.findall(r"[├└]── (\w+)", errors.__doc__ or ""):
        yield getattr(imgload, name)


def _kind(error: type[ImgloadError]) -> str:
    return error.__new__(error).kind


def _tree() -> Iterator[str]:
    """Return the tree from the module's docstring."""
    drawn = inspect.cleandoc(errors.__doc__ or "").partition("::\n")[2]
    yield "\n## The tree\n\n```{eval-rst}\n.. py:module:: imgload.core.errors\n```\n"
    yield f"```text\n{inspect.cleandoc(drawn)}\n```\n"


def library() -> str:
    """Return every public name with its docstring, by module."""
    homes: dict[str, list[str]] = {}
    for name, home in vars(imgload)["_MODULES"].items():
        homes.setdefault(home, []).append(name)
    return "\n".join(line for home, names in homes.items() for line in _home(home, names))


def _home(module: str, names: list[str]) -> Iterator[str]:
    title = module.rpartition(".")[2].capitalize()
    yield f"\n## {_TITLES.get(module, title)}\n"
    yield _paragraphs(import_module(module).__doc__ or "")[0]
    yield "\n```{eval-rst}"
    yield from map(_directive, names)
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
