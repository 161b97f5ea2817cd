"""A machine that is reached by ssh, as the host of one node: the machine itself."""

from __future__ import annotations

import hashlib
import os
import secrets
import shlex
import socket
import subprocess
import threading
from collections.abc import Iterable, Sequence
from contextlib import suppress
from typing import ClassVar
from weakref import WeakValueDictionary

import attrs

from imgload.core.errors import EngineFailed, EngineUnreachable, UsageError, reason
from imgload.engines.base import CHUNK, Chunk, Container, ContainerHost, ExecResult
from imgload.engines.endpoint import Endpoint
from imgload.engines.exec_stream import CommandStream
from imgload.engines.ssh import Login, SshMaster

_SSH_FAILED = 255
_RUN = (
    "PATH=$PATH:/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin;"
    ' echo "$1"; shift; "$@"; status=$?; [ $status != 255 ] || status=254; exit $status'
)
"""Runs a command after it has printed a marker, since the login shell may print a greeting. 255 is
ssh's own failure. sudo and non-interactive logins have a short PATH."""
_FROM_INPUT = "sh -c 'eval \"$(cat)\"'"
_MAX_COMMAND = 120_000
"""Bytes of a command for the login shell, whose argument it is: Linux takes at most 128 KiB."""
_END_SECONDS, _ERRORS = 2.0, 1 << 16


class SshMachine(ContainerHost):
    """A machine, and a connection by the user's ssh that its commands share.

    Commands run as root, by ``sudo -n`` if the user is another one.

    Args:
        login: how to log in.
        node: the node that the machine is.
        origin: the product that the address comes from; empty if the user named it.
        start_command: the command that starts the machine; empty if it is unknown.

    """

    _all: ClassVar[WeakValueDictionary[tuple[Login, str], SshMachine]] = WeakValueDictionary()
    _all_lock: ClassVar = threading.Lock()

    def __init__(
        self, login: Login, node: Container, origin: str = "", start_command: str = ""
    ) -> None:
        self.login, self.node, self.start_command = login, node, start_command
        self.endpoint = Endpoint("ssh", login.url, origin)
        self._master = SshMaster(login)

    @classmethod
    def of(
        cls, login: Login, node: Container, origin: str = "", start_command: str = ""
    ) -> SshMachine:
        """Return the machine, with its connection if it has one; arguments as above.

        The node's ID is derived from the address, so that nothing is read from the machine.
        """
        key = f"{login.config}\n{login.url}"
        node = attrs.evolve(node, id=hashlib.sha256(key.encode()).hexdigest())
        with cls._all_lock:
            machine = cls._all.get((login, node.name))
            if machine is None:
                machine = cls._all[login, node.name] = cls(login, node, origin, start_command)
            machine.node = node
            return machine

    def close(self) -> None:
        self._master.close()
        self._master = SshMaster(self.login)

    def containers(self, label: str) -> list[Container]:
        key, _, value = label.partition("=")
        found = self.node.labels.get(key)
        return [self.node] if found is not None and value in {"", found} else []

    def container(self, name: str) -> Container | None:
        return self.node if name in {self.node.name, self.node.id} else None

    def exec(
        self, container: str, argv: Sequence[str], stdin: Iterable[Chunk] | None = None
    ) -> ExecResult:
        del container
        master, marker = self._master, secrets.token_hex(8)
        command = shlex.join([*master.sudo, "sh", "-c", _RUN, "imgload", marker, *argv])
        if len(command.encode()) > _MAX_COMMAND:
            if stdin is not None:
                raise EngineFailed(f"a command for {self.login} is too long")
            stdin, command = [command.encode()], _FROM_INPUT
        stream = _SshStream.start(master.client(command))
        try:
            complete = stream.communicate(stdin)
            status = stream.wait()
        finally:
            stream.close()
        if status == _SSH_FAILED:
            message = reason(stream.stderr.decode(errors="replace")).strip().rpartition("\n")[2]
            raise EngineFailed(
                f"the ssh connection to {self.login} broke: {message or 'no reason given'}",
                hint=f"check it: {self.state_command(self.node.name)}",
            )
        if status == 0 and not complete:
            raise EngineFailed("the connection to a command broke before all was sent")
        _, _, stdout = bytes(stream.stdout).partition(f"{marker}\n".encode())
        return ExecResult(status, stdout, bytes(stream.stderr), complete)

    def put_archive(self, container: str, folder: str, archive: Iterable[Chunk]) -> None:
        result = self.exec(container, ("tar", "-C", folder, "-xf", "-"), archive)
        if result.exit_status:
            raise EngineFailed(f"copying to {self.login} failed: {result.message}")

    def exec_command(self, container: str, *argv: str) -> str:
        del container
        sudo = "" if self.login.user == "root" else "sudo "
        text = sudo + shlex.join(argv)
        is_plain = shlex.join(argv) == " ".join(argv)
        return f"{self.login.command} {text if is_plain else shlex.quote(text)}".rstrip()

    def state_command(self, container: str) -> str:
        del container
        return f"{self.login.command} true"

    def restart_command(self, container: str) -> str:
        return self.exec_command(container, "reboot")

    def logs_command(self, container: str) -> str:
        del container
        return ""

    def start_hint(self, container: Container) -> str:
        del container
        return self.start_command or f"start the machine, then: {self.login.command} true"


def parse_machine(url: str) -> SshMachine:
    """Return the machine at an address of the user's; UsageError if it is not valid."""
    try:
        login = Login.parse(url)
    except ValueError as error:
        raise UsageError(
            f"{url!r} is not the address of a machine: {error}",
            hint="name it as ssh://user@host or ssh://user@host:port",
        ) from error
    return SshMachine.of(login, Container("", login.url, "running", {}))


@attrs.define(eq=False, repr=False)
class _SshStream(CommandStream):
    """A running ssh, whose input and output are one socket."""

    _process: subprocess.Popen[bytes]

    @classmethod
    def start(cls, argv: Sequence[str]) -> _SshStream:
        own, other = socket.socketpair()
        try:
            process = subprocess.Popen(  # noqa: S603 - `Login.parse` checks every word of the address
                argv,
                stdin=other.fileno(),
                stdout=other.fileno(),
                stderr=subprocess.PIPE,
                start_new_session=True,
            )
        except OSError as error:
            own.close()
            raise EngineUnreachable(
                f"ssh cannot be run: {error.strerror}", hint="install an ssh client"
            ) from error
        finally:
            other.close()
        return cls(own, process)

    def wait(self) -> int:
        """Return the exit status of ssh, which has closed its output."""
        try:
            return self._process.wait(_END_SECONDS)
        except subprocess.TimeoutExpired as error:
            raise EngineFailed("ssh did not end after its command") from error

    def close(self) -> None:
        """End ssh; the command gets the end of its input."""
        super().close()
        with suppress(OSError):
            self._process.kill()
        self._process.wait()

    def _read(self) -> None:
        errors = threading.Thread(target=self._read_errors, name="exec-errors", daemon=True)
        errors.start()
        with suppress(ConnectionResetError):  # the command ended before it read all of its input
            while data := self._socket.recv(CHUNK):
                self._keep(self.stdout, data)
        errors.join(_END_SECONDS)

    def _read_errors(self) -> None:
        errors = self._process.stderr
        with suppress(OSError, ValueError):
            while errors and (data := os.read(errors.fileno(), _ERRORS)):
                self._keep(self.stderr, data)
