"""Several commands in one exec: starting an exec costs more than most of what runs in it.

The script is made of positional parameters only; no argument ever becomes shell text.
"""

from __future__ import annotations

import re
import secrets
from collections.abc import Sequence

import attrs

NOT_FOUND = 127


@attrs.frozen
class Output:
    """How one command of a batch ended."""

    exit_status: int
    stdout: bytes

    @property
    def text(self) -> str:
        """The output as text."""
        return self.stdout.decode(errors="replace")


def batch_argv(commands: Sequence[Sequence[str]]) -> tuple[list[str], str]:
    """Return the argv of one shell that runs all commands in turn, and the marker it prints.

    The marker cannot be guessed, so no output can be taken for it.
    """
    marker = secrets.token_hex(16)
    lines: list[str] = []
    position = 1
    for command in commands:
        words = " ".join(f'"${{{position + i}}}"' for i in range(1, len(command) + 1))
        lines.append(f'{words}; printf "\\n%s %d\\n" "$1" $?')
        position += len(command)
    arguments = [word for command in commands for word in command]
    return ["sh", "-c", "\n".join(lines), "imgload", marker, *arguments], marker


def parse_batch(stdout: bytes, marker: str, count: int) -> list[Output]:
    """Return each command's output; fewer than `count` when the shell was cut short."""
    parts = re.split(rb"\n%s (\d+)\n" % marker.encode(), stdout)
    pairs = zip(parts[0::2], parts[1::2], strict=False)
    return [Output(int(status), text) for text, status in pairs][:count]
