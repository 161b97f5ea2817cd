"""Shell completion for the kubectl plugin."""

from __future__ import annotations

import sys
from functools import partial
from typing import NoReturn

from click.shell_completion import ShellComplete

from imgload.cli.process import quickly, say

_NO_FILES, _FILES = ":4", ":0"
"""cobra's ShellCompDirective."""


def kubectl() -> NoReturn:
    """Complete for kubectl, which calls ``kubectl_complete-imgload`` with the words so far."""
    from imgload.cli.app import finish  # noqa: PLC0415 - it is the other way round else

    quickly(partial(finish, answer_kubectl))


def answer_kubectl() -> None:
    """Print the answer to the program's arguments."""
    from imgload.cli.app import cli  # noqa: PLC0415 - as above

    *arguments, incomplete = sys.argv[1:] or [""]
    found = ShellComplete(cli, {}, "imgload", "").get_completions(arguments, incomplete)
    for item in found:
        if item.type == "plain":
            say(item.value)
    say(_FILES if any(item.type == "file" for item in found) else _NO_FILES)
