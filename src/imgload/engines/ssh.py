"""An ssh tunnel to an engine on another machine: its socket, forwarded to a local one.

One ssh process serves every request, and each request has a real socket, which can be closed in
one direction. imgload runs the user's own ssh, with its keys, agent, settings and known hosts.
"""

from __future__ import annotations

import os
import re
import selectors
import subprocess
import threading
import time
import weakref
from collections.abc import Callable
from pathlib import Path
from typing import Any, ClassVar
from urllib.parse import urlsplit

import attrs

from imgload.core.errors import EngineNotPermitted, EngineUnreachable, reason
from imgload.core.state import TemporaryFolder
from imgload.engines.endpoint import EngineKind

CONNECT_SECONDS = 5
_READY_SECONDS = 12.0
_SOCKETS: dict[EngineKind, str] = {
    "docker": "/var/run/docker.sock",
    "podman": "/run/podman/podman.sock",
}
_PATH = re.compile(r"/[\w./@+,-]*", re.ASCII)
_NAME = re.compile(r"[\w:][\w.:+@-]*", re.ASCII)
_MAX_OUTPUT = 4096
_CHECK = (
    "if ! [ -S {path} ]; then echo imgload: absent;"
    " elif ! [ -w {path} ]; then echo imgload: denied;"
    " else echo imgload: ready; fi; exec cat"
)
"""The remote command: ``cat``, and ssh with it, ends when this process ends, in whatever way."""
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
"""ssh asks nothing at the terminal, shares no connection with other programs, and ends when the
server is silent for 15 seconds, as after a network change."""
_LOOPBACK = {"localhost", "127.0.0.1", "::1"}
_UNKNOWN_HOST = ("StrictHostKeyChecking=no", "UserKnownHostsFile=/dev/null", "LogLevel=ERROR")


@attrs.frozen
class Remote:
    """A socket on another machine; ssh's own settings have the fields that are empty or None."""

    host: str
    path: str
    user: str | None = None
    port: int | None = None
    identity: str = ""  # the key file
    machine: bool = False
    """Whether it is a Podman virtual machine: recreated too often to have a known host key."""

    @classmethod
    def parse(cls, url: str, kind: EngineKind, **fields: Any) -> Remote:
        """Parse ``ssh://[user@]host[:port][/path]``; ValueError for any other text.

        Every part must have only characters that neither ssh nor a shell can misinterpret.
        """
        parts = urlsplit(url)
        path = parts.path if parts.path.strip("/") else _SOCKETS[kind]
        host, user = parts.hostname or "", parts.username
        extras = parts.password or parts.query or parts.fragment
        names = [host, user] if user else [host]
        if extras or not _PATH.fullmatch(path) or not all(map(_NAME.fullmatch, names)):
            raise ValueError("it is not ssh://user@host:port/path/to/engine.sock")
        return cls(host, path, user, parts.port, **fields)

    def __str__(self) -> str:
        return f"{self.user}@{self.host}" if self.user else self.host

    @property
    def command(self) -> str:
        """The ssh command for a login, for hints."""
        port = f" -p {self.port}" if self.port else ""
        return f"ssh{port} {self}"

    def argv(self, local: Path) -> list[str]:
        """Return the ssh command that forwards the socket to a local path."""
        local_machine = self.machine and self.host in _LOOPBACK
        options = [*_OPTIONS, *(_UNKNOWN_HOST if local_machine else ())]
        words = ["ssh", "-T", *(f"-o{option}" for option in options)]
        words += ["-l", self.user] if self.user else []
        words += ["-p", str(self.port)] if self.port else []
        words += ["-i", self.identity] if self.identity else []
        check = _CHECK.format(path=self.path)
        return [*words, "-L", f"{local}:{self.path}", "--", self.host, f"sh -c '{check}'"]


class SshTunnel:
    """The forwarded socket; ssh runs from the first use until the tunnel is closed or collected."""

    _all: ClassVar[weakref.WeakSet[SshTunnel]] = weakref.WeakSet()
    _all_lock: ClassVar = threading.Lock()
    _exiting: ClassVar = False

    def __init__(self, remote: Remote) -> None:
        self.remote = remote
        self._lock = threading.Lock()
        self._closed = False
        self.process: subprocess.Popen[bytes] | None = None
        self.end: Callable[[], object] = lambda: None

    def open(self) -> str:
        with self._lock:
            self._closed = False
        return self.url

    @property
    def url(self) -> str:
        """The local address, which changes if ssh ended and was started again; EngineError.

        If only the remote socket is missing, ssh keeps running: the next request may find it.
        """
        with self._lock:
            if self._closed:
                raise EngineUnreachable(f"the connection to {self.remote} was closed")
            if not self.process or self.process.poll() is not None or not self._socket.exists():
                self.end()
                self._start()
                self._expect_ready()
            return f"unix://{self._socket}"

    def close(self) -> None:
        """End ssh; only `open` starts it again."""
        with self._lock:
            self._closed = True
            self.end()

    @classmethod
    def close_all(cls) -> None:
        """End every ssh of this process, and start none from now on."""
        with cls._all_lock:
            cls._exiting = True
            tunnels = list(cls._all)
        for tunnel in tunnels:
            if tunnel.process:
                tunnel.process.terminate()
        for tunnel in tunnels:
            tunnel.end()

    def _start(self) -> None:
        with self._all_lock:
            if self._exiting:
                raise EngineUnreachable(f"cannot connect to {self.remote}: imgload is exiting")
            folder = TemporaryFolder.make()
            self._log, self._socket = folder.path / "log", folder.path / "engine.sock"
            try:
                with self._log.open("wb") as log:
                    self.process = subprocess.Popen(  # noqa: S603 - `Remote.parse` checks every word
                        self.remote.argv(self._socket),
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
            self.end = weakref.finalize(self, _end, self.process, folder)
            self._all.add(self)

    def _expect_ready(self) -> None:
        remote, state = self.remote, self._read_state()
        if state == b"absent":
            raise EngineUnreachable(
                f"{remote.path} does not exist on {remote}",
                hint=f"append the socket's path to the address; see: {remote.command} ls /run",
            )
        if state == b"denied":
            raise EngineNotPermitted(
                f"{remote} may not open {remote.path}",
                hint=f"join the socket's group: {remote.command} sudo usermod -aG docker $USER",
            )
        if state != b"ready" or not self._socket.exists():
            with self._log.open("rb") as log:
                log.seek(max(0, log.seek(0, 2) - _MAX_OUTPUT))
                lines = reason(log.read().decode(errors="replace")).splitlines()
            why = next((line.strip() for line in reversed(lines) if line.strip()), "")
            self.end()
            raise EngineUnreachable(
                f"ssh to {remote} failed: {why or 'it did not answer'}",
                hint=f"make this command work without a prompt: {remote.command} true",
            )

    def _read_state(self) -> bytes:
        """Return the state in the remote command's output, or nothing.

        The login shell may print a greeting before it.
        """
        data, deadline = b"", time.monotonic() + _READY_SECONDS
        stdout = self.process.stdout if self.process else None
        output = stdout.fileno() if stdout else -1
        with selectors.DefaultSelector() as selector:
            selector.register(output, selectors.EVENT_READ)
            while selector.select(max(0, deadline - time.monotonic())):
                chunk = os.read(output, _MAX_OUTPUT)
                data += chunk
                if match := re.search(rb"^imgload: (\w+)\r?\n", data, re.MULTILINE):
                    return match.group(1)
                if not chunk or len(data) > _MAX_OUTPUT:
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


close_all = SshTunnel.close_all
