"""A socket between imgload and an engine, that counts what passes, and may hold or cut it."""

from __future__ import annotations

import contextlib
import re
import socket
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Literal

import attrs

from tests.lab.engine import Engine


@attrs.define
class Fault:
    """What happens to the first connection whose request matches a pattern.

    Args:
        pattern: searched for in the request's first line.
        act: ``hold`` what comes until `release` is set, or ``cut`` the connection.
        after: bytes of the connection, in either direction, that pass before.
        skip: how many matching requests pass before.

    """

    pattern: str
    act: Literal["hold", "cut"]
    after: int = 0
    skip: int = 0
    reached: threading.Event = attrs.field(factory=threading.Event)
    release: threading.Event = attrs.field(factory=threading.Event)

    def takes(self, request: str) -> bool:
        """Whether it is this request that it happens to."""
        if not re.search(self.pattern, request):
            return False
        self.skip -= 1
        return self.skip < 0 and not self.reached.is_set()


@attrs.define
class _Link:
    """One connection: its two sockets, and how much has passed."""

    client: socket.socket
    engine: socket.socket
    fault: Fault | None = None
    passed: int = 0
    request: str = ""
    frozen: bool = False

    def strike(self, size: int) -> None:
        """Let the fault happen when it is its time."""
        self.passed += size
        if self.fault is None or self.passed <= self.fault.after:
            return
        self.fault.reached.set()
        if self.fault.act == "hold":
            self.fault.release.wait()
            return
        for end in (self.client, self.engine):
            with contextlib.suppress(OSError):
                end.shutdown(socket.SHUT_RDWR)
        raise ConnectionAbortedError


@attrs.define
class Relay:
    """Passes every connection on, but for the fault.

    `sent` are the bytes that the engine was given, `requests` the first lines of what was asked.
    """

    _upstream: Path
    _listener: socket.socket
    url: str
    fault: Fault | None = None
    sent: int = 0
    requests: list[str] = attrs.field(factory=list)
    _lock: threading.Lock = attrs.field(factory=threading.Lock)
    _links: list[_Link] = attrs.field(factory=list)

    def freeze(self, pattern: str) -> None:
        """Swallow what else comes on the open connections of matching requests, both ways."""
        for link in self._links:
            link.frozen = link.frozen or bool(re.search(pattern, link.request))

    def serve(self) -> None:
        """Take connections until the listener is closed."""
        with contextlib.suppress(OSError):
            while True:
                client, _ = self._listener.accept()
                engine = socket.socket(socket.AF_UNIX)
                try:
                    engine.connect(str(self._upstream))
                except OSError:
                    client.close()
                    continue
                link = _Link(client, engine)
                self._links.append(link)
                for ends in ((client, engine), (engine, client)):
                    threading.Thread(target=self._pass, args=(link, *ends), daemon=True).start()

    def _pass(self, link: _Link, source: socket.socket, target: socket.socket) -> None:
        up = source is link.client
        with contextlib.suppress(OSError):
            while data := source.recv(1 << 16):
                if up:
                    self._count(data, link)
                link.strike(len(data))
                if not link.frozen:
                    target.sendall(data)
        if link.fault and link.fault.act == "hold" and not up:
            link.fault.release.wait()  # the end is held, too
        with contextlib.suppress(OSError):
            target.shutdown(socket.SHUT_WR)

    def _count(self, data: bytes, link: _Link) -> None:
        with self._lock:
            self.sent += len(data)
            if data.startswith((b"GET ", b"POST ", b"PUT ", b"DELETE ", b"HEAD ")):
                request = data.partition(b" HTTP/")[0].decode()
                self.requests.append(request)
                link.request = request
                if self.fault and self.fault.takes(request):
                    link.fault = self.fault

    @property
    def execs(self) -> int:
        """How many commands were started in containers."""
        return sum("/exec/" in each and "/start" in each for each in self.requests)


@contextlib.contextmanager
def relay(engine: Engine, folder: Path, fault: Fault | None = None) -> Iterator[Relay]:
    """Stand before an engine, on a socket in a folder."""
    path = folder / f"{engine.name}.sock"
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(path))
        listener.listen()
        between = Relay(engine.socket, listener, f"unix://{path}", fault)
        threading.Thread(target=between.serve, daemon=True).start()
        yield between
        if fault:
            fault.release.set()
        listener.shutdown(socket.SHUT_RDWR)
