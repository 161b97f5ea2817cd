"""The endpoint of a container engine: its kind, address, API version and TLS; hints about it."""

from __future__ import annotations

import re
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Literal, Protocol
from urllib.parse import urlsplit

import attrs

from imgload.core.errors import EngineUnreachable

if TYPE_CHECKING:
    import ssl


EngineKind = Literal["docker", "podman"]
HostKind = Literal["docker", "podman", "ssh"]
"""An engine, or a machine that is itself a node."""
_START_COMMANDS = (
    (r"/\.colima/(default|\*)/", "colima start"),
    (r"/\.colima/(?P<name>[\w-]+)/", "colima start {name}"),
    (r"/\.orbstack/", "orb start"),
    (r"/\.rd/", "rdctl start"),
    (r"/\.docker/(desktop|run)/", "docker desktop start"),
    (r"podman/machine/|-api\.sock$", "podman machine start"),
    (r"^unix:///run/user/\d+/docker\.sock$", "systemctl --user start docker"),
    (r"^unix:///run/user/\d+/podman/podman\.sock$", "systemctl --user start podman.socket"),
    (r"^unix:///run/podman/", "sudo systemctl start podman.socket"),
    (r"^unix://(/var)?/run/docker\.sock$", "sudo systemctl start docker"),
)
"""The command for each pattern of an address."""
_START_ANY = {
    "linux": "sudo systemctl start docker, or systemctl --user start podman.socket",
    "darwin": "docker desktop start, colima start, or podman machine start",
}
_PERMIT: dict[HostKind, str] = {
    "docker": "join the socket's group (sudo usermod -aG docker $USER, then log in again)",
    "podman": "start a Podman of your own (systemctl --user start podman.socket)",
}
_LOOPBACK = re.compile(r"localhost|::1|127(\.[0-9]{1,3}){3}", re.ASCII)


class Tunnel(Protocol):
    """A connection to another machine that ends in a socket on this one, whose address is `url`.

    `url` reconnects if the connection was lost, and `open` also after `close`.
    """

    @property
    def url(self) -> str: ...
    def open(self) -> str: ...
    def close(self) -> None: ...


@attrs.frozen
class Tls:
    """The files for a TLS connection: certificate authorities, and the client's certificate."""

    ca: Path | None = None  # None for the system's authorities
    cert: Path | None = None
    key: Path | None = None
    verify: bool = True  # whether to verify the engine's certificate

    @classmethod
    def in_folder(cls, folder: Path, *, verify: bool) -> Tls:
        """Return the settings with those of Docker's three files that exist in a folder."""
        paths = (folder / name for name in ("ca.pem", "cert.pem", "key.pem"))
        ca, cert, key = (path if path.exists() else None for path in paths)
        return cls(ca, cert, key, verify)

    def context(self) -> ssl.SSLContext:
        """Read the files; EngineUnreachable if one cannot be used.

        Python from 3.13 on has stricter requirements for certificates than Go. They are turned
        off: Docker's own instructions create certificates that violate them.
        """
        import ssl  # noqa: PLC0415 - start-up

        try:
            context = ssl.create_default_context(cafile=self.ca)
            if self.cert and self.key:
                context.load_cert_chain(self.cert, self.key)
        except (OSError, ValueError) as error:
            files = ", ".join(str(path) for path in (self.ca, self.cert, self.key) if path)
            raise EngineUnreachable(
                f"the TLS files cannot be used ({files}): {error}",
                hint="check that they are readable PEM files that belong together",
            ) from error
        context.verify_flags &= ~getattr(ssl, "VERIFY_X509_STRICT", 0)
        if not self.verify:
            context.check_hostname = False
            context.verify_mode = ssl.CERT_NONE
        return context


@attrs.frozen
class Endpoint:
    """The endpoint of an engine."""

    kind: HostKind
    url: str  # ``unix:///path``, ``tcp://host:port`` or ``ssh://user@host``
    origin: str = attrs.field(default="", eq=False)
    """The variable, settings file or product that the address comes from, for messages."""
    version: str = attrs.field(default="", eq=False)
    """Of the engine's API, according to its ping; empty if unknown."""
    tls: Tls | None = attrs.field(default=None, eq=False, repr=False)
    tunnel: Tunnel | None = attrs.field(default=None, eq=False, repr=False)

    @property
    def local(self) -> bool:
        """Whether the address is a socket or a loopback port, which may lead to a relay or VM."""
        parts = urlsplit(self.url)
        if parts.scheme == "unix":
            return True
        return parts.scheme == "tcp" and _LOOPBACK.fullmatch(parts.hostname or "") is not None

    def __str__(self) -> str:
        return self.url if self.kind == "ssh" else f"{self.kind} at {self.url}"


def start(url: str) -> str:
    """Return the command that starts the engine at an address."""
    for pattern, command in _START_COMMANDS:
        if match := re.search(pattern, url):
            return command.format(**match.groupdict())
    return f"start the engine that listens at {url}"


def start_any() -> str:
    return _START_ANY.get(sys.platform, "start Docker or Podman")


def permit(kind: HostKind) -> str:
    """Return how to get permission for an engine's socket."""
    return f"{_PERMIT[kind]}, or run as a user with access to it"
