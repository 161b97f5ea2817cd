"""Several commands in one exec: starting an exec costs more than most of what runs in it.

The script is made of positional parameters only; no argument ever becomes shell text. Groups of
commands run side by side: each command is a process of its own that mostly waits for containerd.
"""

from __future__ import annotations

import re
import secrets
from collections.abc import Iterator, Sequence

import attrs

NOT_FOUND = 127
_UNLESS_FAILED = "[ $status = 0 ] || exit $status"
_MOST_SCRIPT = 96 << 10
"""Bytes; Linux takes at most 128 KiB for one argument (execve(2), MAX_ARG_STRLEN)."""
_MOST_WORDS = 1 << 20
"""Bytes; Linux takes at most 2 MiB for all arguments where the stack may have its usual 8 MiB."""
_PER_COMMAND = 45
_PER_WORD = 11
_POINTER = 9


@attrs.frozen
class Output:
    """How one command of a batch ended."""

    exit_status: int
    stdout: bytes

    @property
    def text(self) -> str:
        """The output as text."""
        return self.stdout.decode(errors="replace")


Group = Sequence[Sequence[str]]


def batch_argv(*groups: Group, before: Group = ()) -> tuple[list[str], str]:
    """Return the argv of one shell that runs all commands, and the marker it prints.

    The marker cannot be guessed, so no output can be taken for it.

    Args:
        groups: run side by side, the commands of each in turn. The shell keeps the output of all
            but the last in memory, without NUL bytes; the last may print anything, and much.
        before: commands to run before all of them, in turn; they have the exec's standard input.
            One that fails is the last, and its exit status the shell's: it may not have read all.

    """
    marker = secrets.token_hex(16)
    commands = [*before, *(command for group in groups for command in group)]
    lines = _lines(commands)
    first = "".join(f"{next(lines)}\n{_UNLESS_FAILED}\n" for _ in before)
    script = first + _script([[next(lines) for _ in group] for group in groups if group])
    words = [word for command in commands for word in command]
    return ["sh", "-c", script, "imgload", marker, *words], marker


def _lines(commands: Group) -> Iterator[str]:
    """Yield for each command the line that runs it, and prints marker, number and exit status."""
    position = 1
    for number, command in enumerate(commands):
        words = " ".join(f'"${{{position + i}}}"' for i in range(1, len(command) + 1))
        yield f'{words}; status=$?; printf "\\n%s {number} %d\\n" "$1" $status'
        position += len(command)


def _script(groups: Sequence[Sequence[str]]) -> str:
    """Return a script that prints the output of each group in their order.

    The last one's waits in the pipe until those before have ended.
    """
    first = "\n".join(groups[0]) if groups else ""
    if len(groups) <= 1:
        return first
    kept = f"kept=$({{ {first}\n}} </dev/null)"
    return f"{{ {_script(groups[1:])}\n}} | {{ {kept}; printf '%s\\n' \"$kept\"; cat; }}"


def in_parts(groups: Sequence[Group]) -> Iterator[list[list[Sequence[str]]]]:
    """Split groups, where they are too much for one exec, into several; their order stays."""
    part: list[list[Sequence[str]]] = []
    script = words = 0
    for group in groups:
        part.append([])
        for command in group:
            script += _PER_COMMAND + _PER_WORD * len(command)
            words += _size(command)
            if (script > _MOST_SCRIPT or words > _MOST_WORDS) and any(part):
                yield part
                part = [[]]
                script, words = _PER_COMMAND + _PER_WORD * len(command), _size(command)
            part[-1].append(command)
    if any(part):
        yield part


def _size(command: Sequence[str]) -> int:
    return sum(len(word.encode()) + _POINTER for word in command)


def parse_batch(stdout: bytes, marker: str, count: int) -> list[Output]:
    """Return each command's output; fewer than `count` when the shell was cut short."""
    parts = re.split(rb"\n%s (\d+) (\d+)\n" % marker.encode(), stdout)
    found: list[Output] = []
    for text, number, status in zip(parts[0::3], parts[1::3], parts[2::3], strict=False):
        if int(number) != len(found):
            break
        found.append(Output(int(status), text))
    return found[:count]
