"""The sockets that engines are known to listen on."""

from __future__ import annotations

import os
import stat
import sys
from collections.abc import Collection, Iterator, Mapping
from contextlib import suppress
from pathlib import Path

from imgload.engines.discovery.attempt import Candidate
from imgload.engines.discovery.config_files import home_folder
from imgload.engines.endpoint import EngineKind

_MOST = 20
_MOST_LINKS = 40

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
"""Often everybody's folder: the socket itself has to be this user's, too."""


def usual_sockets(kind: EngineKind, environ: Mapping[str, str]) -> Iterator[Candidate]:
    """Yield the usual places of a kind where there is something."""
    if sys.platform == "win32":
        yield from (Candidate(kind, f"npipe://{path}", p) for k, p, path in _PIPES if k == kind)
        return
    folders = _folders(environ)
    trusted = _trusted_users(environ)
    for place_kind, product, pattern in _PLACES:
        if place_kind == kind:
            for path in _paths(pattern, folders):
                if _is_there(path) and _is_safe(path, trusted, own=_SHARED in pattern):
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


def _trusted_users(environ: Mapping[str, str]) -> set[int]:
    """Return root, this user, and the owner of the home folder, who under sudo is another one.

    The settings in that folder decide anyway which engine is asked. In a user namespace root may
    have another number: whoever owns ``/`` is root.
    """
    users = {0, os.getuid(), Path("/").stat().st_uid}
    with suppress(OSError):
        users.add(home_folder(environ).stat().st_uid)
    return users


def _is_safe(path: Path, trusted: Collection[int], *, own: bool) -> bool:
    """Whether only trusted users can change what a path leads to, links followed.

    Every folder on the way is looked at, so that the answer still holds when the socket is opened.
    What may not be looked at is safe: opening it reports the permission that is missing.

    Args:
        path: of the socket.
        trusted: users by number.
        own: whether the entry at the path has to be a trusted user's, whoever owns its folder.

    """
    try:
        return _leads_safely(path, trusted) and (not own or path.lstat().st_uid in trusted)
    except PermissionError:
        return True
    except OSError:
        return False


def _leads_safely(path: Path, trusted: Collection[int]) -> bool:
    at, parts, links = Path("/"), [*reversed(path.absolute().parts[1:])], 0
    while parts and links <= _MOST_LINKS:
        name = parts.pop()
        if name == "..":
            at = at.parent
            continue
        folder = at.lstat()
        if folder.st_uid not in trusted:
            return False
        entry = (at / name).lstat()
        sticky = folder.st_mode & stat.S_ISVTX
        if _is_shared(folder) and not (sticky and entry.st_uid in trusted):
            return False
        if stat.S_ISLNK(entry.st_mode):
            links += 1
            target = (at / name).readlink()
            at = Path("/") if target.is_absolute() else at
            parts += [part for part in reversed(target.parts) if part != "/"]
        else:
            at /= name
    return not parts


def _is_shared(folder: os.stat_result) -> bool:
    """Whether others may write to a folder; a group that has only one user is not others.

    Such a group has its user's number. Root's folders belong to groups of the system, as
    /var/run on macOS, unless this user is in them.
    """
    if folder.st_mode & stat.S_IWOTH:
        return True
    if not folder.st_mode & stat.S_IWGRP:
        return False
    if folder.st_uid == 0:
        return folder.st_gid != 0 and folder.st_gid in os.getgroups()
    return folder.st_gid != folder.st_uid
