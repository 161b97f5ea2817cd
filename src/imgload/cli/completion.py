"""``imgload completion``, and what the shells and kubectl call."""

from __future__ import annotations

import os
from collections.abc import Sequence

import click
from click.shell_completion import (
    BashComplete,
    CompletionItem,
    add_completion_class,
    get_completion_class,
    split_arg_string,
)

from imgload.cli.process import say

VARIABLE = "_IMGLOAD_COMPLETE"
_BREAKS = frozenset(":=@")
"""Where bash breaks words (COMP_WORDBREAKS); it replaces only what comes behind."""


@click.command(no_args_is_help=True)
@click.argument("shell", type=click.Choice(["bash", "zsh", "fish"]))
@click.pass_context
def completion(context: click.Context, shell: str) -> None:
    """Print the script that makes a shell complete imgload's arguments.

    Commands and options, and the names of images, clusters and nodes that are there.

    \b
    To install:
      bash  echo 'eval "$(imgload completion bash)"' >> ~/.bashrc
      zsh   echo 'eval "$(imgload completion zsh)"' >> ~/.zshrc      behind compinit
      fish  imgload completion fish > ~/.config/fish/completions/imgload.fish

    Where kubectl completes, `kubectl imgload` does so without that.
    """  # noqa: D301 - click's mark for a block that keeps its lines
    chosen = get_completion_class(shell)
    if chosen:
        command = context.find_root().command
        say(chosen(command, {}, "imgload", VARIABLE).source())


@add_completion_class
class Bash(BashComplete):
    """Bash, to which ``app:dev`` is three words, and so is ``--cluster=kind``."""

    _kept = 0

    def get_completion_args(self) -> tuple[list[str], str]:
        """Put together what bash took apart, and remember how much of it bash keeps."""
        place = int(os.environ["COMP_CWORD"])
        words = split_arg_string(os.environ["COMP_WORDS"])
        joined = joined_words([*words[:place], "".join(words[place : place + 1])])
        self._kept = kept(joined[-1])
        *arguments, incomplete = ("".join(parts) for parts in joined[1:])
        return arguments, incomplete

    def format_completion(self, item: CompletionItem) -> str:
        """Return a line of the answer, without what bash keeps."""
        value = item.value[self._kept :] if item.type == "plain" else item.value
        return f"{item.type},{value}"


def joined_words(words: Sequence[str]) -> list[list[str]]:
    """Return the parts of each word, around its ``:``, ``=`` and ``@``."""
    joined: list[list[str]] = []
    for word in words:
        broken = bool(word) and bool(joined) and (_breaks(word) or _breaks(joined[-1][-1]))
        if broken:
            joined[-1].append(word)
        else:
            joined.append([word])
    return joined


def kept(parts: Sequence[str]) -> int:
    """Return the length of what bash keeps of a value; an option's name is not part of that."""
    value = list(parts)
    if value[0].startswith("-") and "=" in value:
        value = value[value.index("=") + 1 :]
    last = len(value) if value and _breaks(value[-1]) else len(value) - 1
    return len("".join(value[: max(last, 0)]))


def _breaks(word: str) -> bool:
    return bool(word) and _BREAKS.issuperset(word)
