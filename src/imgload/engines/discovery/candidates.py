"""The addresses where engines may answer: the user's choices, or else the usual sockets.

The order is the docker CLI's: ``DOCKER_HOST``, ``DOCKER_CONTEXT``, the current context, the
default socket (docker/cli, cli/command/cli.go, resolveContextName); and the podman CLI's:
``CONTAINER_HOST``, ``CONTAINER_CONNECTION``, its own socket.
"""

from __future__ import annotations

import os
import re
import shlex
import stat
import sys
from collections.abc import Callable, Collection, Iterator, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

import attrs

from imgload.core.errors import EngineError, EngineNotPermitted, EngineUnreachable
from imgload.engines.endpoint import Endpoint, EngineKind, Tls
from imgload.oci.document import dig, load_json, text_at

Environ = Mapping[str, str]
_VARIABLES: dict[EngineKind, str] = {"docker": "DOCKER_HOST", "podman": "CONTAINER_HOST"}
_DEFAULT_CONTEXT = "default"
_MAX_ENTRIES = 100  # contexts, connections, or settings files of one folder
_MAX_ORIGIN = 200
_MAX_MATCHES = 20
_MAX_LINKS = 40
_MAX_BYTES = 4 << 20
_SYSTEM = (Path("/usr/share/containers"), Path("/etc/containers"))

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


@attrs.frozen
class Candidate:
    """An address where an engine may answer, with the fields of Endpoint."""

    kind: EngineKind  # the expected one
    url: str  # empty if there is a `problem`
    origin: str
    explicit: bool = False  # the user gave it for this run: an invalid address is an error
    chosen: bool = False  # it replaces the usual addresses of its kind
    last_resort: bool = False  # to be tried only when no other candidate answers
    tls: Tls | None = None
    identity: str = ""  # the key file for an ``ssh://`` address; empty if ssh chooses
    machine: bool = False  # it is one of Podman's virtual machines
    problem: EngineError | None = attrs.field(default=None, eq=False)  # why it has no address
    undo: str = ""  # the command that removes the choice
    take: str = ""  # the command that makes it the choice

    def __str__(self) -> str:
        return f"{self.kind} at {self.url} (from {self.origin})" if self.url else self.origin


@attrs.frozen
class Attempt:
    """The result of trying a candidate; one that was not tried has neither endpoint nor error."""

    candidate: Candidate
    endpoint: Endpoint | None = None
    error: EngineError | None = None
    same_as: Endpoint | None = None  # the same engine's, by an earlier candidate
    skip_reason: str = ""  # why not to use the candidate; empty if it may be used

    @property
    def used(self) -> bool:
        return self.endpoint is not None and self.same_as is None and not self.skip_reason

    @property
    def resolved_endpoint(self) -> Endpoint:
        """The endpoint that imgload uses for this engine; EngineError if none answered."""
        endpoint = self.same_as or self.endpoint
        if endpoint is None:
            raise self.error or EngineUnreachable(f"{self.candidate} was not tried")
        return endpoint

    @property
    def is_worth_mentioning(self) -> bool:
        """Whether to mention the error when an image or cluster is not found."""
        matters = self.candidate.chosen or isinstance(self.error, EngineNotPermitted)
        return self.error is not None and not self.skip_reason and matters


def candidates(environ: Environ) -> Iterator[Candidate]:
    """Yield the candidates to try: for each kind the chosen one, or else the usual ones."""
    for kind in _VARIABLES:
        choice = _choice(kind, environ)
        if choice:
            yield choice
        if not choice or not choice.chosen:
            yield from _usual(kind, environ)


def skipped_candidates(environ: Environ) -> Iterator[tuple[Candidate, str]]:
    """Yield the candidates to skip, each with the reason."""
    for kind in _VARIABLES:
        choice = _choice(kind, environ)
        if choice and choice.chosen:
            for candidate in _usual(kind, environ):
                yield attrs.evolve(candidate, take=choice.undo), f"{choice.origin} overrides it"
        with suppress(EngineUnreachable):
            is_docker = kind == "docker"
            others = other_contexts(environ) if is_docker else read_connections(environ)[1].values()
            for candidate in others:
                yield candidate, "it is not the current one"


def named_address(url: str, origin: str, environ: Environ) -> Candidate:
    """Return the candidate for an address that the user gave for this run."""
    tls = tls_of(environ) if url.startswith("tcp://") else None
    kind: EngineKind = "podman" if "podman" in url else "docker"
    return Candidate(kind, url, origin, explicit=True, chosen=True, tls=tls)


def tls_of(environ: Environ) -> Tls | None:
    """Return the TLS settings of the docker CLI's variables, or None.

    A ``DOCKER_TLS_VERIFY`` (verified) or ``DOCKER_TLS`` (unverified) that is not empty turns TLS
    on; ``DOCKER_CERT_PATH`` names the folder (docker/cli, cli/flags/options.go).
    """
    verify = bool(environ.get("DOCKER_TLS_VERIFY"))
    if not verify and not environ.get("DOCKER_TLS"):
        return None
    folder = Path(environ.get("DOCKER_CERT_PATH") or docker_folder(environ))
    return Tls.in_folder(folder, verify=verify)


def _choice(kind: EngineKind, environ: Environ) -> Candidate | None:
    """Return the user's choice; settings files are read only if no variable decides."""
    variable = _VARIABLES[kind]
    if url := environ.get(variable):
        named = named_address(url, variable, environ)
        return attrs.evolve(named, kind=kind, undo=f"unset {variable}")
    return _or_problem(chosen_context if kind == "docker" else chosen_connection, kind, environ)


def _usual(kind: EngineKind, environ: Environ) -> Iterator[Candidate]:
    yield from usual_sockets(kind, environ)
    if kind == "podman" and (default := _or_problem(default_connection, kind, environ)):
        yield default


def _or_problem(
    find: Callable[[Environ], Candidate | None], kind: EngineKind, environ: Environ
) -> Candidate | None:
    try:
        return find(environ)
    except EngineUnreachable as error:
        return Candidate(kind, "", "its settings", problem=error)


def _home(environ: Environ) -> Path:
    return Path(environ["HOME"]) if environ.get("HOME") else Path.home()


def docker_folder(environ: Environ) -> Path:
    return Path(environ.get("DOCKER_CONFIG") or _home(environ) / ".docker")


def _podman_folder(environ: Environ) -> Path:
    return Path(environ.get("XDG_CONFIG_HOME") or _home(environ) / ".config") / "containers"


# Docker contexts: named addresses of the docker CLI. ``contexts/meta/ID/meta.json`` has the address
# and ``contexts/tls/ID/docker`` the TLS files, where ID is the SHA-256 of the name (docker/cli,
# cli/context/store).


def chosen_context(environ: Environ) -> Candidate | None:
    """Return the context of ``DOCKER_CONTEXT``, or else the current one; None is the default one.

    EngineUnreachable for invalid CLI settings.
    """
    folder = docker_folder(environ)
    if name := environ.get("DOCKER_CONTEXT"):
        choice = Candidate("docker", "", f"DOCKER_CONTEXT={name}", undo="unset DOCKER_CONTEXT")
        return _context(attrs.evolve(choice, explicit=True, chosen=True), folder, name)
    name = text_at(read_json(folder / "config.json"), "currentContext")
    origin, undo = f"the current Docker context {name!r}", "docker context use default"
    return _context(Candidate("docker", "", origin, chosen=True, undo=undo), folder, name)


def other_contexts(environ: Environ) -> Iterator[Candidate]:
    """Yield every context, the chosen one included."""
    folder = docker_folder(environ)
    for name in _context_names(folder):
        take = f"docker context use {shlex.quote(name)}"
        candidate = Candidate("docker", "", f"the Docker context {name!r}", take=take)
        if context := _context(candidate, folder, name):
            yield context


def _context(candidate: Candidate, folder: Path, name: str) -> Candidate | None:
    """Add a context's address, or a problem; return None if the context has the default address."""
    if name in {"", _DEFAULT_CONTEXT}:
        return None
    if len(candidate.origin) > _MAX_ORIGIN:
        candidate = attrs.evolve(candidate, origin=f"{candidate.origin[:_MAX_ORIGIN]}…")
    try:
        url, tls = _context_address(candidate, folder, name)
    except EngineUnreachable as error:
        return attrs.evolve(candidate, problem=error)
    return attrs.evolve(candidate, url=url, tls=tls) if url else None


def _context_address(candidate: Candidate, folder: Path, name: str) -> tuple[str, Tls | None]:
    from hashlib import sha256  # noqa: PLC0415 - start-up

    context_id = sha256(name.encode(errors="surrogatepass")).hexdigest()
    meta = read_json(folder / "contexts" / "meta" / context_id / "meta.json")
    if meta is None:
        available = ", ".join([_DEFAULT_CONTEXT, *_context_names(folder)])
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
    return text_at(endpoint, "Host"), Tls.in_folder(tls_folder, verify=verify) if has_tls else None


def _context_names(folder: Path) -> list[str]:
    names = []
    with suppress(OSError):
        for file in sorted((folder / "contexts" / "meta").glob("*/meta.json"))[:_MAX_ENTRIES]:
            with suppress(EngineUnreachable):
                names.append(text_at(read_json(file), "Name"))
    return sorted(filter(None, names))


# Podman connections: named addresses of the podman CLI. Podman 5 keeps them in
# ``podman-connections.json``. Earlier versions keep them in ``containers.conf``, which Podman 5
# still reads; the former has precedence (containers/common, pkg/config/connections.go and new.go).


def chosen_connection(environ: Environ) -> Candidate | None:
    """Return the connection that ``CONTAINER_CONNECTION`` names, perhaps with a problem."""
    name = environ.get("CONTAINER_CONNECTION")
    if not name:
        return None
    origin, undo = f"CONTAINER_CONNECTION={name}", "unset CONTAINER_CONNECTION"
    choice = Candidate("podman", "", origin, explicit=True, chosen=True, undo=undo)
    try:
        connections = read_connections(environ)[1]
    except EngineUnreachable as error:
        return attrs.evolve(choice, problem=error)
    if match := connections.get(name):
        return attrs.evolve(choice, url=match.url, identity=match.identity, machine=match.machine)
    available = ", ".join(sorted(connections)) or "none"
    message = f"{origin}: there is no such Podman connection; available: {available}"
    hint = "unset CONTAINER_CONNECTION; or list them: podman system connection list"
    return attrs.evolve(choice, problem=EngineUnreachable(message, hint=hint))


def default_connection(environ: Environ) -> Candidate | None:
    """Return Podman's default connection; EngineUnreachable if the settings cannot be read.

    One over the network is a last resort: Podman on Linux does not use it, and a Podman virtual
    machine also has a local socket.
    """
    default, connections = read_connections(environ)
    return connections.get(default)


def read_connections(environ: Environ) -> tuple[str, dict[str, Candidate]]:
    """Return the default's name, and all connections; EngineUnreachable for an invalid file."""
    default = ""
    connections: dict[str, Candidate] = {}
    for path in _containers_conf(environ):
        engine = dig(_read(path, "TOML", _connections_toml), "engine")
        default = text_at(engine, "active_service") or default
        connections |= _connections(dig(engine, "service_destinations"), "uri", "identity")
    named = environ.get("PODMAN_CONNECTIONS_CONF")
    path = Path(named or _podman_folder(environ) / "podman-connections.json")
    document = dig(read_json(path), "Connection")
    connections |= _connections(dig(document, "Connections"), "URI", "Identity")
    return text_at(document, "Default") or default, connections


def _connections(table: Any, uri: str, identity: str) -> dict[str, Candidate]:
    entries = list(table.items())[:_MAX_ENTRIES] if isinstance(table, dict) else []
    return {
        name: Candidate(
            "podman",
            url,
            f"the Podman connection {name!r}",
            last_resort=not url.startswith("unix://"),
            identity=text_at(entry, identity),
            machine=dig(entry, "is_machine") is True or dig(entry, "IsMachine") is True,
            take=f"export CONTAINER_CONNECTION={shlex.quote(name)}",
        )
        for name, entry in entries
        if (url := text_at(entry, uri))
    }


def _containers_conf(environ: Environ) -> Iterator[Path]:
    """Yield the paths of settings files in ascending order of precedence."""
    if named := environ.get("CONTAINERS_CONF"):
        yield Path(named)
    else:
        for folder in (*_SYSTEM, _podman_folder(environ)):
            yield folder / "containers.conf"
            yield from sorted((folder / "containers.conf.d").glob("*.conf"))[:_MAX_ENTRIES]
    if override := environ.get("CONTAINERS_CONF_OVERRIDE"):
        yield Path(override)


# The settings files of other programs, whose content is untrusted.


def read_json(path: Path) -> Any:
    """Return a document, or None if the file does not exist; EngineUnreachable if it is invalid."""
    return _read(path, "JSON", load_json)


def _connections_toml(text: str) -> Any:
    """Return the document, or None if neither setting occurs outside comments.

    Most such files are comments only, and importing tomllib takes time.
    """
    if "service" not in re.sub(r"(?m)^[ \t]*#.*$", "", text):
        return None  # neither active_service nor service_destinations
    import tomllib  # noqa: PLC0415 - start-up

    return tomllib.loads(text)


def _read(path: Path, language: str, parser: Callable[[str], Any]) -> Any:
    flags = os.O_RDONLY | getattr(os, "O_NONBLOCK", 0)  # a named pipe must not wait for a writer
    why = f"it is not valid {language}: "
    try:
        with os.fdopen(os.open(path, flags), "rb") as file:
            is_file = stat.S_ISREG(os.fstat(file.fileno()).st_mode)
            data = file.read(_MAX_BYTES + 1) if is_file else b""
        if is_file and len(data) <= _MAX_BYTES:
            return parser(data.decode(errors="replace"))
        why = f"it is longer than {_MAX_BYTES >> 20} MiB" if is_file else "it is not a file"
    except (FileNotFoundError, NotADirectoryError):
        return None
    except (ValueError, RecursionError) as error:
        why += str(error)
    except OSError as error:
        why = error.strerror or str(error)
    raise EngineUnreachable(f"{path} cannot be used: {why}", hint="correct or remove the file")


# The sockets where Docker, Podman and their desktop products usually listen.


def usual_sockets(kind: EngineKind, environ: Environ) -> Iterator[Candidate]:
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


def absent_sockets(environ: Environ) -> list[Candidate]:
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


def _folders(environ: Environ) -> dict[str, str]:
    home = _home(environ)
    # Without a login session (cron, sudo, su) XDG_RUNTIME_DIR is not set.
    runtime = f"/run/user/{os.getuid()}" if hasattr(os, "getuid") and os.getuid() else ""
    return {
        "home": str(home),
        "runtime": environ.get("XDG_RUNTIME_DIR") or runtime,
        "colima": environ.get("COLIMA_HOME") or str(home / ".colima"),
        "temporary": (environ.get("TMPDIR") or "").rstrip("/"),
    }


def is_trusted(path: Path) -> bool:
    """Return whether only trusted users can change a file's content, or put another in its place.

    Raises OSError if it cannot be examined.
    """
    file, trusted = path.stat(), _trusted_users(os.environ)
    is_own = file.st_uid in trusted and not _is_shared(file)
    return is_own and _is_safe(path, trusted, own=True)


def _is_there(path: Path) -> bool:
    """Whether a path exists or cannot be examined: connecting to it reports the reason."""
    try:
        path.stat()
    except (OSError, ValueError) as error:
        return not isinstance(error, (FileNotFoundError, NotADirectoryError))
    return True


def _trusted_users(environ: Environ) -> set[int]:
    """Return the IDs of root, this user, and the owner of the home folder (another under sudo).

    The settings in the home folder choose the engine anyway. In a user namespace root may have
    another ID: the owner of ``/``.
    """
    users = {0, os.getuid(), Path("/").stat().st_uid}
    with suppress(OSError):
        users.add(_home(environ).stat().st_uid)
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
