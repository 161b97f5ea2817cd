"""Make nodes pull from a registry, and restore their configuration afterwards.

containerd reads ``hosts.toml`` at each pull (containerd, docs/hosts.md). Names and URLs reach the
node only as arguments. Existing files are moved aside. A marker file identifies the folders that
imgload made; `disconnect_node` removes them.
"""

from __future__ import annotations

import re
import secrets
import shlex
from collections.abc import Mapping, Sequence
from ipaddress import ip_address
from typing import Any
from urllib.parse import urlsplit

import attrs

from imgload.clusters.nodes import containerd
from imgload.clusters.nodes.batch import NOT_FOUND
from imgload.clusters.nodes.containerd import NOT_PERMITTED, pull_image
from imgload.clusters.nodes.node import Node
from imgload.core.arguments import require_string
from imgload.core.errors import ImgloadError, NodeUnusable, RegistryError, UsageError, error_json
from imgload.engines.base import ExecResult
from imgload.oci.reference import is_registry
from imgload.tools.remote_registry.config import require_editable, restore, set_folder

MARK = "# Written by imgload registry connect; imgload registry disconnect takes it away."
"""The first line of our hosts.toml files; must not change: it identifies files on nodes."""
_WRITTEN = "# Written by imgload "
"""The begin of the first line of every file that a command of imgload writes."""
_URL = re.compile(r"(?:(https?)://)?([^/]{1,300})/?", re.ASCII)
_FOLDERS = r"""
set -eu
fail() { printf '%s\n' "$1" >&2; exit 1; }
make_folder() { [ -e "$1" ] || { mkdir "$1"; : >"$1/.imgload"; }; }
remove_made() { [ ! -e "$1/.imgload" ] || { rm "$1/.imgload"; rmdir "$1" 2>/dev/null || :; }; }
remove_empty_root() { set -- "$root"/*; [ -e "$1" ] || remove_made "$root"; }
root=$1 written=$2 mark=$3 backup=$4
umask "$5"
shift 5
"""
_CONNECT = r"""
make_folder "$root"
while [ $# -gt 0 ]; do
    folder=$root/$1
    [ ! -e "$root/$2" ] || folder=$root/$2
    file=$folder/hosts.toml
    [ ! -L "$folder" ] && [ ! -L "$file" ] || fail "$file is a link, and imgload follows none"
    make_folder "$folder"
    if [ -e "$file" ] && ! head -n 1 "$file" | grep -qxF "$mark"; then
        [ ! -e "$file$backup" ] ||
            fail "$file and its backup were both not written by imgload"
        mv "$file" "$file$backup"
    fi
    printf '%s' "$3" >"$file.imgload"
    mv -f "$file.imgload" "$file"
    printf '%s\n' "$file"
    shift 3
done
"""
_DISCONNECT = r"""
registry=$1
for file in "$root"/*/hosts.toml "$root"/*/hosts.toml.before-imgload*; do
    [ -f "$file" ] && [ ! -L "$file" ] || continue
    { IFS= read -r first && IFS= read -r second; } <"$file" || continue
    [ "$first" = "$mark" ] && { [ -z "$registry" ] || [ "$second" = "$registry" ]; } || continue
    original=${file%%/hosts.toml*}/hosts.toml$backup
    if [ -e "$original" ]; then mv -f "$original" "$file"; else
        rm "$file"
        case $file in */hosts.toml) remove_made "${file%/hosts.toml}" ;; esac
    fi
    printf '%s\n' "$file"
done
for file in "$root"/*/hosts.toml "$root"/*/hosts.toml.before-imgload*; do
    [ -f "$file" ] && [ ! -L "$file" ] && IFS= read -r first <"$file" || continue
    case $first in "$written"*) printf 'kept %s\n' "$file" ;; esac
done
remove_empty_root
"""
_PROBE = r"""
name=$1 text=$2 limit=$3
shift 3
trap 'rm -rf "$root/$name"; remove_empty_root' EXIT
trap 'exit 1' HUP INT TERM
make_folder "$root"
make_folder "$root/$name"
printf '%s' "$text" >"$root/$name/hosts.toml"
status=0
timeout "$limit" "$@" >&2 || status=$?
echo "exit status $status"
"""
_SECONDS = "30"
_NO_CRICTL = {f"exit status {status}" for status in (NOT_FOUND, NOT_PERMITTED)}
_PULL_FAILED = "failed to pull"
"""Part of CRI's error for every failed pull, from containerd 1.5 on."""
_NO_IMAGE = ("not found", "unauthorized", "forbidden", "denied", "insufficient_scope")
"""containerd's errors for an image that the registry lacks, or protects by a login."""
_REASON = re.compile(r'(?:failed to do request|desc = failed to pull.*?): (.+?)"?$')


@attrs.frozen
class RegistryUrl:
    """A registry's address; `host`, with any port, can be part of an image name, and a folder."""

    scheme: str
    host: str

    @classmethod
    def parse(cls, text: str) -> RegistryUrl:
        """Parse ``http://host:port``; UsageError if it has a path, a user or a password.

        Without a scheme, a loopback address means plain HTTP, as for ``docker push``.
        """
        match = _URL.fullmatch(require_string(text, "url"))
        if not match or not _is_registry(match[2]):
            raise UsageError(
                f"not a registry's URL: {text!r:.300}",
                hint="write it like http://registry:5000 or https://registry.example",
            )
        url = cls(match[1] or "http", match[2])
        if not (match[1] or url.is_loopback):
            secure = shlex.quote(f"https://{url.host}")
            hint = f"add the scheme: {shlex.quote(str(url))}, or {secure}"
            raise UsageError(f"the registry's URL has no scheme: {text!r:.300}", hint=hint)
        return url

    @property
    def is_loopback(self) -> bool:
        """Whether the host is the machine that uses the URL."""
        name = urlsplit(str(self)).hostname or ""
        try:
            address = ip_address(name)
        except ValueError:
            return name == "localhost" or name.endswith(".localhost")
        return address.is_loopback or address.is_unspecified

    def __str__(self) -> str:
        return f"{self.scheme}://{self.host}"


def _is_registry(text: str) -> bool:
    try:
        return is_registry(text) and urlsplit(f"//{text}").port != 0
    except ValueError:  # the port is above 65535
        return False


def registry_names(url: RegistryUrl, mirrors: Sequence[str]) -> tuple[str, ...]:
    """Return the registries whose images nodes pull from this one, as named in image names."""
    for name in mirrors:
        if not _is_registry(name):
            raise UsageError(
                f"not a registry's name: {name!r:.300}",
                hint="write it as in an image's name: docker.io, ghcr.io or localhost:5001",
            )
    canonical = ("docker.io" if name == "index.docker.io" else name for name in mirrors)
    return tuple(dict.fromkeys([url.host, *canonical]))


@attrs.frozen
class Owner:
    """A command that writes hosts.toml files: their first line, and the suffix of backups.

    Both identify files on nodes, so they must not change.
    """

    mark: str
    backup: str
    umask: str = "022"


CONNECT = Owner(MARK, ".before-imgload")


@attrs.frozen
class NodeWiring:
    """The result on one node.

    Args:
        node: the node's name.
        files: the files that were written or restored.
        error: the reason for a failure, or None.
        cri: whether CRI has shown that it pulls according to these files; None on a node without
            crictl, and after `disconnect`.
        restarted: whether containerd was restarted.

    """

    node: str
    files: tuple[str, ...] = ()
    error: ImgloadError | None = None
    cri: bool | None = None
    restarted: bool = False

    @property
    def ok(self) -> bool:
        """Whether there is no error."""
        return self.error is None

    def to_json(self) -> dict[str, Any]:
        """Return the node's part of the document."""
        error = error_json(self.error) if self.error else None
        return {**attrs.asdict(self), "ok": self.ok, "error": error}


def connect_node(
    node: Node, url: RegistryUrl, names: Sequence[str], *, restart: bool = False
) -> NodeWiring:
    """Make a node pull the images of `names` from a registry; `restart` permits a restart."""
    result = NodeWiring(node.name)
    try:
        root, cri, is_read = find_folder(node, url)
        result = attrs.evolve(result, cri=cri)
        if not is_read:
            result = set_config_path(node, root, url, restart=restart)
        files = write_files(node, root, {name: hosts_toml(url, name) for name in names})
        result = attrs.evolve(result, files=(*result.files, *files))
        require_registry(node, url, root, by_cri=bool(result.cri))
    except ImgloadError as error:
        return attrs.evolve(result, error=error)
    return result


def find_folder(node: Node, url: RegistryUrl) -> tuple[str, bool | None, bool]:
    """Return the folder for hosts.toml files, the result of `reads_folder`, and if CRI reads it.

    Without crictl on the node, CRI's configuration decides.
    """
    configured = _registry_folders(node)
    if configured is None:
        raise NodeUnusable(
            f"{node.name}: CRI's config_path is not an absolute path of plain characters",
            hint="write the hosts.toml files by hand: containerd's docs/hosts.md",
        )
    root = configured[0] if configured else containerd.DEFAULT_REGISTRY_FOLDER
    if not configured:
        require_editable(node)
    cri = reads_folder(node, root, url)
    return root, cri, len(configured) == 1 if cri is None else cri


def write_files(
    node: Node, root: str, texts: Mapping[str, str], owner: Owner = CONNECT
) -> list[str]:
    """Write a hosts.toml for each registry, by its name in images; return their paths."""
    words = [word for name, text in texts.items() for word in (*folders(name), text)]
    output = run_script(node, _CONNECT, root, *words, owner=owner).stdout
    return output.decode(errors="replace").splitlines()


def set_config_path(node: Node, root: str, url: RegistryUrl, *, restart: bool) -> NodeWiring:
    """Set CRI's ``config_path`` and restart containerd; NodeUnusable if `restart` forbids that."""
    require_editable(node)
    if not restart:
        raise NodeUnusable(
            f"{node.name}: CRI does not read {root}; it takes config_path in containerd's"
            " configuration, and a restart of containerd",
            hint="have imgload do both with --restart-containerd (running containers go on)",
        )
    file = set_folder(node, root)
    try:
        cri = reads_folder(node, root, url)
        if cri is False:
            message = f"{node.name}: CRI does not read {root}, although config_path names it"
            raise NodeUnusable(message, hint=node.log_command)
    except ImgloadError:
        restore(node)
        raise
    return NodeWiring(node.name, (file,), cri=cri, restarted=True)


def disconnect_node(node: Node, url: RegistryUrl | None, *, owner: Owner = CONNECT) -> NodeWiring:
    """Restore the files from before a command; of all registries if the URL is None.

    With the last file of any command, CRI's ``config_path`` is restored, too.
    """
    result = NodeWiring(node.name)
    try:
        configured = _registry_folders(node)
        roots = (containerd.DEFAULT_REGISTRY_FOLDER,) if configured == () else configured or ()
        registry = registry_line(url) if url else ""
        outputs = [run_script(node, _DISCONNECT, r, registry, owner=owner).stdout for r in roots]
        output = b"".join(outputs)
        lines = output.decode(errors="replace").splitlines()
        files = tuple(line for line in lines if line.startswith("/"))
        result = attrs.evolve(result, files=files)
        if len(files) == len(lines):
            changed = restore(node)
            result = attrs.evolve(result, files=(*files, *changed), restarted=bool(changed))
    except ImgloadError as error:
        return attrs.evolve(result, error=error)
    return result


def _registry_folders(node: Node) -> tuple[str, ...] | None:
    """Return the folders in CRI's configuration; None if one cannot be written to."""
    node.require_running()
    (dump,) = node.run_all([node.runtime.dump])
    return containerd.parse_registry_folders(dump.text)


def folders(name: str) -> tuple[str, str]:
    """Return the folder for a registry's name, and the one that containerd prefers if it exists."""
    return name, re.sub(r":([0-9]+)\Z", r"_\1_", name)


def hosts_toml(url: RegistryUrl, name: str) -> str:
    """Return a name's hosts.toml; containerd falls back to a name that is not the registry's."""
    server = f'server = "{url}"\n' if name == url.host else ""
    host = f'[host."{url}"]\n  capabilities = ["pull", "resolve"]\n'
    return f"{MARK}\n{registry_line(url)}\n{server}\n{host}"


def registry_line(url: RegistryUrl) -> str:
    return f"# registry: {url}"


def run_script(
    node: Node, script: str, root: str, *arguments: str, owner: Owner = CONNECT
) -> ExecResult:
    """Run a script on a node, with a folder of hosts.toml files; NodeUnusable if it fails."""
    words = (root, _WRITTEN, owner.mark, owner.backup, owner.umask, *arguments)
    argv = ["sh", "-c", _FOLDERS + script, "imgload", *words]
    result = node.engine.exec(node.container.id, argv)
    if result.exit_status:
        raise NodeUnusable(
            f"{node.name}: imgload could not set up its registries: {result.message}",
            hint=node.exec_command("ls", "-lR", root),
        )
    return result


def reads_folder(node: Node, root: str, url: RegistryUrl) -> bool | None:
    """Return whether CRI reads a folder of hosts.toml files; None if the node has no crictl.

    Neither CRI's configuration nor its version tells: containerd 2.1 and later treat a
    ``config_path`` of two folders, the default from 2.2 on, as one folder when CRI pulls through
    the transfer service, and as two otherwise (containerd #12415, #12636). So CRI pulls from a
    registry that only a file in that folder defines; its error names the address in the file, where
    nothing listens. If the probe is killed, `disconnect_node` removes the file, which has the URL.
    """
    address = "127." + ".".join(str(1 + secrets.randbelow(254)) for _ in range(3))
    name, closed = f"{address}:1", RegistryUrl("http", f"{address}:2")
    text = f'{MARK}\n{registry_line(url)}\nserver = "{closed}"\n\n[host."{closed}"]\n'
    pull = node.resolve_command(pull_image(f"{name}/imgload/probe:none"))
    result = run_script(node, _PROBE, root, name, text, _SECONDS, *pull)
    output = result.stderr.decode(errors="replace")
    if result.stdout.decode(errors="replace").strip() in _NO_CRICTL:
        return None
    if f"//{closed.host}/" in output:
        return True
    if _PULL_FAILED in output:
        return False
    raise NodeUnusable(
        f"{node.name}: CRI could not be asked: {result.message}",
        hint=node.exec_command("crictl", "info"),
    )


def require_registry(node: Node, url: RegistryUrl, root: str, *, by_cri: bool) -> None:
    """Raise RegistryError if CRI, or else ctr, gets no answer about an image with a random name."""
    name = f"{url.host}/imgload/probe:{secrets.token_hex(8)}"
    pull = pull_image(name) if by_cri else containerd.probe_command(root, name)
    command = ["timeout", _SECONDS, *node.resolve_command(pull)]
    result = node.engine.exec(node.container.id, command)
    last = (result.message.splitlines() or [f"no answer within {_SECONDS} seconds"])[-1]
    answer = last.lower().replace(url.host.lower(), "")
    if result.exit_status and not any(word in answer for word in _NO_IMAGE):
        match = _REASON.search(last)
        cause = (match[1] if match else last).replace('\\"', '"')
        raise RegistryError(
            f"{node.name} is set up, and does not reach {url}: {cause}",
            hint="use the address at which the nodes reach the registry; connect a registry"
            f" container to their network: {node.engine.name} network connect kind REGISTRY",
        )
