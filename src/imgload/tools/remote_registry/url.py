"""Where a registry is, and whose names it answers for; pure."""

from __future__ import annotations

import re
from collections.abc import Sequence
from ipaddress import ip_address
from typing import Literal, cast

import attrs

from imgload.core.errors import UsageError
from imgload.oci.reference import Reference, is_registry, string

_URL = re.compile(r"(https?)://([^/]{1,300})/?", re.ASCII)
_PORT = re.compile(r"(.*?)(?::([0-9]{1,5}))?", re.ASCII)
_EXAMPLE = "write it as http://HOST:PORT or https://HOST, for example http://registry:5000"
_HIGHEST_PORT = 65535


@attrs.frozen
class RegistryUrl:
    """A registry's address.

    Args:
        scheme: how it is spoken to.
        host: its name or IP address, and its port where one was written; valid as an image
            name's first part, and therefore as the name of a folder.

    """

    scheme: Literal["http", "https"]
    host: str

    @classmethod
    def parse(cls, text: str) -> RegistryUrl:
        """Parse ``http://host:port``.

        Raises:
            UsageError: when it is anything else; a path, a user or a password are, too.

        """
        match = _URL.fullmatch(string(text, "url"))
        if not match or not is_registry(match.group(2)) or not _has_port(match.group(2)):
            raise UsageError(f"not a registry's URL: {text!r:.300}", hint=_EXAMPLE)
        return cls(cast("Literal['http', 'https']", match.group(1)), match.group(2))

    @property
    def is_loopback(self) -> bool:
        """Whether it means another machine wherever it is used."""
        name = split_port(self.host)[0].strip("[]")
        try:
            address = ip_address(name)
        except ValueError:
            return name == "localhost" or name.endswith(".localhost")
        return address.is_loopback or address.is_unspecified

    def __str__(self) -> str:
        return f"{self.scheme}://{self.host}"


def split_port(host: str) -> tuple[str, int | None]:
    """Return a host and its port, None where none was written."""
    match = _PORT.fullmatch(host)
    name, port = match.groups() if match else (host, None)
    return name, int(port) if port else None


def _has_port(host: str) -> bool:
    """Whether the port, if any, is one."""
    port = split_port(host)[1]
    return port is None or 0 < port <= _HIGHEST_PORT


def registry_names(url: RegistryUrl, mirrors: Sequence[str]) -> tuple[str, ...]:
    """Return the registries whose images come from this one: itself, and the mirrored.

    Args:
        url: the registry.
        mirrors: registries as in image names, ``docker.io`` or ``localhost:5001``.

    Raises:
        UsageError: when a mirror is not a registry's name.

    """
    for name in mirrors:
        if not is_registry(name) or not _has_port(name):
            raise UsageError(
                f"not a registry's name: {name!r:.300}",
                hint="write it as in an image's name: docker.io, ghcr.io or localhost:5001",
            )
    return tuple(dict.fromkeys([url.host, *map(_canonical, mirrors)]))


def _canonical(name: str) -> str:
    """Return ``docker.io`` for its other name."""
    return "docker.io" if name == "index.docker.io" else name


def repositories(name: Reference) -> tuple[str, ...]:
    """Return the repositories that an image has in a registry.

    Docker Hub's own have a short name, and are asked of its mirrors by the whole one.
    """
    short = name.untagged.familiar.removeprefix(f"{name.registry}/")
    return tuple(dict.fromkeys((short, name.repository)))
