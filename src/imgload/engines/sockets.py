"""The sockets that engines are known to listen on."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path

from imgload.engines.base import EngineKind
from imgload.engines.candidate import Candidate
from imgload.engines.settings import home_folder

_MOST = 20


Place = tuple[EngineKind, str, str]
"""A kind, a product, and where it listens; ``*`` stands for any name."""

_PLACES: tuple[Place, ...] = (
    ("docker", "Docker", "/var/run/docker.sock"),
    ("docker", "rootless Docker", "{runtime}/docker.sock"),
    ("docker", "Docker Desktop", "{home}/.docker/run/docker.sock"),
    ("docker", "Docker Desktop", "{home}/.docker/desktop/docker.sock"),
    ("docker", "Colima", "{colima}/*/docker.sock"),
    ("docker", "OrbStack", "{home}/.orbstack/run/docker.sock"),
    ("docker", "Rancher Desktop", "{home}/.rd/docker.sock"),
    ("podman", "rootless Podman", "{runtime}/podman/podman.sock"),
    ("podman", "root's Podman", "/run/podman/podman.sock"),
    ("podman", "podman machine", "{runtime}/podman/*-api.sock"),
    ("podman", "podman machine", "{home}/.local/share/containers/podman/machine/podman.sock"),
    ("podman", "podman machine", "{home}/.local/share/containers/podman/machine/*/podman.sock"),
    ("podman", "podman machine", "{temporary}/podman/*-api.sock"),
)
_PIPES: tuple[Place, ...] = (
    ("docker", "Docker Desktop", "//./pipe/docker_engine"),
    ("podman", "podman machine", "//./pipe/podman-machine-default"),
)
_SHARED = "{temporary}"
"""A folder that others may write to: only the user's own sockets are believed there."""


def usual_sockets(kind: EngineKind, environ: Mapping[str, str]) -> Iterator[Candidate]:
    """Yield the usual places of a kind where there is something."""
    if sys.platform == "win32":
        yield from (Candidate(kind, f"npipe://{path}", p) for k, p, path in _PIPES if k == kind)
        return
    folders = _folders(environ)
    for place_kind, product, pattern in _PLACES:
        if place_kind == kind:
            for path in _paths(pattern, folders):
                if _is_there(path) and not (_SHARED in pattern and _is_somebody_elses(path)):
                    yield Candidate(kind, f"unix://{path}", product)


def absent_sockets(environ: Mapping[str, str]) -> list[Candidate]:
    """Return the usual places where there is nothing."""
    folders = _folders(environ)
    return [
        Candidate(kind, f"unix://{_path(pattern, folders)}", product)
        for kind, product, pattern in _PLACES
        if _path(pattern, folders) and not any(map(_is_there, _paths(pattern, folders)))
    ]


def is_installed(absent: Candidate) -> bool:
    """Whether a product's own folder is there, without its socket: it does not run."""
    path, star, _ = absent.url.removeprefix("unix://").partition("/*")
    folder = Path(path) if star else Path(path).parent
    return folder.parts[1:2] != ("run",) and folder != Path("/var/run") and folder.is_dir()


def _paths(pattern: str, folders: Mapping[str, str]) -> list[Path]:
    path = _path(pattern, folders)
    folder, star, rest = path.partition("/*")
    if not star:
        return [Path(path)] if path else []
    try:
        return sorted(Path(folder).glob(f"*{rest}"))[:_MOST]
    except OSError:
        return []


def _path(pattern: str, folders: Mapping[str, str]) -> str:
    """Return a place's path; empty where a folder that it takes is not known."""
    known = all(folder or f"{{{name}}}" not in pattern for name, folder in folders.items())
    return pattern.format(**folders) if known else ""


def _folders(environ: Mapping[str, str]) -> dict[str, str]:
    home = home_folder(environ)
    return {
        "home": str(home),
        "runtime": environ.get("XDG_RUNTIME_DIR") or _runtime_folder(),
        "colima": environ.get("COLIMA_HOME") or str(home / ".colima"),
        "temporary": (environ.get("TMPDIR") or "").rstrip("/"),
    }


def _runtime_folder() -> str:
    """Return where a login keeps sockets; without one (cron, sudo, su) the variable is not set."""
    return f"/run/user/{os.getuid()}" if hasattr(os, "getuid") and os.getuid() else ""


def _is_there(path: Path) -> bool:
    """Whether there is something, even what may not be looked at: asking it says so."""
    try:
        path.stat()
    except (FileNotFoundError, NotADirectoryError):
        return False
    except (OSError, ValueError):
        return True
    return True


def _is_somebody_elses(path: Path) -> bool:
    try:
        return path.stat().st_uid not in {0, os.getuid()}
    except OSError:
        return True
