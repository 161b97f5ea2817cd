"""Docker contexts: named addresses of the docker CLI.

``contexts/meta/ID/meta.json`` has the address and ``contexts/tls/ID/docker`` the TLS files, where
ID is the SHA-256 of the name (docker/cli, cli/context/store).
"""

from __future__ import annotations

import shlex
from collections.abc import Iterator, Mapping
from contextlib import suppress
from pathlib import Path

import attrs

from imgload.core.errors import EngineUnreachable
from imgload.engines.discovery.attempt import Candidate
from imgload.engines.discovery.config_files import dig, home_folder, read_json, text_at
from imgload.engines.endpoint import Tls

_DEFAULT = "default"
_MAX_CONTEXTS = 100
_MAX_ORIGIN = 200


def chosen_context(environ: Mapping[str, str]) -> Candidate | None:
    """Return the context of ``DOCKER_CONTEXT``, or else the docker CLI's current one.

    None means the default context: the usual sockets. EngineUnreachable for invalid CLI settings.
    """
    folder = _folder(environ)
    if name := environ.get("DOCKER_CONTEXT"):
        return _candidate(folder, name, f"DOCKER_CONTEXT={name}", "unset DOCKER_CONTEXT")
    name = text_at(read_json(folder / "config.json"), "currentContext")
    undo = "docker context use default"
    context = _candidate(folder, name, f"the current Docker context {name!r}", undo)
    return attrs.evolve(context, explicit=False) if context else None


def other_contexts(environ: Mapping[str, str]) -> Iterator[Candidate]:
    """Yield every context, the chosen one included."""
    folder = _folder(environ)
    for name in _names(folder):
        if context := _candidate(folder, name, f"the Docker context {name!r}", ""):
            take = f"docker context use {shlex.quote(name)}"
            yield attrs.evolve(context, explicit=False, chosen=False, take=take)


def _candidate(folder: Path, name: str, origin: str, undo: str) -> Candidate | None:
    """Return a context's candidate, perhaps with a problem; None if it has the default address."""
    if name in {"", _DEFAULT}:
        return None
    shown = f"{origin[:_MAX_ORIGIN]}…" if len(origin) > _MAX_ORIGIN else origin
    candidate = Candidate("docker", "", shown, explicit=True, chosen=True, undo=undo)
    try:
        return _with_address(candidate, folder, name)
    except EngineUnreachable as error:
        return attrs.evolve(candidate, problem=error)


def _with_address(candidate: Candidate, folder: Path, name: str) -> Candidate | None:
    from hashlib import sha256  # noqa: PLC0415 - start-up

    context_id = sha256(name.encode(errors="surrogatepass")).hexdigest()
    meta = read_json(folder / "contexts" / "meta" / context_id / "meta.json")
    if meta is None:
        available = ", ".join([_DEFAULT, *_names(folder)])
        raise EngineUnreachable(
            f"{candidate.origin}: there is no such Docker context; available: {available}",
            hint=f"{candidate.undo}; or choose another one: docker context use NAME",
        )
    endpoint = dig(meta, "Endpoints", "docker")
    if not isinstance(endpoint, dict) or not isinstance(endpoint.get("Host", ""), str):
        raise EngineUnreachable(
            f"{candidate.origin}: the Docker context has no engine's address",
            hint=f"inspect it: docker context inspect {shlex.quote(name)}",
        )
    verify = endpoint.get("SkipTLSVerify") is not True
    tls_folder = folder / "contexts" / "tls" / context_id / "docker"
    has_tls = tls_folder.is_dir() or not verify
    tls = Tls.in_folder(tls_folder, verify=verify) if has_tls else None
    host = text_at(endpoint, "Host")
    return attrs.evolve(candidate, url=host, tls=tls) if host else None


def _names(folder: Path) -> list[str]:
    names = []
    with suppress(OSError):
        for file in sorted((folder / "contexts" / "meta").glob("*/meta.json"))[:_MAX_CONTEXTS]:
            with suppress(EngineUnreachable):
                names.append(text_at(read_json(file), "Name"))
    return sorted(filter(None, names))


def _folder(environ: Mapping[str, str]) -> Path:
    named = environ.get("DOCKER_CONFIG")
    return Path(named) if named else home_folder(environ) / ".docker"
