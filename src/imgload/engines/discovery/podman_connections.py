"""Podman connections: named addresses, as the podman CLI keeps them.

``podman-connections.json`` has them from Podman 5 on, ``containers.conf`` before and still, and
the former wins (containers/common, pkg/config/connections.go and new.go).
"""

from __future__ import annotations

import shlex
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import attrs

from imgload.core.errors import EngineUnreachable
from imgload.engines.discovery.attempt import Candidate
from imgload.engines.discovery.config_files import dig, home_folder, read_json, read_toml, text_at

_WORDS = ("service",)
"""In ``active_service`` and ``service_destinations``, which is all that is read of a file."""
_MOST = 100
_SYSTEM = (Path("/usr/share/containers"), Path("/etc/containers"))
Connections = dict[str, Candidate]


def chosen_connection(environ: Mapping[str, str]) -> Candidate | None:
    """Return the connection that ``CONTAINER_CONNECTION`` names."""
    name = environ.get("CONTAINER_CONNECTION")
    if not name:
        return None
    origin = f"CONTAINER_CONNECTION={name}"
    undo = "unset CONTAINER_CONNECTION"
    choice = Candidate("podman", "", origin, explicit=True, chosen=True, undo=undo)
    try:
        _, found = read_connections(environ)
    except EngineUnreachable as error:
        return attrs.evolve(choice, problem=error)
    if name not in found:
        return attrs.evolve(choice, problem=_absent(origin, found))
    there = found[name]
    return attrs.evolve(choice, url=there.url, identity=there.identity, machine=there.machine)


def default_connection(environ: Mapping[str, str]) -> Candidate | None:
    """Return the connection that Podman takes by itself.

    One that leads over the network is a last resort: on Linux Podman does not take it, and a
    virtual machine of Podman has a socket here as well.

    Raises:
        EngineUnreachable: when the settings cannot be read.

    """
    default, named = read_connections(environ)
    return named.get(default)


def other_connections(environ: Mapping[str, str]) -> Iterator[Candidate]:
    """Yield every connection."""
    yield from read_connections(environ)[1].values()


def read_connections(environ: Mapping[str, str]) -> tuple[str, Connections]:
    """Return the connections of every settings file, after the name of Podman's own choice.

    Raises:
        EngineUnreachable: when a file cannot be read or understood.

    """
    default = ""
    named: Connections = {}
    for path in _settings(environ):
        engine = dig(read_toml(path, _WORDS), "engine")
        default = text_at(engine, "active_service") or default
        named |= dict(_destinations(dig(engine, "service_destinations"), "uri", "identity"))
    listed = dig(read_json(_connections_file(environ)), "Connection")
    named |= dict(_destinations(dig(listed, "Connections"), "URI", "Identity"))
    return text_at(listed, "Default") or default, named


def _destinations(table: Any, uri: str, identity: str) -> Iterator[tuple[str, Candidate]]:
    for name, entry in list(table.items())[:_MOST] if isinstance(table, dict) else ():
        if url := text_at(entry, uri):
            machine = dig(entry, "is_machine") is True or dig(entry, "IsMachine") is True
            yield (
                name,
                Candidate(
                    "podman",
                    url,
                    f"the Podman connection {name!r}",
                    last_resort=not url.startswith("unix://"),
                    identity=text_at(entry, identity),
                    machine=machine,
                    take=f"export CONTAINER_CONNECTION={shlex.quote(name)}",
                ),
            )


def _absent(origin: str, found: Connections) -> EngineUnreachable:
    there = ", ".join(sorted(found)) or "none"
    return EngineUnreachable(
        f"{origin}: there is no such Podman connection; there: {there}",
        hint="unset CONTAINER_CONNECTION; or see what is there: podman system connection list",
    )


def _settings(environ: Mapping[str, str]) -> Iterator[Path]:
    """Yield the files that may say something, the strongest last."""
    if named := environ.get("CONTAINERS_CONF"):
        yield Path(named)
    else:
        for path in (*_SYSTEM, _own_folder(environ)):
            yield path / "containers.conf"
            yield from sorted((path / "containers.conf.d").glob("*.conf"))[:_MOST]
    if last := environ.get("CONTAINERS_CONF_OVERRIDE"):
        yield Path(last)


def _connections_file(environ: Mapping[str, str]) -> Path:
    named = environ.get("PODMAN_CONNECTIONS_CONF")
    return Path(named) if named else _own_folder(environ) / "podman-connections.json"


def _own_folder(environ: Mapping[str, str]) -> Path:
    named = environ.get("XDG_CONFIG_HOME")
    return (Path(named) if named else home_folder(environ) / ".config") / "containers"
