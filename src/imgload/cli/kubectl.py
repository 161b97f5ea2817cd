"""Shell completion for the kubectl plugin."""

from __future__ import annotations

import sys
from functools import partial
from typing import NoReturn

from click.shell_completion import ShellComplete

from imgload.cli.app import cli, finish
from imgload.cli.process import exit_fast, say

_NO_FILES, _FILES = ":4", ":0"
"""cobra's ShellCompDirective."""


def kubectl() -> NoReturn:
    """Run ``kubectl_complete-imgload``, which kubectl calls with the words typed so far."""
    exit_fast(partial(finish, print_candidates))


def print_candidates() -> None:
    """Print the candidates for the words in ``sys.argv``, in cobra's format."""
    *arguments, incomplete = sys.argv[1:] or [""]
    items = ShellComplete(cli, {}, "imgload", "").get_completions(arguments, incomplete)
    for item in items:
        if item.type == "plain":
            say(item.value)
    say(_FILES if any(item.type == "file" for item in items) else _NO_FILES)
