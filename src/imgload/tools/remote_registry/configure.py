"""Making nodes pull from a registry, and leaving their configuration as it was.

Names and URLs reach the node as arguments only. Files are written to the folder that CRI's own
configuration names, after CRI has shown that it reads them there. containerd's configuration is
changed, and containerd restarted, only where the user has agreed. Files that were there before are
moved aside; folders that were made carry a mark, and are removed again.
"""

from __future__ import annotations

import re
import shlex
from collections.abc import Sequence
from functools import partial
from typing import Any

import attrs

from imgload.clusters.nodes.containerd import DEFAULT_REGISTRY_FOLDER, parse_registry_folders
from imgload.clusters.nodes.node import Node
from imgload.clusters.nodes.runtime import CONTAINERD
from imgload.clusters.nodes.survey import CRICTL_CONFIG, require_containerd
from imgload.core.errors import ImgloadError, NodeUnusable, error_json
from imgload.core.parallel import in_parallel
from imgload.tools.remote_registry.hosts_toml import MARK, folders, hosts_toml, registry_line
from imgload.tools.remote_registry.probe import reads_folder, require_answer
from imgload.tools.remote_registry.restart import require_own_configuration, restore, set_folder
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
        echo "$file is a link, which is not followed" >&2
        exit 1
    fi
    [ -e "$folder" ] || { mkdir "$folder"; : >"$folder/.imgload"; }
    if [ -e "$file" ] && ! head -n 1 "$file" | grep -qxF "$mark"; then
        if [ -e "$file.before-imgload" ]; then
            echo "$file and $file.before-imgload are both not ours" >&2
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
    """What was done on one node.

    Args:
        node: its name.
        files: what was written, or restored.
        error: why it failed, or None.
        cri: whether CRI itself has shown that it pulls by these files; None where it could not be
            asked, since the node has no crictl, and after `disconnect`.
        restarted: whether containerd was restarted.

    """

    node: str
    files: tuple[str, ...] = ()
    error: ImgloadError | None = None
    cri: bool | None = None
    restarted: bool = False

    @property
    def ok(self) -> bool:
        """Whether the node is as it should be."""
        return self.error is None

    def to_json(self) -> dict[str, Any]:
        """Return the node's part of the document."""
        return {
            "node": self.node,
            "ok": self.ok,
            "files": list(self.files),
            "cri": self.cri,
            "restarted": self.restarted,
            "error": error_json(self.error) if self.error else None,
        }


def connect_nodes(
    nodes: Sequence[Node], url: RegistryUrl, names: Sequence[str], *, restart: bool = False
) -> list[NodeWiring]:
    """Make nodes pull the images of some registries from this one, and try whether they reach it.

    Args:
        nodes: all in parallel.
        url: where the nodes reach it.
        names: the registries' names, as in image names.
        restart: set CRI's ``config_path`` and restart containerd where CRI reads no such files.

    """
    return in_parallel([partial(_connect, node, url, names, restart=restart) for node in nodes])


def disconnect_nodes(nodes: Sequence[Node], url: RegistryUrl | None) -> list[NodeWiring]:
    """Restore what the nodes had before.

    Args:
        nodes: all in parallel.
        url: the registry; None for every one that was connected.

    """
    return in_parallel([partial(_disconnect, node, url) for node in nodes])


def _connect(node: Node, url: RegistryUrl, names: Sequence[str], *, restart: bool) -> NodeWiring:
    done = NodeWiring(node.name)
    try:
        configured = _folders(node)
        if configured is None:
            raise NodeUnusable(
                f"{node.name}: CRI's config_path is no absolute path of plain characters",
                hint="write the hosts.toml files by hand: containerd's docs/hosts.md",
            )
        root = configured[0] if configured else DEFAULT_REGISTRY_FOLDER
        if not configured:
            require_own_configuration(node)
        cri = reads_folder(node, root, url)
        done = attrs.evolve(done, cri=cri)
        if cri is False or (cri is None and len(configured) != 1):
            done = _set(node, root, url, restart=restart)
        texts = [text for name in names for text in (*folders(name), hosts_toml(url, name))]
        files = _run(node, _CONNECT, root, MARK, *texts)
        done = attrs.evolve(done, files=(*done.files, *files))
        require_answer(node, url, root, by_cri=bool(done.cri))
    except ImgloadError as error:
        return attrs.evolve(done, error=error)
    return done


def _set(node: Node, root: str, url: RegistryUrl, *, restart: bool) -> NodeWiring:
    """Make CRI read a folder, where the user has agreed to a restart of containerd."""
    require_own_configuration(node)
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
            message = f"{node.name}: CRI does not read {root}, not even as its config_path"
            raise NodeUnusable(message, hint=f"{node.engine.name} logs {node.container.name}")
    except ImgloadError:
        restore(node)
        raise
    return NodeWiring(node.name, (file,), cri=cri, restarted=True)


def _disconnect(node: Node, url: RegistryUrl | None) -> NodeWiring:
    done = NodeWiring(node.name)
    try:
        configured = _folders(node, any_runtime=True)
        roots = (DEFAULT_REGISTRY_FOLDER,) if configured == () else configured or ()
        registry = registry_line(url) if url else ""
        lines = [line for root in roots for line in _run(node, _DISCONNECT, root, MARK, registry)]
        done = attrs.evolve(done, files=tuple(line for line in lines if line.startswith("/")))
        if len(done.files) == len(lines):
            changed = restore(node)
            files = (*done.files, *changed)
            done = attrs.evolve(done, files=files, restarted=bool(changed))
    except ImgloadError as error:
        return attrs.evolve(done, error=error)
    return done


def _folders(node: Node, *, any_runtime: bool = False) -> tuple[str, ...] | None:
    """Return the folders that CRI's configuration names; None where they cannot be written to."""
    node.require_running()
    (crictl,) = node.run_all([CRICTL_CONFIG])
    with node.understanding():
        if not any_runtime:
            require_containerd(crictl.text)
    (dump,) = node.run_all([(node.runtime or CONTAINERD).dump])
    return parse_registry_folders(dump.text)


def _run(node: Node, script: str, root: str, *arguments: str) -> tuple[str, ...]:
    """Run a script, and return its lines about files."""
    result = node.engine.exec(node.container.id, ["sh", "-c", script, "imgload", root, *arguments])
    if result.exit_status:
        raise NodeUnusable(
            f"{node.name}: its registries could not be set up: {result.message}",
            hint=f"look at them with: {node.engine.name} exec {node.name}"
            f" ls -lR {shlex.quote(root)}",
        )
    lines = result.stdout.decode(errors="replace").splitlines()
    return tuple(line for line in lines if _FILE.fullmatch(line))
