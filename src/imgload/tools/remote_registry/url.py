"""A registry's URL, and the names and repositories that it serves; no I/O."""

from __future__ import annotations

import re
from collections.abc import Sequence
from ipaddress import ip_address
from typing import Literal, cast

import attrs

from imgload.core.arguments import require_string
from imgload.core.errors import UsageError
from imgload.oci.reference import Reference, is_registry

_URL = re.compile(r"(https?)://([^/]{1,300})/?", re.ASCII)
_PORT = re.compile(r"(.*?)(?::([0-9]{1,5}))?", re.ASCII)
_MAX_PORT = 65535


@attrs.frozen
class RegistryUrl:
    """A registry's address.

    `host` has the port if the URL has one. It is valid as the first part of an image name, and
    therefore as the name of a folder.
    """

    scheme: Literal["http", "https"]
    host: str

    @classmethod
    def parse(cls, text: str) -> RegistryUrl:
        """Parse ``http://host:port``; UsageError if it has a path, a user or a password."""
        match = _URL.fullmatch(require_string(text, "url"))
        if not match or not _is_registry(match.group(2)):
            raise UsageError(
                f"not a registry's URL: {text!r:.300}",
                hint="write it as http://HOST:PORT or https://HOST, for example"
                " http://registry:5000",
            )
        return cls(cast("Literal['http', 'https']", match.group(1)), match.group(2))

    @property
    def is_loopback(self) -> bool:
        """Whether the host is the machine that uses the URL."""
        name = split_port(self.host)[0].strip("[]")
        try:
            address = ip_address(name)
        except ValueError:
            return name == "localhost" or name.endswith(".localhost")
        return address.is_loopback or address.is_unspecified

    def __str__(self) -> str:
        return f"{self.scheme}://{self.host}"


def split_port(host: str) -> tuple[str, int | None]:
    """Return a host and its port, or None without one."""
    match = _PORT.fullmatch(host)
    name, port = match.groups() if match else (host, None)
    return name, int(port) if port else None


def _is_registry(text: str) -> bool:
    port = split_port(text)[1]
    return is_registry(text) and (port is None or 0 < port <= _MAX_PORT)


def registry_names(url: RegistryUrl, mirrors: Sequence[str]) -> tuple[str, ...]:
    """Return the registries whose images nodes pull from this one: itself, and those it mirrors.

    They are named as in image names: ``docker.io`` or ``localhost:5001``. Raises UsageError for
    any other name.
    """
    for name in mirrors:
        if not _is_registry(name):
            raise UsageError(
                f"not a registry's name: {name!r:.300}",
                hint="write it as in an image's name: docker.io, ghcr.io or localhost:5001",
            )
    canonical = ("docker.io" if name == "index.docker.io" else name for name in mirrors)
    return tuple(dict.fromkeys([url.host, *canonical]))


def repositories(name: Reference) -> tuple[str, ...]:
    """Return the repositories for an image in a registry.

    An official image of Docker Hub gets two: clients ask a mirror for ``library/NAME``.
    """
    short = name.untagged.familiar.removeprefix(f"{name.registry}/")
    return tuple(dict.fromkeys((short, name.repository)))
