"""An ssh server on this machine, with its own keys and settings."""

import os
import shutil
import socket
from pathlib import Path

import attrs

from tests.lab.daemon import Daemon
from tests.lab.shell import run, write

_SEPARATION = Path("/run/sshd")
"""An empty folder that sshd requires, which the service of its package also creates."""
_SERVER = """\
Port {port}
ListenAddress 127.0.0.1
HostKey {folder}/host
AuthorizedKeysFile {folder}/user.pub
PidFile none
UsePAM no
StrictModes no
PermitRootLogin yes
{more}
"""
_CLIENT = """\
Host *
    IdentityFile {folder}/user
    IdentitiesOnly yes
    UserKnownHostsFile {folder}/known_hosts
    GlobalKnownHostsFile /dev/null
"""
_WRAPPER = """\
#!/bin/sh
exec {ssh} -F {folder}/config "$@"
"""


def write_client(folder: Path, host: str) -> None:
    """Create the keys of a host and a user, and an ssh that has the latter and knows the former.

    A second host in the same folder gets the same keys.
    """
    for name in ("host", "user"):
        if not (folder / name).exists():
            run("ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", folder / name)
    key = (folder / "host.pub").read_text().rsplit(maxsplit=1)[0]
    known = folder / "known_hosts"
    write(known, f"{known.read_text() if known.exists() else ''}{host} {key}\n")
    write(folder / "config", _CLIENT.format(folder=folder))
    write(folder / "bin/ssh", _WRAPPER.format(folder=folder, ssh=shutil.which("ssh")), 0o755)


@attrs.frozen
class Sshd:
    """A server that accepts its key for any user; all users must be able to enter its folder."""

    folder: Path
    port: int

    @classmethod
    def start(cls, folder: Path, more: str = "") -> "Sshd":
        """Create keys and settings, and start the server.

        Args:
            folder: folder for its files.
            more: additional lines for its settings.

        """
        with socket.create_server(("127.0.0.1", 0)) as free:
            port = int(free.getsockname()[1])
        server = cls(folder, port)
        write_client(folder, f"[127.0.0.1]:{port}")
        write(folder / "sshd_config", _SERVER.format(folder=folder, port=port, more=more))
        _SEPARATION.mkdir(mode=0o755, exist_ok=True)
        server.daemon.start()
        return server

    def stop(self) -> None:
        """Stop the server."""
        self.daemon.stop()

    @property
    def daemon(self) -> Daemon:
        """The process."""
        argv = ("/usr/sbin/sshd", "-D", "-e", "-f", str(self.folder / "sshd_config"))
        return Daemon("sshd", argv, self.folder, self._answers)

    @property
    def path(self) -> str:
        """A PATH with an ssh that has the key and knows the server."""
        return f"{self.folder / 'bin'}:{os.environ['PATH']}"

    def url(self, path: str, user: str = "root") -> str:
        """Return the address of a socket over this server."""
        return f"ssh://{user}@127.0.0.1:{self.port}{path}"

    def _answers(self) -> bool:
        try:
            with socket.create_connection(("127.0.0.1", self.port), 1) as connection:
                return connection.recv(4) == b"SSH-"
        except OSError:
            return False
