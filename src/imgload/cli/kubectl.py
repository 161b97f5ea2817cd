"""Shell completion for the kubectl plugin."""

from __future__ import annotations

import sys
from functools import partial
from typing import NoReturn

from click.shell_completion import ShellComplete

from imgload.cli.app import cli, finish
from imgload.cli.process import exit_fast, say


def kubectl() -> NoReturn:
    """Run ``kubectl_complete-imgload``, which kubectl calls with the words typed so far."""
    exit_fast(partial(finish, print_candidates))


def print_candidates() -> None:
    *arguments, incomplete = sys.argv[1:] or [""]
    items = ShellComplete(cli, {}, "imgload", "").get_completions(arguments, incomplete)
    for item in items:
        if item.type == "plain":
            say(item.value)
    say(":0" if any(item.type == "file" for item in items) else ":4")  # cobra's ShellCompDirective
