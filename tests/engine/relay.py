"""A socket between imgload and an engine, that counts what passes."""

from __future__ import annotations

import contextlib
import socket
import threading
from collections.abc import Iterator
from pathlib import Path

import attrs

from tests.lab.engine import Engine


@attrs.define
class Relay:
    """Passes every connection on.

    `sent` are the bytes that the engine was given, `requests` the first lines of what was asked.
    """

    _upstream: Path
    _listener: socket.socket
    url: str
    sent: int = 0
    requests: list[str] = attrs.field(factory=list)
    _lock: threading.Lock = attrs.field(factory=threading.Lock)

    def serve(self) -> None:
        """Take connections until the listener is closed."""
        with contextlib.suppress(OSError):
            while True:
                client, _ = self._listener.accept()
                engine = socket.socket(socket.AF_UNIX)
                engine.connect(str(self._upstream))
                for ends in ((client, engine), (engine, client)):
                    threading.Thread(target=self._pass, args=ends, daemon=True).start()

    def _pass(self, source: socket.socket, target: socket.socket) -> None:
        up = source.getsockname() == self._listener.getsockname()
        with contextlib.suppress(OSError):
            while data := source.recv(1 << 16):
                if up:
                    self._count(data)
                target.sendall(data)
        with contextlib.suppress(OSError):
            target.shutdown(socket.SHUT_WR)

    def _count(self, data: bytes) -> None:
        with self._lock:
            self.sent += len(data)
            if data.startswith((b"GET ", b"POST ", b"PUT ", b"DELETE ", b"HEAD ")):
                self.requests.append(data.partition(b" HTTP/")[0].decode())

    @property
    def execs(self) -> int:
        """How many commands were started in containers."""
        return sum("/exec/" in each and "/start" in each for each in self.requests)


@contextlib.contextmanager
def relay(engine: Engine, folder: Path) -> Iterator[Relay]:
    """Stand before an engine, on a socket in a folder."""
    path = folder / f"{engine.name}.sock"
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(path))
        listener.listen()
        between = Relay(engine.socket, listener, f"unix://{path}")
        threading.Thread(target=between.serve, daemon=True).start()
        yield between
        listener.shutdown(socket.SHUT_RDWR)
