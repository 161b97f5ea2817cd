"""The address of a container engine."""

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
        """Return the socket's address; connects again after the connection was lost."""

    def open(self) -> str:
        """Return the socket's address, also after `close`."""

    def close(self) -> None:
        """End the connection."""


@attrs.frozen
class Endpoint:
    """Where an engine answers.

    Args:
        kind: which engine it is, as its own ping says.
        url: ``unix:///path``, ``tcp://host:port`` or ``ssh://user@host``.
        origin: where the address was found, for messages.
        version: of the engine's own API, where its ping told it.
        tls: how to speak TLS to it; None for not at all.
        tunnel: the way to it through ssh; None for none.

    """

    kind: EngineKind
    url: str
    origin: str = attrs.field(default="", eq=False)
    version: str = attrs.field(default="", eq=False)
    tls: Tls | None = attrs.field(default=None, eq=False, repr=False)
    tunnel: Tunnel | None = attrs.field(default=None, eq=False, repr=False)

    @property
    def local(self) -> bool:
        """Whether the address is on this machine: a socket's path, or TCP on loopback.

        A relay or a VM may stand behind it all the same.
        """
        parts = urlsplit(self.url)
        if parts.scheme == "unix":
            return True
        host = parts.hostname or ""
        return parts.scheme == "tcp" and _LOOPBACK.fullmatch(host) is not None

    def __str__(self) -> str:
        return f"{self.kind} at {self.url}"
