"""The endpoint of a container engine: its kind, address and API version."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Literal, Protocol
from urllib.parse import urlsplit

import attrs

if TYPE_CHECKING:
    from imgload.engines.tls import Tls


EngineKind = Literal["docker", "podman"]
_LOOPBACK = re.compile(r"localhost|::1|127(\.[0-9]{1,3}){3}", re.ASCII)


class Tunnel(Protocol):
    """A connection to another machine that ends in a socket on this one."""

    @property
    def url(self) -> str:
        """Return the socket's address; reconnect if the connection was lost."""

    def open(self) -> str:
        """Return the socket's address, also after `close`."""

    def close(self) -> None: ...


@attrs.frozen
class Endpoint:
    """The endpoint of an engine.

    Args:
        kind: the kind of engine, according to its ping.
        url: ``unix:///path``, ``tcp://host:port`` or ``ssh://user@host``.
        origin: the variable, settings file or product that the address comes from, for messages.
        version: of the engine's API, according to its ping; empty if unknown.
        tls: TLS settings; None for plain text.
        tunnel: the ssh tunnel to the engine; None for a direct connection.

    """

    kind: EngineKind
    url: str
    origin: str = attrs.field(default="", eq=False)
    version: str = attrs.field(default="", eq=False)
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
        return f"{self.kind} at {self.url}"
