"""An engine on another machine, brought here by ssh: its socket, forwarded to one of ours.

One connection serves every request, and each has a real socket, which can be closed one way; the
user's own ssh is run, with its keys, its agent, its settings and its known hosts.
"""

from __future__ import annotations

import os
import re
import selectors
import subprocess
import threading
import time
import weakref
from pathlib import Path
from urllib.parse import SplitResult, urlsplit

import attrs

from imgload.core.errors import EngineNotPermitted, EngineUnreachable, reason
from imgload.core.temporary import TemporaryFolder
from imgload.engines.endpoint import Endpoint, EngineKind

CONNECT_SECONDS = 5
_READY_SECONDS = 12.0
_SOCKETS: dict[EngineKind, str] = {
    "docker": "/var/run/docker.sock",
    "podman": "/run/podman/podman.sock",
}
_PATH = re.compile(r"/[\w./@+,-]*", re.ASCII)
_NAME = re.compile(r"[\w:][\w.:+@-]*", re.ASCII)
_LONGEST = 4096
_LOOK = (
    "if ! [ -S {path} ]; then echo imgload: absent;"
    " elif ! [ -w {path} ]; then echo imgload: denied;"
    " else echo imgload: ready; fi; exec cat"
)
"""``cat`` ends when we do, however we end, and ssh with it."""
_OPTIONS = (
    "BatchMode=yes",
    f"ConnectTimeout={CONNECT_SECONDS}",
    "ControlPath=none",
    "ForwardAgent=no",
    "ForwardX11=no",
    "RemoteCommand=none",
    "ServerAliveInterval=5",
    "ServerAliveCountMax=3",
)
"""Nothing is asked at the terminal, nothing is left in a connection that others share, and ssh ends
when the server has been silent for 15 seconds, as after a network change."""
_LOOPBACK = {"localhost", "127.0.0.1", "::1"}
_UNKNOWN_MACHINE = ("StrictHostKeyChecking=no", "UserKnownHostsFile=/dev/null", "LogLevel=ERROR")


@attrs.frozen
class Remote:
    """A socket on another machine.

    Args:
        host: its name, as ssh knows it.
        path: of the socket.
        user: None for whom ssh takes.
        port: None for the one that ssh takes.
        identity: the file with the key; empty for those that ssh takes.
        machine: whether it is a virtual machine of Podman's on this one, made anew too often for
            its host key to be known.

    """

    host: str
    path: str
    user: str | None = None
    port: int | None = None
    identity: str = ""
    machine: bool = False

    @classmethod
    def parse(
        cls, url: str, kind: EngineKind, *, identity: str = "", machine: bool = False
    ) -> Remote:
        """Understand ``ssh://[user@]host[:port][/path]``.

        Raises:
            ValueError: when it is something else.

        """
        parts = urlsplit(url)
        path = parts.path if parts.path.strip("/") else _SOCKETS[kind]
        if not _is_plain(parts, path):
            raise ValueError("it is no ssh://user@host:port/path/to/engine.sock")
        host = parts.hostname or ""
        return cls(host, path, parts.username, parts.port, identity, machine)

    def __str__(self) -> str:
        return f"{self.user}@{self.host}" if self.user else self.host

    @property
    def command(self) -> str:
        """The ssh command that a user would log in with."""
        port = f" -p {self.port}" if self.port else ""
        return f"ssh{port} {self}"

    def argv(self, local: Path) -> list[str]:
        """Return the ssh command that forwards the socket to a local path."""
        local_machine = self.machine and self.host in _LOOPBACK
        options = [*_OPTIONS, *(_UNKNOWN_MACHINE if local_machine else ())]
        words = ["ssh", "-T", *(f"-o{option}" for option in options)]
        words += ["-l", self.user] if self.user else []
        words += ["-p", str(self.port)] if self.port else []
        words += ["-i", self.identity] if self.identity else []
        look = _LOOK.format(path=self.path)
        return [*words, "-L", f"{local}:{self.path}", "--", self.host, f"sh -c '{look}'"]


def _is_plain(parts: SplitResult, path: str) -> bool:
    """Whether the parts of an address can be nothing else to ssh and to a shell."""
    names = [parts.hostname or "", *([parts.username] if parts.username else [])]
    extras = parts.password or parts.query or parts.fragment
    return not extras and bool(_PATH.fullmatch(path)) and all(map(_NAME.fullmatch, names))


def open_tunnel(endpoint: Endpoint, *, identity: str = "", machine: bool = False) -> Endpoint:
    """Return an ``ssh://`` endpoint with an open tunnel.

    Raises:
        ValueError: when the address is no such.
        EngineError: when it leads nowhere.

    """
    remote = Remote.parse(endpoint.url, endpoint.kind, identity=identity, machine=machine)
    tunnel = SshTunnel(remote)
    try:
        tunnel.open()
    except BaseException:
        tunnel.close()
        raise
    return attrs.evolve(endpoint, tunnel=tunnel)


def close_all() -> None:
    """End every ssh of this process, and let no thread start another one."""
    with _RUNNING.lock:
        _RUNNING.ended = True
        left = list(_RUNNING.all)
    for running in left:
        running.process.terminate()
    for running in left:
        running.end()


@attrs.define(eq=False)
class SshTunnel:
    """The forwarded socket; ssh runs from its first use until it is closed or forgotten."""

    remote: Remote
    _lock: threading.Lock = attrs.field(factory=threading.Lock)
    _running: _Running | None = None
    _closed: bool = False

    def open(self) -> str:
        """Return the address on this machine, also after `close`; errors as for `url`."""
        with self._lock:
            self._closed = False
        return self.url

    @property
    def url(self) -> str:
        """The address on this machine; another one when ssh had ended and was started again.

        Where only the socket is missing, ssh goes on: it may be there by the next request.

        Raises:
            EngineUnreachable: when ssh does not get there, or there is no such socket.
            EngineNotPermitted: when it may not be opened.

        """
        with self._lock:
            if self._closed:
                raise EngineUnreachable(f"the connection to {self.remote} was closed")
            if self._running is None or not self._running.alive:
                self._end()
                self._running = _Running.start(self.remote)
                self._running.expect_ready(self.remote)
            return f"unix://{self._running.socket}"

    def close(self) -> None:
        """End ssh; only `open` starts it again."""
        with self._lock:
            self._closed = True
            self._end()

    def _end(self) -> None:
        if self._running:
            self._running.end()
        self._running = None


@attrs.define
class _Registry:
    """Every ssh that runs."""

    lock: threading.Lock = attrs.field(factory=threading.Lock)
    all: weakref.WeakSet[_Running] = attrs.field(factory=weakref.WeakSet)
    ended: bool = False


_RUNNING = _Registry()


class _Running:
    """An ssh that runs."""

    def __init__(self, process: subprocess.Popen[bytes], folder: TemporaryFolder) -> None:
        self.process = process
        self.folder = folder.path
        self._output = process.stdout.fileno() if process.stdout else -1
        self.socket = folder.path / "engine.sock"
        self.end = weakref.finalize(self, _end, process, folder)

    @classmethod
    def start(cls, remote: Remote) -> _Running:
        with _RUNNING.lock:
            if _RUNNING.ended:
                raise EngineUnreachable(f"{remote} is not connected to any more: imgload ends")
            running = cls._start(remote)
            _RUNNING.all.add(running)
        return running

    @classmethod
    def _start(cls, remote: Remote) -> _Running:
        folder = TemporaryFolder.make()
        try:
            with (folder.path / "log").open("wb") as log:
                process = subprocess.Popen(  # noqa: S603 - no word of it is shell text of ours
                    remote.argv(folder.path / "engine.sock"),
                    stdin=subprocess.PIPE,
                    stdout=subprocess.PIPE,
                    stderr=log,
                    start_new_session=True,
                )
        except OSError as error:
            folder.remove()
            raise EngineUnreachable(
                f"ssh cannot be run: {error.strerror}", hint="install an ssh client"
            ) from error
        return cls(process, folder)

    @property
    def alive(self) -> bool:
        return self.end.alive and self.process.poll() is None and self.socket.exists()

    def said(self) -> str:
        with (self.folder / "log").open("rb") as log:
            log.seek(max(0, log.seek(0, 2) - _LONGEST))
            lines = reason(log.read().decode(errors="replace")).splitlines()
        return next((line.strip() for line in reversed(lines) if line.strip()), "")

    def expect_ready(self, remote: Remote) -> None:
        word = self._first_word()
        if word == b"absent":
            raise EngineUnreachable(
                f"there is no {remote.path} on {remote}",
                hint=f"see where it is ({remote.command} ls /run), and put its path at the end of"
                " the address",
            )
        if word == b"denied":
            raise EngineNotPermitted(
                f"{remote} may not open {remote.path}",
                hint=f"let that user into its group there: {remote.command}"
                " sudo usermod -aG docker $USER",
            )
        if word != b"ready" or not self.socket.exists():
            said = self.said()
            self.end()
            raise EngineUnreachable(
                f"ssh to {remote} failed: {said or 'it did not answer'}",
                hint=f"make this work without a question: {remote.command} true",
            )

    def _first_word(self) -> bytes:
        """Return what the other side found, whatever its shell says before; empty for nothing."""
        data, deadline = b"", time.monotonic() + _READY_SECONDS
        with selectors.DefaultSelector() as waiting:
            waiting.register(self._output, selectors.EVENT_READ)
            while waiting.select(max(0, deadline - time.monotonic())):
                chunk = os.read(self._output, _LONGEST)
                data += chunk
                if found := re.search(rb"^imgload: (\w+)\r?\n", data, re.MULTILINE):
                    return found.group(1)
                if not chunk or len(data) > _LONGEST:
                    break
        return b""


def _end(process: subprocess.Popen[bytes], folder: TemporaryFolder) -> None:
    process.terminate()
    for pipe in (process.stdin, process.stdout):
        if pipe:
            pipe.close()
    try:
        process.wait(2)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()
    folder.remove()
