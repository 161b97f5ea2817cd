"""Several commands in one exec, since starting an exec costs more than most commands.

The script consists of positional parameters only; no argument ever becomes shell text. Groups of
commands run in parallel: each command is a process that mostly waits for containerd.
"""

from __future__ import annotations

import re
import secrets
from collections.abc import Iterator, Sequence

import attrs

NOT_FOUND = 127
KEEPALIVE_SECONDS = 20.0
_MAX_BYTES = 96 << 10
"""Linux takes at most 128 KiB for one argument, here the script (execve(2), MAX_ARG_STRLEN)."""
_PER_COMMAND, _PER_WORD = 45, 20
"""Bytes in the script and of the pointer."""


@attrs.frozen
class Output:
    """The exit status and the output of one command of a batch."""

    exit_status: int
    stdout: bytes

    @property
    def text(self) -> str:
        return self.stdout.decode(errors="replace")


Group = Sequence[Sequence[str]]
_WITH_REASON = (
    'exec 3>&1; output=$("$@" 2>&1 >&3 3>&-) && exit; status=$?; printf %s "$output"; exit $status'
)
WHILE_DISK_FILLS = 'now=$(df -Pk "$folder" 2>/dev/null)'
"""For `keepalive_command`: progress is a change of the disk of `$folder`."""


def with_reason(command: Sequence[str]) -> tuple[str, ...]:
    """Return a command that prints the stderr of another that fails: a batch keeps only stdout."""
    return ("sh", "-c", _WITH_REASON, command[0], *command)


def keepalive_command(work: str, progress: str, *words: str) -> tuple[str, ...]:
    """Return a command that prints empty lines while another makes progress: silence is a stall.

    `work` is shell text that ends with the other command. `progress` sets `now`, to another value
    after progress (`$work` is the process ID); when it fails, no more lines are printed. `words`
    are the positional parameters of both. `work` may open file descriptor 3.
    """
    script = f"""
every=$1
shift
{work.strip()} & work=$!
while sleep "$every" >/dev/null && {progress}
do [ "$now" = "$was" ] || echo; was=$now; done </dev/null 2>/dev/null 3>&- & watch=$!
wait $work
status=$?
kill $watch
exit $status
"""
    return ("sh", "-c", script, "imgload", f"{KEEPALIVE_SECONDS:g}", *words)


def batch_argv(*groups: Group, before: Group = ()) -> tuple[list[str], str]:
    """Return the argv of a shell that runs commands, and the marker it prints between outputs.

    The marker cannot be guessed, so no output can be mistaken for it. Groups run in parallel, the
    commands of one group in sequence. The shell keeps the output of all groups but the last in
    memory, without NUL bytes; only the last may print any bytes, and many. The commands in `before`
    run first, in sequence, and have the exec's standard input. If one fails, the shell exits with
    its status, since it may not have read its whole input.
    """
    marker = secrets.token_hex(16)
    commands = [*before, *(command for group in groups for command in group)]
    lines = _lines(commands)
    first = "".join(f"{next(lines)}\n[ $status = 0 ] || exit $status\n" for _ in before)
    script = first + _script([[next(lines) for _ in group] for group in groups if group])
    words = [word for command in commands for word in command]
    return ["sh", "-c", script, "imgload", marker, *words], marker


def _lines(commands: Group) -> Iterator[str]:
    """Yield for each command a line that runs it, and prints marker, number and exit status."""
    position = 1
    for number, command in enumerate(commands):
        words = " ".join(f'"${{{position + i}}}"' for i in range(1, len(command) + 1))
        yield f'{words}; status=$?; printf "\\n%s {number} %d\\n" "$1" $status'
        position += len(command)


def _script(groups: Sequence[Sequence[str]]) -> str:
    """Return a script that prints the groups' outputs in order; later ones wait in a pipe."""
    first = "\n".join(groups[0]) if groups else ""
    if len(groups) <= 1:
        return first
    kept = f"kept=$({{ {first}\n}} </dev/null)"
    return f"{{ {_script(groups[1:])}\n}} | {{ {kept}; printf '%s\\n' \"$kept\"; cat; }}"


def in_parts(groups: Sequence[Group]) -> Iterator[list[list[Sequence[str]]]]:
    """Split groups that are too large for one exec into several; the order stays."""
    part: list[list[Sequence[str]]] = []
    total = 0
    for group in groups:
        part.append([])
        for command in group:
            size = _PER_COMMAND + sum(len(word.encode()) + _PER_WORD for word in command)
            total += size
            if total > _MAX_BYTES and any(part):
                yield part
                part, total = [[]], size
            part[-1].append(command)
    if any(part):
        yield part


def parse_batch(stdout: bytes, marker: str, count: int) -> list[Output]:
    """Return the output of each command; fewer than `count` when the shell was interrupted."""
    parts = re.split(rb"\n%s (\d+) (\d+)\n" % marker.encode(), stdout)
    outputs: list[Output] = []
    for text, number, status in zip(parts[0::3], parts[1::3], parts[2::3], strict=False):
        if int(number) != len(outputs):
            break
        outputs.append(Output(int(status), text))
    return outputs[:count]
