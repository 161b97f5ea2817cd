"""Make nodes pull from a registry, and restore their configuration afterwards.

Names and URLs reach the node only as arguments. The files go to the folder in CRI's own
configuration, once CRI has shown that it reads that folder. containerd's configuration is changed,
and containerd restarted, only if the user agreed. Existing files are moved aside. A marker file
identifies the folders that imgload made; `disconnect` removes them.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from functools import partial
from typing import Any

import attrs

from imgload.clusters.nodes.containerd import (
    CONTAINERD,
    DEFAULT_REGISTRY_FOLDER,
    parse_registry_folders,
)
from imgload.clusters.nodes.node import Node
from imgload.clusters.nodes.survey import CRICTL_CONFIG, require_containerd
from imgload.core.errors import ImgloadError, NodeUnusable, error_json
from imgload.core.parallel import in_parallel
from imgload.tools.remote_registry.config import MARK, folders, hosts_toml, registry_line
from imgload.tools.remote_registry.probe import reads_folder, require_registry, setup_failed
from imgload.tools.remote_registry.restart import require_editable, restore, set_folder
from imgload.tools.remote_registry.url import RegistryUrl

_CONNECT = r"""
set -eu
umask 022
root=$1 mark=$2
shift 2
[ -e "$root" ] || { mkdir "$root"; : >"$root/.imgload"; }
while [ $# -gt 0 ]; do
    folder=$root/$1
    [ ! -e "$root/$2" ] || folder=$root/$2
    file=$folder/hosts.toml
    if [ -L "$folder" ] || [ -L "$file" ]; then
        echo "$file is a link, and imgload follows none" >&2
        exit 1
    fi
    [ -e "$folder" ] || { mkdir "$folder"; : >"$folder/.imgload"; }
    if [ -e "$file" ] && ! head -n 1 "$file" | grep -qxF "$mark"; then
        if [ -e "$file.before-imgload" ]; then
            echo "$file and its backup were both not written by imgload" >&2
            exit 1
        fi
        mv "$file" "$file.before-imgload"
    fi
    printf '%s' "$3" >"$file.imgload"
    mv -f "$file.imgload" "$file"
    printf '%s\n' "$file"
    shift 3
done
"""
_DISCONNECT = r"""
set -eu
root=$1 mark=$2 registry=$3
for file in "$root"/*/hosts.toml; do
    [ -f "$file" ] && [ ! -L "$file" ] || continue
    { IFS= read -r first && IFS= read -r second; } <"$file" || continue
    [ "$first" = "$mark" ] || continue
    if [ -n "$registry" ] && [ "$second" != "$registry" ]; then
        printf 'kept %s\n' "$file"
        continue
    fi
    folder=${file%/hosts.toml}
    if [ -e "$file.before-imgload" ]; then mv -f "$file.before-imgload" "$file"; else rm "$file"; fi
    if [ -e "$folder/.imgload" ]; then
        rm "$folder/.imgload"
        rmdir "$folder" 2>/dev/null || :
    fi
    printf '%s\n' "$file"
done
set -- "$root" "$root"/*
if [ -e "$1/.imgload" ] && [ ! -e "$2" ]; then
    rm "$1/.imgload"
    rmdir "$1" 2>/dev/null || :
fi
"""
_FILE = re.compile(r"(?:kept )?/[\w./:\[\]-]+", re.ASCII)


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


def connect_nodes(
    nodes: Sequence[Node], url: RegistryUrl, names: Sequence[str], *, restart: bool = False
) -> list[NodeWiring]:
    """Make nodes pull the images of some registries from this one, and check that they reach it.

    With `restart`, set CRI's ``config_path`` and restart containerd where CRI reads no such files.
    """
    return in_parallel([partial(_connect, node, url, names, restart=restart) for node in nodes])


def disconnect_nodes(nodes: Sequence[Node], url: RegistryUrl | None) -> list[NodeWiring]:
    """Restore the nodes' previous files, in parallel; of all registries if the URL is None."""
    return in_parallel([partial(_disconnect, node, url) for node in nodes])


def _connect(node: Node, url: RegistryUrl, names: Sequence[str], *, restart: bool) -> NodeWiring:
    result = NodeWiring(node.name)
    try:
        configured = _registry_folders(node)
        if configured is None:
            raise NodeUnusable(
                f"{node.name}: CRI's config_path is not an absolute path of plain characters",
                hint="write the hosts.toml files by hand: containerd's docs/hosts.md",
            )
        root = configured[0] if configured else DEFAULT_REGISTRY_FOLDER
        if not configured:
            require_editable(node)
        cri = reads_folder(node, root, url)
        result = attrs.evolve(result, cri=cri)
        if cri is False or (cri is None and len(configured) != 1):
            result = _set_config_path(node, root, url, restart=restart)
        texts = [text for name in names for text in (*folders(name), hosts_toml(url, name))]
        files = _run(node, _CONNECT, root, MARK, *texts)
        result = attrs.evolve(result, files=(*result.files, *files))
        require_registry(node, url, root, by_cri=bool(result.cri))
    except ImgloadError as error:
        return attrs.evolve(result, error=error)
    return result


def _set_config_path(node: Node, root: str, url: RegistryUrl, *, restart: bool) -> NodeWiring:
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
            raise NodeUnusable(message, hint=f"{node.engine.name} logs {node.container.name}")
    except ImgloadError:
        restore(node)
        raise
    return NodeWiring(node.name, (file,), cri=cri, restarted=True)


def _disconnect(node: Node, url: RegistryUrl | None) -> NodeWiring:
    result = NodeWiring(node.name)
    try:
        configured = _registry_folders(node, any_runtime=True)
        roots = (DEFAULT_REGISTRY_FOLDER,) if configured == () else configured or ()
        registry = registry_line(url) if url else ""
        lines = [line for root in roots for line in _run(node, _DISCONNECT, root, MARK, registry)]
        files = tuple(line for line in lines if line.startswith("/"))
        result = attrs.evolve(result, files=files)
        if len(files) == len(lines):
            changed = restore(node)
            result = attrs.evolve(result, files=(*files, *changed), restarted=bool(changed))
    except ImgloadError as error:
        return attrs.evolve(result, error=error)
    return result


def _registry_folders(node: Node, *, any_runtime: bool = False) -> tuple[str, ...] | None:
    """Return the folders in CRI's configuration; None if one cannot be written to."""
    node.require_running()
    (crictl,) = node.run_all([CRICTL_CONFIG])
    with node.naming_node_in_errors():
        if not any_runtime:
            require_containerd(crictl.text)
    (dump,) = node.run_all([(node.runtime or CONTAINERD).dump])
    return parse_registry_folders(dump.text)


def _run(node: Node, script: str, root: str, *arguments: str) -> tuple[str, ...]:
    """Run a script, and return the lines of its output that name files."""
    result = node.engine.exec(node.container.id, ["sh", "-c", script, "imgload", root, *arguments])
    if result.exit_status:
        raise setup_failed(node, root, result.message)
    lines = result.stdout.decode(errors="replace").splitlines()
    return tuple(line for line in lines if _FILE.fullmatch(line))
