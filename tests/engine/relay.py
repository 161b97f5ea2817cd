"""A socket between imgload and an engine that counts requests and bytes, and injects faults."""

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
    """A fault of the first connection whose request matches a pattern.

    Args:
        pattern: searched for in the request's first line.
        act: ``hold`` all data until `release` is set, or ``cut`` the connection.
        after: number of bytes of the connection, in both directions, that pass before.
        skip: number of matching requests that pass before.

    """

    pattern: str
    act: Literal["hold", "cut"]
    after: int = 0
    skip: int = 0
    reached: threading.Event = attrs.field(factory=threading.Event)
    release: threading.Event = attrs.field(factory=threading.Event)

    def matches(self, request: str) -> bool:
        """Return whether the fault applies to this request."""
        if not re.search(self.pattern, request):
            return False
        self.skip -= 1
        return self.skip < 0 and not self.reached.is_set()


@attrs.frozen
class Proxy:
    """The ways in which proxies differ from a socket.

    Args:
        at_end: of a client's data: pass the end on, ignore it (HAProxy), or close both directions
            (nginx).
        refuse: a pattern of requests that are refused with a page.
        needs_input: whether commands without standard input have no output.

    """

    at_end: Literal["pass", "ignore", "close"] = "pass"
    refuse: str = ""
    needs_input: bool = False


_PAGE = b"<html><body><h1>403 Forbidden</h1>\nRequest forbidden by rules.\n</body></html>\n"


@attrs.define
class _Link:
    """One connection: its two sockets, and the number of bytes that have passed."""

    client: socket.socket
    engine: socket.socket
    fault: Fault | None = None
    passed: int = 0
    request: str = ""
    frozen: bool = False

    def count(self, size: int) -> None:
        """Count bytes, and trigger the fault if they exceed its limit."""
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
    """Forwards every connection, except for the fault.

    `sent` is the number of bytes sent to the engine, `requests` the first lines of the requests.
    """

    _upstream: Path
    _listener: socket.socket
    url: str
    fault: Fault | None = None
    sent: int = 0
    requests: list[str] = attrs.field(factory=list)
    proxy: Proxy = attrs.field(factory=Proxy)
    _mute: bool = False
    _lock: threading.Lock = attrs.field(factory=threading.Lock)
    _links: list[_Link] = attrs.field(factory=list)

    def freeze(self, pattern: str) -> None:
        """Discard all further data on the open connections of matching requests, both ways."""
        for link in self._links:
            link.frozen = link.frozen or bool(re.search(pattern, link.request))

    def serve(self) -> None:
        """Accept connections until the listener is closed."""
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
                    if self._refuses(data, link):
                        return
                link.count(len(data))
                if not link.frozen:
                    target.sendall(data)
        if link.fault and link.fault.act == "hold" and not up:
            link.fault.release.wait()  # hold the end of the stream, too
        with contextlib.suppress(OSError):
            if not up or self.proxy.at_end != "ignore":
                target.shutdown(socket.SHUT_WR)
            if up and self.proxy.at_end == "close":
                link.client.shutdown(socket.SHUT_RDWR)

    def _refuses(self, data: bytes, link: _Link) -> bool:
        """Answer a refused request, and drop the output of a command without input."""
        if self.proxy.needs_input and b'"AttachStdin": false' in data:
            self._mute = True
        is_muted = self._mute and "/start" in link.request
        is_refused = self.proxy.refuse and re.search(self.proxy.refuse, link.request)
        if is_refused:
            head = b"HTTP/1.1 403 Forbidden\r\nContent-Length: %d\r\n\r\n" % len(_PAGE)
            link.client.sendall(head + _PAGE)
        if is_muted:
            link.client.sendall(b"HTTP/1.1 101 UPGRADED\r\n\r\n")
        if is_refused or is_muted:
            link.client.shutdown(socket.SHUT_WR)
        return bool(is_refused or is_muted)

    def _count(self, data: bytes, link: _Link) -> None:
        with self._lock:
            self.sent += len(data)
            if data.startswith((b"GET ", b"POST ", b"PUT ", b"DELETE ", b"HEAD ")):
                request = data.partition(b" HTTP/")[0].decode()
                self.requests.append(request)
                link.request = request
                if self.fault and self.fault.matches(request):
                    link.fault = self.fault

    @property
    def execs(self) -> int:
        """The number of commands that were started in containers."""
        return sum("/exec/" in line and "/start" in line for line in self.requests)


@contextlib.contextmanager
def relay(
    engine: Engine, folder: Path, fault: Fault | None = None, proxy: Proxy | None = None
) -> Iterator[Relay]:
    """Relay connections to an engine, on a socket in a folder."""
    path = folder / f"{engine.name}.sock"
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(path))
        listener.listen()
        between = Relay(engine.socket, listener, f"unix://{path}", fault)
        between.proxy = proxy or Proxy()
        threading.Thread(target=between.serve, daemon=True).start()
        yield between
        if fault:
            fault.release.set()
        listener.shutdown(socket.SHUT_RDWR)
