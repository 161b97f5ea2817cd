"""A shell that is started in a node before its command is known, while the image is looked up.

Starting one takes up to a tenth of a second. The words of the command follow on standard input.
"""

from __future__ import annotations

import queue
import threading
from collections.abc import Iterable, Iterator, Sequence
from functools import partial

import attrs

from imgload.core.parallel import Task
from imgload.engines.base import Chunk, ContainerHost, ExecResult, OpenInput
from imgload.engines.http import timed_out

_WAIT = r"""
word=
while IFS= read -r line; do
    case $line in
    -*) word=$word${line#-}'
' ;;
    +*) set -- "$@" "$word${line#+}"; word= ;;
    *) exec "$@" ;;
    esac
done
"""
"""Reads a word of the command from each line with ``+``, and its earlier lines from those with
``-``; an empty line ends the command. The shell reads no further, so the command gets the rest."""
_MAX_BYTES = 16 << 10
"""Shells read lines byte by byte, from a connection."""
_Command = tuple[bytes, Iterable[Chunk] | None]


class _UnusedError(Exception):
    """No command came."""


@attrs.define(eq=False, repr=False)
class WaitingShell:
    """A shell that waits for one command in a container.

    Where commands cannot get input, and if the shell does not start, it takes no command.
    """

    _engine: ContainerHost
    _container: str
    _commands: queue.SimpleQueue[_Command | None] = attrs.field(factory=queue.SimpleQueue)
    _stdin: OpenInput = attrs.field(init=False)
    _task: Task[ExecResult] = attrs.field(init=False)
    _unused: threading.Lock = attrs.field(factory=threading.Lock)
    _took: bool = False

    def __attrs_post_init__(self) -> None:
        command = ("sh", "-c", _WAIT, "imgload")
        self._stdin = OpenInput(self._input(), is_tar=False)
        self._task = Task(partial(self._engine.exec, self._container, command, self._stdin))

    def _input(self) -> Iterator[Chunk]:
        if not self._engine.streams_exec or (command := self._commands.get()) is None:
            raise _UnusedError("a shell was not used")
        words, stdin = command
        self._stdin.is_tar = stdin is not None
        yield b""  # the last chunk if the shell has ended in the meantime
        self._took = True
        yield words
        yield from stdin or ()

    def run(self, argv: Sequence[str], stdin: Iterable[Chunk] | None) -> ExecResult | None:
        """Run a command as `ContainerHost.exec` does; return None if the shell did not take it.

        If the shell still starts, and that takes too long, the error is raised.
        """
        if not self._unused.acquire(blocking=False):
            return None
        words = _encode(argv)
        if self._task.done or len(words) > _MAX_BYTES or not words.isascii():
            self._commands.put(None)
            return None
        self._commands.put((words, stdin))
        try:
            result = self._task.result()
        except Exception as error:
            if self._took or timed_out(error):
                raise
            return None
        return result if self._took else None

    def close(self) -> None:
        """End the shell, unless it has a command."""
        if self._unused.acquire(blocking=False):
            self._commands.put(None)


def _encode(argv: Sequence[str]) -> bytes:
    lines = []
    for word in argv:
        *earlier, last = word.split("\n")
        lines += [f"-{line}" for line in earlier] + [f"+{last}"]
    return "\n".join([*lines, "", ""]).encode()
