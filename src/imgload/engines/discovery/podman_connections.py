"""Podman connections: named addresses of the podman CLI.

Podman 5 keeps them in ``podman-connections.json``. Earlier versions keep them in
``containers.conf``, which Podman 5 still reads; the former has precedence (containers/common,
pkg/config/connections.go and new.go).
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
"""Part of ``active_service`` and ``service_destinations``, the only settings read here."""
_MAX_ENTRIES = 100
_SYSTEM = (Path("/usr/share/containers"), Path("/etc/containers"))
Session = dict[str, Candidate]


def chosen_connection(environ: Mapping[str, str]) -> Candidate | None:
    """Return the connection that ``CONTAINER_CONNECTION`` names, perhaps with a problem."""
    name = environ.get("CONTAINER_CONNECTION")
    if not name:
        return None
    origin, undo = f"CONTAINER_CONNECTION={name}", "unset CONTAINER_CONNECTION"
    choice = Candidate("podman", "", origin, explicit=True, chosen=True, undo=undo)
    try:
        _, connections = read_connections(environ)
    except EngineUnreachable as error:
        return attrs.evolve(choice, problem=error)
    if match := connections.get(name):
        return attrs.evolve(choice, url=match.url, identity=match.identity, machine=match.machine)
    available = ", ".join(sorted(connections)) or "none"
    problem = EngineUnreachable(
        f"{origin}: there is no such Podman connection; available: {available}",
        hint="unset CONTAINER_CONNECTION; or list them: podman system connection list",
    )
    return attrs.evolve(choice, problem=problem)


def default_connection(environ: Mapping[str, str]) -> Candidate | None:
    """Return Podman's default connection; EngineUnreachable if the settings cannot be read.

    One over the network is a last resort: Podman on Linux does not use it, and a Podman virtual
    machine also has a local socket.
    """
    default, connections = read_connections(environ)
    return connections.get(default)


def other_connections(environ: Mapping[str, str]) -> Iterator[Candidate]:
    """Yield every connection; EngineUnreachable if the settings cannot be read."""
    yield from read_connections(environ)[1].values()


def read_connections(environ: Mapping[str, str]) -> tuple[str, Session]:
    """Return the default's name, and all connections; EngineUnreachable for an invalid file."""
    default = ""
    connections: Session = {}
    for path in _settings_files(environ):
        engine = dig(read_toml(path, _WORDS), "engine")
        default = text_at(engine, "active_service") or default
        connections |= _parse(dig(engine, "service_destinations"), "uri", "identity")
    named = environ.get("PODMAN_CONNECTIONS_CONF")
    path = Path(named) if named else _user_folder(environ) / "podman-connections.json"
    document = dig(read_json(path), "Connection")
    connections |= _parse(dig(document, "Connections"), "URI", "Identity")
    return text_at(document, "Default") or default, connections


def _parse(table: Any, uri: str, identity: str) -> Session:
    connections = {}
    for name, entry in list(table.items())[:_MAX_ENTRIES] if isinstance(table, dict) else ():
        if url := text_at(entry, uri):
            connections[name] = Candidate(
                "podman",
                url,
                f"the Podman connection {name!r}",
                last_resort=not url.startswith("unix://"),
                identity=text_at(entry, identity),
                machine=dig(entry, "is_machine") is True or dig(entry, "IsMachine") is True,
                take=f"export CONTAINER_CONNECTION={shlex.quote(name)}",
            )
    return connections


def _settings_files(environ: Mapping[str, str]) -> Iterator[Path]:
    """Yield the paths of settings files in ascending order of precedence."""
    if named := environ.get("CONTAINERS_CONF"):
        yield Path(named)
    else:
        for folder in (*_SYSTEM, _user_folder(environ)):
            yield folder / "containers.conf"
            yield from sorted((folder / "containers.conf.d").glob("*.conf"))[:_MAX_ENTRIES]
    if override := environ.get("CONTAINERS_CONF_OVERRIDE"):
        yield Path(override)


def _user_folder(environ: Mapping[str, str]) -> Path:
    named = environ.get("XDG_CONFIG_HOME")
    return (Path(named) if named else home_folder(environ) / ".config") / "containers"
