"""The man page and the completion scripts of a wheel, generated from the commands.

`release/hatch_build.py` adds them to each wheel; pip installs them below the environment.
"""

from __future__ import annotations

import inspect
from collections.abc import Iterator

from click.shell_completion import FishComplete, ZshComplete

import imgload
from docs.generated import commands, option_records, paragraphs
from imgload.cli.app import cli
from imgload.cli.completion import VARIABLE, Bash

MAN_PAGE = "share/man/man1/imgload.1"
_COMPLETIONS = {
    "share/bash-completion/completions/imgload": Bash,
    "share/zsh/site-functions/_imgload": ZshComplete,
    "share/fish/vendor_completions.d/imgload.fish": FishComplete,
}
"""The folders below a prefix in which each shell looks for scripts of packages."""


def shared_files() -> dict[str, str]:
    """Return the texts by their path below the prefix."""
    scripts = {
        path: completer(cli, {}, "imgload", VARIABLE).source()
        for path, completer in _COMPLETIONS.items()
    }
    return {MAN_PAGE: man_page(), **scripts}


def man_page() -> str:
    """Return one page with every command, in the macros of man(7)."""
    return "".join(f"{line}\n" for line in _lines())


def _lines() -> Iterator[str]:
    summary = inspect.cleandoc(imgload.__doc__ or "").rstrip(".")
    yield f'.TH IMGLOAD 1 "" "imgload {imgload.__version__}" "User Commands"'
    yield ".SH NAME"
    yield _escape(f"imgload - {summary[0].lower()}{summary[1:]}")
    for command, context in commands():
        is_root = context.parent is None
        if is_root:
            yield ".SH SYNOPSIS"
        else:
            yield f".SS {_escape(context.command_path)}"
        yield f".B {_escape(command.get_usage(context).removeprefix('Usage: '))}"
        if is_root:
            yield ".SH DESCRIPTION"
        for paragraph in paragraphs(command):
            yield ".PP"
            yield from _paragraph(paragraph)
        for flags, meaning in option_records(command, context):
            yield from (".TP", f".B {_escape(flags)}", _escape(" ".join(meaning.split())))
        if is_root:
            yield ".SH COMMANDS"


def _paragraph(text: str) -> Iterator[str]:
    if not text.startswith("\b"):
        yield _escape(" ".join(text.split()))
        return
    yield ".nf"
    yield from map(_escape, text.removeprefix("\b").strip("\n").splitlines())
    yield ".fi"


def _escape(line: str) -> str:
    """Return a line in which roff finds no request and no escape sequence."""
    text = line.replace("\\", "\\e").replace("-", "\\-")
    return f"\\&{text}" if text.startswith((".", "'")) else text
