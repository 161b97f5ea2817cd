"""The connection of a command with standard input: one socket for both directions.

Both engines answer an exec start with the bare connection. imgload writes the command's standard
input to it, and reads frames: a header of eight bytes (stream, three zero bytes, length) and a
payload for stdout (1) or stderr (2) (Docker Engine API, ContainerAttach).

After an `OpenInput`, imgload does not close its direction alone. Some proxies close both directions
then (nginx, Rancher Desktop), and some do not pass it on (HAProxy): the output would be lost, or
the command would wait forever (moby #38457, linuxserver/docker-socket-proxy #10).
"""

from __future__ import annotations

import contextlib
import socket
import struct
import sys
import threading
import time
from abc import ABC, abstractmethod
from collections.abc import Iterable
from typing import Any

import attrs

from imgload.core.errors import EngineFailed, NodeStalled
from imgload.engines.base import Chunk, OpenInput
from imgload.engines.http import Answer

STALL_SECONDS = 120  # the limit for sending one chunk, 1 MiB, of standard input
SILENT_SECONDS = 120.0  # the longest silence of a command that unpacks no input
UNPACK_SECONDS = 600.0
UNPACK_BYTES = 2 << 20
"""The longest silence after all input, and the bytes that extend it by a second: a slow disk."""
_SEND_BYTES = 256 << 10
_SEND_SECONDS = 1
"""The bytes and the limit of one system call, so that the deadline is checked in between."""
_END_SECONDS = 1.0  # the limit for output that is still on the way when a command has ended
_FRAME = struct.Struct(">BxxxL")
_MAX_FRAME = 16 << 20
_STDERR = 2
MAX_STDOUT = 64 << 20
_KEPT_STDERR = 64 << 10


@attrs.define(eq=False, repr=False)
class CommandStream(ABC):
    """The socket of a running command, for its standard input and its output."""

    _socket: socket.socket
    stdout: bytearray = attrs.field(factory=bytearray, init=False)
    stderr: bytearray = attrs.field(factory=bytearray, init=False)
    _sent: int = attrs.field(default=0, init=False)
    _ended: threading.Event = attrs.field(factory=threading.Event, init=False)
    _error: Exception | None = attrs.field(default=None, init=False)

    def communicate(self, stdin: Iterable[Chunk] | None) -> bool:
        """Send `stdin` and collect output until the command ends; return whether all was sent."""
        reader = threading.Thread(target=self._read_to_end, name="exec-output", daemon=True)
        reader.start()
        try:
            complete = stdin is None or self._send(stdin)
            is_silent = stdin is None or (isinstance(stdin, OpenInput) and not stdin.is_tar)
            unpack = UNPACK_SECONDS + self._sent / UNPACK_BYTES
            self._await(reader, SILENT_SECONDS if is_silent else unpack)
        except BaseException:
            self.close()
            reader.join()
            raise
        if self._error:
            raise self._error
        return complete

    def close(self) -> None:
        """Drop the connection; a command that still reads gets the end of its input."""
        with contextlib.suppress(OSError):
            self._socket.shutdown(socket.SHUT_RDWR)

    def _await(self, reader: threading.Thread, seconds: float) -> None:
        """Wait for the command's end; NodeStalled if it prints nothing for too long."""
        received, since = 0, time.monotonic()
        while reader.is_alive():
            reader.join(min(seconds, 1.0))
            if received != len(self.stdout) + len(self.stderr):
                received, since = len(self.stdout) + len(self.stderr), time.monotonic()
            elif time.monotonic() - since > seconds:
                raise NodeStalled(
                    f"a command in the node printed nothing for {seconds:.0f} seconds"
                )

    def _send(self, stdin: Iterable[Chunk]) -> bool:
        if sys.platform != "win32":  # limit a send, but not a read
            limit = struct.pack("@ll", _SEND_SECONDS, 0)
            self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_SNDTIMEO, limit)
        for chunk in stdin:
            if self._ended.is_set():
                return False
            try:
                _send_all(self._socket, chunk)
                self._sent += len(chunk)
            except OSError as error:
                if self._ended.wait(_END_SECONDS):
                    return False
                raise EngineFailed(f"the connection broke while sending: {error}") from error
        if not isinstance(stdin, OpenInput):
            with contextlib.suppress(OSError):
                self._socket.shutdown(socket.SHUT_WR)
        return True

    def _read_to_end(self) -> None:
        try:
            self._read()
        except Exception as error:  # noqa: BLE001 - raised again in the sending thread
            self._error = error
        finally:
            self._ended.set()
            with contextlib.suppress(OSError):
                self._socket.shutdown(socket.SHUT_RDWR)

    @abstractmethod
    def _read(self) -> None:
        """Collect the output until the command ends, by `_keep`; EngineFailed."""

    def _keep(self, target: bytearray, data: bytes) -> None:
        target += data
        if target is self.stdout and len(target) > MAX_STDOUT:
            raise EngineFailed(f"a command printed more than {MAX_STDOUT} bytes")
        if target is self.stderr and len(target) > 2 * _KEPT_STDERR:
            del target[:-_KEPT_STDERR]


@attrs.define(eq=False, repr=False)
class ExecStream(CommandStream):
    """The hijacked connection of an engine's exec: its socket, a reader, and the answer."""

    _reader: Any
    _answer: Any

    @classmethod
    def take_over(cls, answer: Answer) -> ExecStream:
        return cls(*answer.take_over(), answer)

    def close(self) -> None:
        super().close()
        self._answer.close()

    def _read(self) -> None:
        while head := self._read_exactly(_FRAME.size, may_end=True):
            stream, length = _FRAME.unpack(head)
            if length > _MAX_FRAME:
                raise EngineFailed(f"the engine announces {length} bytes of output in one frame")
            target = self.stderr if stream == _STDERR else self.stdout
            self._keep(target, self._read_exactly(length))

    def _read_exactly(self, size: int, *, may_end: bool = False) -> bytes:
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
    """Send a chunk; NodeStalled if the whole chunk takes too long.

    All nodes wait for the slowest. A stalled socket still accepts a few bytes now and then, so the
    limit is for the chunk and not for one system call.
    """
    rest, deadline = memoryview(chunk), time.monotonic() + STALL_SECONDS
    while rest:
        with contextlib.suppress(BlockingIOError, TimeoutError):
            rest = rest[sock.send(rest[:_SEND_BYTES]) :]
        if rest and time.monotonic() > deadline:
            raise NodeStalled(
                f"the node took nothing for {STALL_SECONDS} seconds, or hardly anything"
            )
