"""A registry: Debian's docker-registry, at an address that an engine's nodes can reach."""

import socket
from collections.abc import Iterator
from contextlib import contextmanager
from ipaddress import ip_network
from pathlib import Path

import attrs

from tests.lab import suites
from tests.lab.daemon import Daemon
from tests.lab.engine import NETWORK, Engine
from tests.lab.shell import write

_CONFIG = """\
version: 0.1
log: {{level: warn}}
storage: {{filesystem: {{rootdirectory: "{folder}"}}}}
http: {{addr: "{address}"}}
"""
_SUBNET = "{{(index .IPAM.Config 0).Subnet}}"


@attrs.frozen
class Registry:
    """A running registry; `address` is host and port."""

    address: str
    daemon: Daemon

    @property
    def url(self) -> str:
        """Its URL, for this machine and for the nodes."""
        return f"http://{self.address}"

    @property
    def requests(self) -> str:
        """The log of its requests, in Apache's format."""
        return self.daemon.log.read_text()


@contextmanager
def registry(engine: Engine, folder: Path, host: str = "") -> Iterator[Registry]:
    """Run a registry at the gateway of an engine's network, with its files in `folder`.

    `host` is another address, such as the loopback, from which Docker pulls without TLS.
    """
    tree = suites.tree(engine.paths.cache, "docker-registry", "2.8")
    subnet = engine.cli("network", "inspect", "--format", _SUBNET, NETWORK).strip()
    host = host or str(next(ip_network(subnet).hosts()))
    address = f"{host}:{_free_port(host)}"
    config = write(folder / "config.yml", _CONFIG.format(folder=folder / "data", address=address))
    program = str(tree / "usr/bin/docker-registry")
    daemon = Daemon(
        "docker-registry", (program, "serve", str(config)), folder, ready=lambda: _answers(address)
    )
    try:
        daemon.start()
        yield Registry(address, daemon)
    finally:
        daemon.stop()


def _free_port(host: str) -> int:
    with socket.socket() as server:
        server.bind((host, 0))
        return int(server.getsockname()[1])


def _answers(address: str) -> bool:
    host, _, port = address.partition(":")
    try:
        socket.create_connection((host, int(port)), timeout=1).close()
    except OSError:
        return False
    return True
