"""Making nodes pull from a registry, and leaving their configuration as it was.

Names and URLs reach the node as arguments only, and nothing is written outside the folder that
CRI's own configuration names. What was there before is put aside next to it; folders that were
made have a mark, and go again.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from functools import partial
from typing import Any

import attrs

from imgload.errors import ImgloadError, NodeUnusable, RegistryError
from imgload.nodes.containerd import (
    CONFIG_DUMP,
    DEFAULT_REGISTRY_FOLDER,
    VERSION,
    parse_registry_folder,
    parse_version,
    probe_command,
)
from imgload.nodes.node import Node
from imgload.parallel import in_parallel
from imgload.registry.address import RegistryUrl
from imgload.registry.hosts import MARK, folders, hosts_toml, registry_line
from imgload.report import error_json

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
    [ -z "$registry" ] || [ "$second" = "$registry" ] || continue
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
_SETTING = (
    f'[plugins."io.containerd.grpc.v1.cri".registry] with config_path = "{DEFAULT_REGISTRY_FOLDER}"'
)
_ANSWERED = ("not found", "401", "403", "unauthorized", "denied", "insufficient_scope")
"""What containerd says of an image that a registry lacks, or gives only to those who log in."""
_FILE = re.compile(r"/[\w./:\[\]-]+", re.ASCII)


@attrs.frozen
class NodeWiring:
    """What was done on one node.

    Args:
        node: its name.
        files: what was written, or restored.
        error: why it failed, or None.

    """

    node: str
    files: tuple[str, ...] = ()
    error: ImgloadError | None = None

    @property
    def ok(self) -> bool:
        """Whether the node is as it should be."""
        return self.error is None

    def to_json(self) -> dict[str, Any]:
        """Return the node's part of the document."""
        error = error_json(self.error) if self.error else None
        return {"node": self.node, "ok": self.ok, "files": list(self.files), "error": error}


def connect_nodes(
    nodes: Sequence[Node], url: RegistryUrl, names: Sequence[str]
) -> list[NodeWiring]:
    """Make nodes pull the images of some registries from this one, and try whether they reach it.

    Args:
        nodes: all at once.
        url: where the nodes reach it.
        names: the registries' names, as in image names.

    """
    return in_parallel([partial(_connect, node, url, names) for node in nodes])


def disconnect_nodes(nodes: Sequence[Node], url: RegistryUrl | None) -> list[NodeWiring]:
    """Restore what the nodes had before.

    Args:
        nodes: all at once.
        url: the registry; None for every one that was connected.

    """
    return in_parallel([partial(_disconnect, node, url) for node in nodes])


def _connect(node: Node, url: RegistryUrl, names: Sequence[str]) -> NodeWiring:
    files: tuple[str, ...] = ()
    try:
        root = _root(node)
        texts = [text for name in names for text in (*folders(name), hosts_toml(url, name))]
        files = _run(node, _CONNECT, root, MARK, *texts)
        _reach(node, url, root)
    except ImgloadError as error:
        return NodeWiring(node.name, files, error)
    return NodeWiring(node.name, files)


def _disconnect(node: Node, url: RegistryUrl | None) -> NodeWiring:
    try:
        root = _root(node)
        files = _run(node, _DISCONNECT, root, MARK, registry_line(url) if url else "")
    except ImgloadError as error:
        return NodeWiring(node.name, error=error)
    return NodeWiring(node.name, files)


def _root(node: Node) -> str:
    """Return the folder that the node's CRI reads registries from."""
    node.require_running()
    dump, version = node.run_all([CONFIG_DUMP, VERSION])
    folder = parse_registry_folder(dump.text, parse_version(version.text))
    if folder is None:
        raise NodeUnusable(
            f"{node.name}: containerd reads no registries from files: config_path of its CRI plugin"
            " is not set, and setting it takes a restart of containerd",
            hint=f"put {_SETTING} into the node's /etc/containerd/config.toml, and then:"
            f" {node.engine.name} exec {node.name} systemctl restart containerd",
        )
    return folder


def _run(node: Node, script: str, *arguments: str) -> tuple[str, ...]:
    """Run a script, and return the files that it names."""
    result = node.engine.exec(node.container.id, ["sh", "-c", script, "imgload", *arguments])
    if result.exit_status:
        raise NodeUnusable(
            f"{node.name}: its registries could not be set up: {result.message}",
            hint=f"look at them with: {node.engine.name} exec {node.name} ls -lR {arguments[0]}",
        )
    lines = result.stdout.decode(errors="replace").splitlines()
    return tuple(line for line in lines if _FILE.fullmatch(line))


def _reach(node: Node, url: RegistryUrl, root: str) -> None:
    """Ask the registry for an image that it lacks, by the node's own means and configuration."""
    result = node.engine.exec(node.container.id, probe_command(root, url.host))
    said = (result.message.splitlines() or ["nothing"])[-1]
    if not any(word in said.lower() for word in _ANSWERED):
        raise RegistryError(
            f"{node.name} is set up, and does not reach {url}: {said}",
            hint="give the address at which the nodes see it; a registry in a container joins"
            f" their network with: {node.engine.name} network connect kind REGISTRY",
        )
