"""Connections of the user's own ssh, with its keys, agent, settings and known hosts.

`SshTunnel` forwards an engine's socket to a local one: one ssh process serves every request, and
each request has a real socket, which can be closed in one direction. `SshMaster` lets many commands
on a machine share one connection.
"""

from __future__ import annotations

import os
import re
import selectors
import shlex
import subprocess
import threading
import time
import weakref
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from contextlib import suppress
from ipaddress import ip_address
from pathlib import Path
from typing import Any, ClassVar
from urllib.parse import urlsplit

import attrs

from imgload.core import trace
from imgload.core.errors import EngineNotPermitted, EngineUnreachable, reason
from imgload.core.state import TemporaryFolder, socket_folder
from imgload.engines.endpoint import EngineKind

CONNECT_SECONDS = 5
_READY_SECONDS = 12.0
_REASON_SECONDS = 2.0
_SOCKETS: dict[EngineKind, str] = {
    "docker": "/var/run/docker.sock",
    "podman": "/run/podman/podman.sock",
}
_PATH = re.compile(r"/[\w./@+,-]*", re.ASCII)
_NAME = re.compile(r"[\w:][\w.:+@-]*", re.ASCII)
_MAX_OUTPUT = 4096
_CHECK_SOCKET = (
    "if ! [ -S {path} ]; then echo imgload: absent;"
    " elif ! [ -w {path} ]; then echo imgload: denied;"
    " else echo imgload: ready; fi; exec cat"
)
"""The remote command: ``cat``, and ssh with it, ends when this process ends, in whatever way."""
_CHECK_RIGHTS = (
    "if [ ${#1} != 7 ]; then echo imgload: shell;"
    ' elif [ "$(id -u)" = 0 ]; then echo imgload: root;'
    " elif sudo -n sh -c :; then echo imgload: sudo;"
    " else echo imgload: denied; fi; exec cat"
)
_ODD_WORD = "\\\\'\"$!*"
"""Seven characters that shells with other rules for quotes, such as fish, change."""
_OPTIONS = (
    "BatchMode=yes",
    f"ConnectTimeout={CONNECT_SECONDS}",
    "ForwardAgent=no",
    "ForwardX11=no",
    "RemoteCommand=none",
    "ServerAliveInterval=5",
    "ServerAliveCountMax=3",
)
"""ssh asks nothing at the terminal, and ends when the server is silent for 15 seconds, as after a
network change."""
_UNKNOWN_HOST = ("StrictHostKeyChecking=no", "UserKnownHostsFile=/dev/null", "LogLevel=ERROR")


@attrs.frozen
class Login:
    """How to log in to a machine; ssh's own settings have the fields that are empty or None."""

    host: str
    user: str | None = None
    port: int | None = None
    identity: str = ""  # the key file
    config: str = ""  # the settings file to use in place of the user's
    is_vm: bool = False
    """Whether it is a virtual machine of a tool that recreates it: it has no known host key."""

    @classmethod
    def parse(cls, url: str, **fields: Any) -> Login:
        """Parse ``ssh://[user@]host[:port]``; ValueError for any other text.

        Every part must have only characters that neither ssh nor a shell can misinterpret.
        """
        parts = urlsplit(url)
        host, user = parts.hostname or "", parts.username
        if parts.scheme != "ssh" or parts.path.strip("/") or parts.query or parts.fragment:
            raise ValueError("it is not ssh://user@host:port")
        if parts.password is not None or not all(map(_NAME.fullmatch, filter(None, [host, user]))):
            raise ValueError("it is not ssh://user@host:port")
        if not host:
            raise ValueError("it has no host")
        return cls(host, user, parts.port, **fields)

    def __str__(self) -> str:
        return f"{self.user}@{self.host}" if self.user else self.host

    @property
    def url(self) -> str:
        """The address in the form that `parse` reads."""
        host = f"[{self.host}]" if ":" in self.host else self.host
        user, port = f"{self.user}@" if self.user else "", f":{self.port}" if self.port else ""
        return f"ssh://{user}{host}{port}"

    @property
    def command(self) -> str:
        """The ssh command for a login, for hints."""
        words = ["-F", self.config] if self.config else []
        words += ["-i", self.identity] if self.identity else []
        words += ["-p", str(self.port)] if self.port else []
        return shlex.join(["ssh", *words, str(self)])

    def argv(self, *options: str, words: Sequence[str] = (), command: str) -> list[str]:
        """Return the ssh command that runs a command there.

        Args:
            options: of ssh's settings, as ``Name=value``.
            words: other arguments.
            command: for the login shell.

        """
        options = (*_OPTIONS, *options, *(_UNKNOWN_HOST if self._is_own_vm else ()))
        argv = ["ssh", "-T", *(["-F", self.config] if self.config else [])]
        argv += [f"-o{option}" for option in options]
        argv += ["-l", self.user] if self.user else []
        argv += ["-p", str(self.port)] if self.port else []
        argv += ["-i", self.identity] if self.identity else []
        return [*argv, *words, "--", self.host, command]

    @property
    def _is_own_vm(self) -> bool:
        """Whether it is a VM on this machine, whose network no other machine can reach."""
        try:
            address = ip_address("127.0.0.1" if self.host == "localhost" else self.host)
        except ValueError:
            return False
        return self.is_vm and address.is_private


@attrs.frozen
class Remote:
    """A socket on another machine."""

    login: Login
    path: str

    @classmethod
    def parse(cls, url: str, kind: EngineKind, **fields: Any) -> Remote:
        """Parse ``ssh://[user@]host[:port][/path]``; ValueError for any other text."""
        parts = urlsplit(url)
        path = parts.path if parts.path.strip("/") else _SOCKETS[kind]
        if not _PATH.fullmatch(path):
            raise ValueError("it is not ssh://user@host:port/path/to/engine.sock")
        return cls(Login.parse(parts._replace(path="").geturl(), **fields), path)

    def argv(self, local: Path) -> list[str]:
        """Return the ssh command that forwards the socket to a local path."""
        check = _CHECK_SOCKET.format(path=self.path)
        forward = ("-L", f"{local}:{self.path}")
        return self.login.argv("ControlPath=none", words=forward, command=f"sh -c '{check}'")


class SshConnection(ABC):
    """An ssh process that runs from the first use until it is closed or collected."""

    _all: ClassVar[weakref.WeakSet[SshConnection]] = weakref.WeakSet()
    _all_lock: ClassVar = threading.Lock()
    _exiting: ClassVar = False

    def __init__(self, login: Login) -> None:
        self.login = login
        self._lock = threading.Lock()
        self._closed = False
        self.process: subprocess.Popen[bytes] | None = None
        self.end: Callable[[], object] = lambda: None

    @property
    def socket(self) -> Path:
        """The local socket, which changes if ssh ended and was started again; EngineError.

        If ssh runs, but cannot be used, it keeps running: the next call may succeed.
        """
        with self._lock:
            if self._closed:
                raise EngineUnreachable(f"the connection to {self.login} was closed")
            if not self.process or self.process.poll() is not None or not self._socket.exists():
                self.end()
                began = time.monotonic()
                self._start()
                state = self._read_state()
                answer = state.decode() or "no answer"
                trace.log(f"{self.login.command}: {answer}", began)
                self._require_ready(state)
            return self._socket

    def close(self) -> None:
        """End ssh."""
        with self._lock:
            self._closed = True
            self.end()

    @classmethod
    def close_all(cls) -> None:
        """End every ssh of this process, and start none from now on."""
        with cls._all_lock:
            cls._exiting = True
            connections = list(cls._all)
        for connection in connections:
            if connection.process:
                connection.process.terminate()
        for connection in connections:
            connection.end()

    def _start(self) -> None:
        with self._all_lock:
            if self._exiting:
                raise EngineUnreachable(f"cannot connect to {self.login}: imgload is exiting")
            folder = TemporaryFolder.make(socket_folder())
            self._log, self._socket = folder.path / "log", folder.path / "ssh.sock"
            try:
                with self._log.open("wb") as log:
                    self.process = subprocess.Popen(  # noqa: S603 - `Login.parse` checks every word
                        self._argv(),
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

    @abstractmethod
    def _argv(self) -> list[str]:
        """Return the ssh command; it prints ``imgload: STATE``, and ends with its input."""

    @abstractmethod
    def _require_ready(self, state: bytes) -> None:
        """Raise an EngineError for a state in which the connection cannot be used."""

    def _failed(self) -> EngineUnreachable:
        """End ssh, and return its error."""
        return EngineUnreachable(
            f"ssh to {self.login} failed: {self._end_with_reason() or 'it did not answer'}",
            hint=f"make this command work without a prompt: {self.login.command} true",
        )

    def _end_with_reason(self) -> str:
        """End ssh, and return the last line that it or its command printed.

        The command ends with its input; a line may arrive after the command's state.
        """
        if self.process and self.process.stdin:
            self.process.stdin.close()
            with suppress(subprocess.TimeoutExpired):
                self.process.wait(_REASON_SECONDS)
        with self._log.open("rb") as log:
            log.seek(max(0, log.seek(0, 2) - _MAX_OUTPUT))
            lines = reason(log.read().decode(errors="replace")).splitlines()
        self.end()
        return next((line.strip() for line in reversed(lines) if line.strip()), "")

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


class SshTunnel(SshConnection):
    """A socket on another machine, forwarded to a local one."""

    def __init__(self, remote: Remote) -> None:
        super().__init__(remote.login)
        self.remote = remote

    def open(self) -> str:
        """Return the local address, also after `close`."""
        with self._lock:
            self._closed = False
        return self.url

    @property
    def url(self) -> str:
        """The local address, which changes if ssh ended and was started again; EngineError."""
        return f"unix://{self.socket}"

    def _argv(self) -> list[str]:
        return self.remote.argv(self._socket)

    def _require_ready(self, state: bytes) -> None:
        login, path = self.login, self.remote.path
        if state == b"absent":
            raise EngineUnreachable(
                f"{path} does not exist on {login}",
                hint=f"append the socket's path to the address; see: {login.command} ls /run",
            )
        if state == b"denied":
            raise EngineNotPermitted(
                f"{login} may not open {path}",
                hint=f"join the socket's group: {login.command} sudo usermod -aG docker $USER",
            )
        if state != b"ready" or not self._socket.exists():
            raise self._failed()


class SshMaster(SshConnection):
    """A connection that the ssh processes of many commands share; they run as root."""

    _sudo: tuple[str, ...] = ()

    @property
    def sudo(self) -> tuple[str, ...]:
        """The words before a command that make it run as root; EngineError."""
        return self._sudo if self.socket else ()

    def client(self, command: str) -> list[str]:
        """Return the ssh command that runs a text in the login shell; EngineError."""
        return self.login.argv(f"ControlPath={self.socket}", "ControlMaster=no", command=command)

    def _argv(self) -> list[str]:
        check = shlex.join(["sh", "-c", _CHECK_RIGHTS, "imgload", _ODD_WORD])
        master = ("ControlMaster=yes", "ControlPersist=no", f"ControlPath={self._socket}")
        options = (*master, "ClearAllForwardings=yes")
        return self.login.argv(*options, command=check)

    def _require_ready(self, state: bytes) -> None:
        login = self.login
        if state == b"denied":
            why = self._end_with_reason() or "sudo -n failed"
            rule = "echo $(id -un) ALL=NOPASSWD: ALL | sudo tee /etc/sudoers.d/imgload"
            raise EngineNotPermitted(
                f"{login} is not root, as its container runtime requires, and cannot become root:"
                f" {why}",
                hint=f"allow it to use sudo without a password; on {login.host} run: {rule}",
            )
        if state == b"shell":
            self.end()
            raise EngineUnreachable(
                f"the login shell of {login} changes quoted words, as fish does",
                hint=f"log in as a user whose shell is sh or bash: {login.command} sh",
            )
        if state not in {b"root", b"sudo"} or not self._socket.exists():
            raise self._failed()
        self._sudo = ("sudo", "-n", "--") if state == b"sudo" else ()


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


close_all = SshConnection.close_all
