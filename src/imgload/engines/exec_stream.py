"""The connection of an ``exec`` with standard input: one socket, both ways.

Both engines answer an exec start with the bare connection: what is written is the command's
standard input, what is read comes in frames of an eight-byte header (stream, three zero bytes,
length) and a payload, for stdout (1) and stderr (2) (Docker Engine API, ContainerAttach).
"""

from __future__ import annotations

import contextlib
import socket
import struct
import sys
import threading
import time
from collections.abc import Iterable
from typing import Any

import attrs

from imgload.core.errors import EngineFailed, NodeStalled
from imgload.engines.base import Chunk
from imgload.engines.http import Answer

STALL_SECONDS = 120
"""How long a command may take for one chunk, 1 MiB, of its standard input."""
SILENT_SECONDS = 120.0
UNPACK_SECONDS = 600.0
"""How long a command may say nothing: one without input, and one that got all of its input."""
UNPACK_BYTES = 2 << 20
"""For each of so many bytes of its input it has a second more: a slow disk unpacks that much."""
_SEND = 256 << 10
_SEND_SECONDS = 1
"""Bytes of one system call, and how long it may wait, so that the time can be looked at."""
_FRAME = struct.Struct(">BxxxL")
_MAX_FRAME = 16 << 20
_STDERR = 2
MAX_STDOUT = 64 << 20
_KEPT_STDERR = 64 << 10


@attrs.define
class Attached:
    """A running command's socket and buffered reader."""

    _socket: socket.socket
    _reader: Any
    _answer: Any
    stdout: bytearray = attrs.field(factory=bytearray)
    stderr: bytearray = attrs.field(factory=bytearray)
    _sent: bool = False
    _taken: int = 0
    _ended: bool = False
    _error: Exception | None = None

    @classmethod
    def take_over(cls, answer: Answer) -> Attached:
        """Take the connection of an answer whose headers were read."""
        return cls(*answer.take_over(), answer)

    def communicate(self, stdin: Iterable[Chunk] | None) -> bool:
        """Feed `stdin` and collect the output until the command ends.

        Returns:
            whether all of `stdin` was sent; not so when the command, or the connection, ended
            before.

        """
        self._feed_while_reading(stdin)
        if self._error:
            raise self._error
        return self._sent

    def close(self) -> None:
        """Drop the connection; a command that still reads sees its input end."""
        with contextlib.suppress(OSError):
            self._socket.shutdown(socket.SHUT_RDWR)
        self._answer.close()

    def _feed_while_reading(self, stdin: Iterable[Chunk] | None) -> None:
        reader = threading.Thread(target=self._read_to_end, name="exec-output", daemon=True)
        reader.start()
        try:
            if stdin is None:
                self._sent = True
            else:
                self._send(stdin)
            unpack = UNPACK_SECONDS + self._taken / UNPACK_BYTES
            self._await(reader, SILENT_SECONDS if stdin is None else unpack)
        except BaseException:
            self.close()
            reader.join()
            raise

    def _await(self, reader: threading.Thread, seconds: float) -> None:
        """Wait for the command's end, and no longer than it is silent."""
        heard, since = 0, time.monotonic()
        while reader.is_alive():
            reader.join(min(seconds, 1.0))
            if heard != len(self.stdout) + len(self.stderr):
                heard, since = len(self.stdout) + len(self.stderr), time.monotonic()
            elif time.monotonic() - since > seconds:
                raise NodeStalled(f"a command in the node said nothing for {seconds:.0f} seconds")

    def _send(self, stdin: Iterable[Chunk]) -> None:
        _limit_send(self._socket)
        for chunk in stdin:
            if self._ended:
                return
            try:
                _send_all(self._socket, chunk)
                self._taken += len(chunk)
            except OSError as error:
                if self._ended or self._await_end():
                    return
                raise EngineFailed(f"the connection broke while sending: {error}") from error
        self._sent = True
        with contextlib.suppress(OSError):
            self._socket.shutdown(socket.SHUT_WR)

    def _await_end(self) -> bool:
        """Whether the command had ended: its last words may still be on the way."""
        for _ in range(20):
            if self._ended:
                return True
            threading.Event().wait(0.05)
        return self._ended

    def _read_to_end(self) -> None:
        try:
            self._read()
        except Exception as error:  # noqa: BLE001 - raised again in the sending thread
            self._error = error
        finally:
            self._ended = True
            with contextlib.suppress(OSError):
                self._socket.shutdown(socket.SHUT_RDWR)

    def _read(self) -> None:
        while head := self._exactly(_FRAME.size, may_end=True):
            stream, length = _FRAME.unpack(head)
            if length > _MAX_FRAME:
                raise EngineFailed(f"the engine announces {length} bytes of output at once")
            payload = self._exactly(length)
            target = self.stderr if stream == _STDERR else self.stdout
            target += payload
            if len(self.stdout) > MAX_STDOUT:
                raise EngineFailed(f"a command printed more than {MAX_STDOUT} bytes")
            if len(self.stderr) > 2 * _KEPT_STDERR:
                del self.stderr[:-_KEPT_STDERR]

    def _exactly(self, size: int, *, may_end: bool = False) -> bytes:
        try:
            data: bytes = self._reader.read(size)
        except ConnectionResetError as error:
            if may_end:  # a command that ended before it read all of its input
                return b""
            raise EngineFailed("the engine cut a command's output off") from error
        except (OSError, ValueError) as error:
            raise EngineFailed(f"the connection broke while reading: {error}") from error
        if len(data) < size and (data or not may_end):
            raise EngineFailed("the engine cut a command's output off")
        return data


def _send_all(sock: socket.socket, chunk: Chunk) -> None:
    """Send a chunk.

    All nodes wait for the slowest, so that the time is for the whole chunk: a socket that has
    stalled still takes a little now and then, into its buffers.
    """
    left, deadline = memoryview(chunk), time.monotonic() + STALL_SECONDS
    while left:
        with contextlib.suppress(BlockingIOError, TimeoutError):
            left = left[sock.send(left[:_SEND]) :]
        if left and time.monotonic() > deadline:
            raise NodeStalled(
                f"the node took nothing, or hardly anything, for {STALL_SECONDS} seconds"
            )


def _limit_send(sock: socket.socket) -> None:
    """Let a send fail after a moment, without a time limit on reading."""
    if sys.platform != "win32":
        limit = struct.pack("@ll", _SEND_SECONDS, 0)
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_SNDTIMEO, limit)
