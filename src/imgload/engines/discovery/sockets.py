"""The sockets where Docker, Podman and their desktop products usually listen."""

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

_MAX_MATCHES = 20
_MAX_LINKS = 40

_SOCKETS: tuple[tuple[EngineKind, str, str], ...] = (
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
"""Kind, product, and path; ``*`` matches any name."""
_PIPES: dict[EngineKind, tuple[str, str]] = {
    "docker": ("Docker Desktop", "//./pipe/docker_engine"),
    "podman": ("podman machine", "//./pipe/podman-machine-default"),
}
_SHARED = "{temporary}"
"""A folder that all users may share: the user must own the socket in it as well."""


def usual_sockets(kind: EngineKind, environ: Mapping[str, str]) -> Iterator[Candidate]:
    """Yield the usual sockets of a kind that exist and that only trusted users can replace."""
    if sys.platform == "win32":
        product, path = _PIPES[kind]
        yield Candidate(kind, f"npipe://{path}", product)
        return
    folders = _folders(environ)
    trusted = _trusted_users(environ)
    for socket_kind, product, pattern in _SOCKETS:
        for path in _paths(pattern, folders) if socket_kind == kind else ():
            if _is_there(path) and _is_safe(path, trusted, own=_SHARED in pattern):
                yield Candidate(kind, f"unix://{path}", product)


def absent_sockets(environ: Mapping[str, str]) -> list[Candidate]:
    """Return the usual sockets that do not exist."""
    folders = _folders(environ)
    return [
        Candidate(kind, f"unix://{path}", product)
        for kind, product, pattern in _SOCKETS
        if (path := _path(pattern, folders)) and not any(map(_is_there, _paths(pattern, folders)))
    ]


def is_installed(absent: Candidate) -> bool:
    """Whether the product's own folder exists without the socket: the product is not running."""
    path, star, _ = absent.url.removeprefix("unix://").partition("/*")
    folder = Path(path) if star else Path(path).parent
    return folder.parts[1:2] != ("run",) and folder != Path("/var/run") and folder.is_dir()


def _paths(pattern: str, folders: Mapping[str, str]) -> list[Path]:
    path = _path(pattern, folders)
    folder, star, rest = path.partition("/*")
    if not star:
        return [Path(path)] if path else []
    try:
        return sorted(Path(folder).glob(f"*{rest}"))[:_MAX_MATCHES]
    except OSError:
        return []


def _path(pattern: str, folders: Mapping[str, str]) -> str:
    """Fill in the folders of a pattern; return an empty string if one is unknown."""
    known = all(folder or f"{{{name}}}" not in pattern for name, folder in folders.items())
    return pattern.format(**folders) if known else ""


def _folders(environ: Mapping[str, str]) -> dict[str, str]:
    home = home_folder(environ)
    # Without a login session (cron, sudo, su) XDG_RUNTIME_DIR is not set.
    runtime = f"/run/user/{os.getuid()}" if hasattr(os, "getuid") and os.getuid() else ""
    return {
        "home": str(home),
        "runtime": environ.get("XDG_RUNTIME_DIR") or runtime,
        "colima": environ.get("COLIMA_HOME") or str(home / ".colima"),
        "temporary": (environ.get("TMPDIR") or "").rstrip("/"),
    }


def _is_there(path: Path) -> bool:
    """Whether a path exists or cannot be examined: connecting to it reports the reason."""
    try:
        path.stat()
    except (FileNotFoundError, NotADirectoryError):
        return False
    except (OSError, ValueError):
        return True
    return True


def _trusted_users(environ: Mapping[str, str]) -> set[int]:
    """Return the IDs of root, this user, and the owner of the home folder (another under sudo).

    The settings in the home folder choose the engine anyway. In a user namespace root may have
    another ID: the owner of ``/``.
    """
    users = {0, os.getuid(), Path("/").stat().st_uid}
    with suppress(OSError):
        users.add(home_folder(environ).stat().st_uid)
    return users


def _is_safe(path: Path, trusted: Collection[int], *, own: bool) -> bool:
    """Whether only trusted users can change the target of a path, links followed.

    Every folder on the way is checked, so the result still holds when the socket is opened. A path
    that may not be examined is safe: connecting to it reports the missing permission. With `own`, a
    trusted user must own the entry at the path itself as well.
    """
    try:
        return _leads_safely(path, trusted) and (not own or path.lstat().st_uid in trusted)
    except PermissionError:
        return True
    except OSError:
        return False


def _leads_safely(path: Path, trusted: Collection[int]) -> bool:
    parent, parts, links = Path("/"), [*reversed(path.absolute().parts[1:])], 0
    while parts and links <= _MAX_LINKS:
        name = parts.pop()
        if name == "..":
            parent = parent.parent
            continue
        folder = parent.lstat()
        if folder.st_uid not in trusted:
            return False
        entry = (parent / name).lstat()
        sticky = folder.st_mode & stat.S_ISVTX
        if _is_shared(folder) and not (sticky and entry.st_uid in trusted):
            return False
        if stat.S_ISLNK(entry.st_mode):
            links += 1
            target = (parent / name).readlink()
            parent = Path("/") if target.is_absolute() else parent
            parts += [part for part in reversed(target.parts) if part != "/"]
        else:
            parent /= name
    return not parts


def _is_shared(folder: os.stat_result) -> bool:
    """Whether other users may write to a folder.

    A user's private group, which has the user's ID, is not shared. Root's folders belong to system
    groups, as /var/run on macOS; such a group is shared if this user is a member.
    """
    if folder.st_mode & stat.S_IWOTH:
        return True
    if not folder.st_mode & stat.S_IWGRP:
        return False
    if folder.st_uid == 0:
        return folder.st_gid != 0 and folder.st_gid in os.getgroups()
    return folder.st_gid != folder.st_uid
