"""Docker contexts: named addresses, as the docker CLI keeps them.

``contexts/meta/ID/meta.json`` has the address and ``contexts/tls/ID/docker`` the TLS files, where
ID is the SHA-256 of the name (docker/cli, cli/context/store).
"""

from __future__ import annotations

import shlex
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING

import attrs

from imgload.core.errors import EngineUnreachable
from imgload.engines.discovery.attempt import Candidate
from imgload.engines.discovery.config_files import dig, home_folder, read_json, text_at

if TYPE_CHECKING:
    from imgload.engines.tls import Tls

_DEFAULT = "default"
_MOST = 100
_LONGEST = 200
_ALL_BACK = "docker context use default"


def chosen_context(environ: Mapping[str, str]) -> Candidate | None:
    """Return the context that ``DOCKER_CONTEXT`` or else the docker CLI's settings choose.

    None stands for the default one: the usual places.

    Raises:
        EngineUnreachable: when the CLI's settings cannot be read.

    """
    folder = _folder(environ)
    if name := environ.get("DOCKER_CONTEXT"):
        return _choice(folder, name, f"DOCKER_CONTEXT={name}", "unset DOCKER_CONTEXT")
    name = text_at(read_json(folder / "config.json"), "currentContext")
    found = _choice(folder, name, f"the current Docker context {name!r}", _ALL_BACK)
    return attrs.evolve(found, explicit=False) if found else None


def other_contexts(environ: Mapping[str, str]) -> Iterator[Candidate]:
    """Yield every context, chosen or not."""
    folder = _folder(environ)
    for name in _names(folder):
        found = _choice(folder, name, f"the Docker context {name!r}", "")
        if found:
            take = f"docker context use {shlex.quote(name)}"
            yield attrs.evolve(found, explicit=False, chosen=False, take=take)


def _choice(folder: Path, name: str, origin: str, undo: str) -> Candidate | None:
    if name in {"", _DEFAULT}:
        return None
    shown = f"{origin[:_LONGEST]}…" if len(origin) > _LONGEST else origin
    empty = Candidate("docker", "", shown, explicit=True, chosen=True, undo=undo)
    try:
        return _context(folder, name, empty)
    except EngineUnreachable as error:
        return attrs.evolve(empty, problem=error)


def _context(folder: Path, name: str, empty: Candidate) -> Candidate | None:
    """Return the candidate with its address, or None where the context has the default one."""
    identity = _identity(name)
    meta = read_json(folder / "contexts" / "meta" / identity / "meta.json")
    if meta is None:
        raise EngineUnreachable(
            f"{empty.origin}: there is no such Docker context; there: {_listed(folder)}",
            hint=f"{empty.undo}; or choose one that is there: docker context use NAME",
        )
    endpoint = dig(meta, "Endpoints", "docker")
    if not isinstance(endpoint, dict) or not isinstance(endpoint.get("Host", ""), str):
        raise EngineUnreachable(
            f"{empty.origin}: the Docker context has no engine's address",
            hint=f"see what it has: docker context inspect {shlex.quote(name)}",
        )
    verify = endpoint.get("SkipTLSVerify") is not True
    tls = _tls(folder / "contexts" / "tls" / identity / "docker", verify=verify)
    host = text_at(endpoint, "Host")
    return attrs.evolve(empty, url=host, tls=tls) if host else None


def _tls(folder: Path, *, verify: bool) -> Tls | None:
    if verify and not folder.is_dir():
        return None
    from imgload.engines.tls import Tls  # noqa: PLC0415 - start-up

    return Tls.in_folder(folder, verify=verify)


def _identity(name: str) -> str:
    from hashlib import sha256  # noqa: PLC0415 - start-up

    return sha256(name.encode(errors="surrogatepass")).hexdigest()


def _listed(folder: Path) -> str:
    return ", ".join([_DEFAULT, *_names(folder)])


def _names(folder: Path) -> list[str]:
    try:
        files = sorted((folder / "contexts" / "meta").glob("*/meta.json"))[:_MOST]
    except OSError:
        return []
    return sorted(filter(None, (_name(file) for file in files)))


def _name(file: Path) -> str:
    try:
        return text_at(read_json(file), "Name")
    except EngineUnreachable:
        return ""


def _folder(environ: Mapping[str, str]) -> Path:
    named = environ.get("DOCKER_CONFIG")
    return Path(named) if named else home_folder(environ) / ".docker"
