"""A node with an ssh server and sudo, like a virtual machine: a container that no label marks."""

import io
import json
import os
import tarfile
import time
from collections.abc import Mapping
from pathlib import Path

import attrs

from tests.lab import suites
from tests.lab.cluster import Node
from tests.lab.shape import Kind
from tests.lab.shell import LabError
from tests.lab.sshd import write_client

ADMIN, GUEST = "admin", "guest"
"""Users: one may use sudo without a password, and the other may not."""
_PATIENCE = 10.0
_ACCOUNTS = f"""\
sshd:*:100:65534::/run/sshd:/bin/false
{ADMIN}:*:1000:1000::/tmp:/bin/sh
{GUEST}:*:1001:1001::/tmp:/bin/sh
"""
_SERVER = """\
HostKey /etc/ssh/host
AuthorizedKeysFile /etc/ssh/user.pub
PidFile none
UsePAM no
StrictModes no
PermitRootLogin yes
"""
_PAM = (
    "auth required pam_permit.so\naccount required pam_permit.so\nsession required pam_permit.so\n"
)
_START = f"""
printf '%s' '{_ACCOUNTS}' >>/etc/passwd
printf 'root:x:0:\\n{ADMIN}:x:1000:\\n{GUEST}:x:1001:\\n' >>/etc/group
chown -R 0:0 /etc/ssh /etc/sudoers /usr/bin/sudo /usr/libexec/sudo
chmod 4755 /usr/bin/sudo
mkdir -p /run/sshd /run/sudo
exec /usr/sbin/sshd -E /var/log/sshd.log
"""


class Unlabelled(Kind):
    """A node that no provider recognises."""

    def labels(self, cluster: str, name: str, role: str) -> dict[str, str]:
        del cluster, name, role
        return {}


@attrs.frozen
class Vm:
    """A node with a running ssh server; `folder` has the keys and settings of a client."""

    node: Node
    folder: Path
    address: str

    @classmethod
    def start(cls, node: Node, folder: Path) -> "Vm":
        """Install the server in a running node, and start it.

        Args:
            node: the node.
            folder: a folder that every user may enter, empty or that of other machines.

        """
        shown = json.loads(node.engine.cli("inspect", node.name))[0]["NetworkSettings"]
        [network] = shown["Networks"].values()
        vm = cls(node, folder, network["IPAddress"])
        write_client(folder, vm.address)
        files = {
            "etc/ssh/sshd_config": (_SERVER.encode(), 0o600),
            "etc/ssh/host": ((folder / "host").read_bytes(), 0o600),
            "etc/ssh/user.pub": ((folder / "user.pub").read_bytes(), 0o644),
            "etc/sudoers": (f"root ALL=(ALL) ALL\n{ADMIN} ALL=NOPASSWD: ALL\n".encode(), 0o440),
            "etc/pam.d/sudo": (_PAM.encode(), 0o644),
        }
        tree = suites.tree(node.engine.paths.cache, "sshd", "9.2")
        lib = node.exec("readlink", "-f", "/lib").strip().lstrip("/")  # or usr/lib, if merged
        node.engine.cli("cp", "-", f"{node.name}:/", stdin=_tar(tree, lib, files))
        node.exec("sh", "-c", _START)
        deadline = time.monotonic() + _PATIENCE
        while "listening" not in (log := node.exec("cat", "/var/log/sshd.log")):
            if time.monotonic() > deadline:
                raise LabError(f"sshd does not start: {log}")
            time.sleep(0.05)
        return vm

    @property
    def path(self) -> str:
        """A PATH with an ssh that has the key and knows the server."""
        return f"{self.folder / 'bin'}:{os.environ['PATH']}"

    def url(self, user: str = "root") -> str:
        """Return the address for `--node`."""
        return f"ssh://{user}@{self.address}"


def _tar(tree: Path, lib: str, files: Mapping[str, tuple[bytes, int]]) -> bytes:
    """Return an archive of the programs and libraries in a tree, and of some files."""
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as archive:
        archive.add(tree / "lib", lib)
        for name in ("usr/lib", "usr/bin", "usr/libexec", "usr/sbin"):
            archive.add(tree / name, name)
        for name, (content, mode) in files.items():
            member = tarfile.TarInfo(name)
            member.size, member.mode = len(content), mode
            archive.addfile(member, io.BytesIO(content))
    return buffer.getvalue()
