"""Set up nodes so that they pull from this machine first, and restore them.

Each node gets a hosts.toml for all registries without one, and in each existing hosts.toml our
server becomes the first host (containerd, docs/hosts.md). containerd asks the next host when a host
refuses the connection, or lacks the image.
"""

from __future__ import annotations

import secrets
import tomllib
from collections.abc import Callable, Sequence
from urllib.parse import urlsplit

import attrs

from imgload.clusters.nodes.containerd import probe_command, pull_image
from imgload.clusters.nodes.node import REACH, Node
from imgload.core.errors import ImgloadError, NodeUnusable
from imgload.tools.remote_registry.configure import (
    NodeWiring,
    Owner,
    RegistryUrl,
    disconnect_node,
    find_folder,
    registry_line,
    run_script,
    set_config_path,
    write_files,
)

SERVE = Owner(
    "# Written by imgload serve, which takes it away when it ends; or: imgload serve --stop",
    ".before-imgload-serve",
    "077",
)
"""The files have the secret path, so only root on the node may read them."""
PROBE = "imgload/probe-"
"""Begins the repository of an image that a node pulls to show that it uses our server."""
_DEFAULT = "_default"
_CONNECT_SCRIPT = REACH + 'for url; do reach "$url" && { echo "$url"; exit 0; }; done\nexit 69\n'
_LIST = r"""
marker=$1
for file in "$root"/*/hosts.toml; do
    [ -f "$file" ] && [ ! -L "$file" ] && [ ! -L "${file%/hosts.toml}" ] || continue
    printf '%s\n%s\n' "$marker" "${file%/hosts.toml}"
    cat "$file"
    echo
done
"""
_SECONDS = "30"


def set_up(
    node: Node, urls: Sequence[str], was_asked: Callable[[str], bool], *, restart: bool
) -> NodeWiring:
    """Make a node pull from one of our addresses first, and check that its CRI does.

    Args:
        node: the node.
        urls: the addresses with the node's secret path, of which one must be reachable.
        was_asked: whether our server got a request for a repository.
        restart: whether containerd may be restarted.

    """
    removed = restore(node)
    if removed.error:
        return removed
    result = NodeWiring(node.name)
    try:
        url = _reachable(node, urls)
        address = RegistryUrl("http", urlsplit(url).netloc)
        root, cri, is_read = find_folder(node, address)
        result = attrs.evolve(result, cri=cri)
        if not is_read:
            result = set_config_path(node, root, address, restart=restart)
        files = write_files(node, root, _texts(node, root, url, address), SERVE)
        result = attrs.evolve(result, files=(*result.files, *files))
        _require_pulls(node, root, was_asked, by_cri=bool(result.cri))
    except ImgloadError as error:
        return attrs.evolve(result, error=error)
    return result


def restore(node: Node) -> NodeWiring:
    """Restore a node's files and configuration from before `set_up`."""
    return disconnect_node(node, None, owner=SERVE)


def _reachable(node: Node, urls: Sequence[str]) -> str:
    result = node.engine.exec(node.container.id, ["sh", "-c", _CONNECT_SCRIPT, "imgload", *urls])
    url = result.stdout.decode(errors="replace").strip()
    if url not in urls:
        addresses = ", ".join(urlsplit(text).netloc for text in urls) or "none"
        raise NodeUnusable(
            f"{node.name} cannot connect to this machine; tried: {addresses}",
            hint="allow connections from the nodes' network in this machine's firewall; or use"
            " imgload watch, which needs none",
        )
    return url


def _texts(node: Node, root: str, url: str, address: RegistryUrl) -> dict[str, str]:
    """Return the text of each hosts.toml to write, by the name of its folder."""
    marker = secrets.token_hex(16)
    listed = run_script(node, _LIST, root, marker).stdout.decode(errors="replace")
    existing = {}
    for part in listed.split(f"{marker}\n")[1:]:
        folder, _, text = part.partition("\n")
        existing[folder.rpartition("/")[2]] = text.removesuffix("\n")
    head = f"{SERVE.mark}\n{registry_line(address)}\n"
    with node.naming_node_in_errors():
        merged = {name: with_first_host(text, url) for name, text in existing.items()}
    merged.setdefault(_DEFAULT, with_first_host("", url))
    return {name: head + text for name, text in merged.items()}


def with_first_host(text: str, url: str) -> str:
    """Return a hosts.toml with our server before all other hosts; NodeUnusable if impossible.

    containerd tries the hosts in the order of the file.
    """
    rules = '  capabilities = ["pull", "resolve"]\n  override_path = true\n'
    lines = text.splitlines(keepends=True)
    first = next((i for i, x in enumerate(lines) if x.lstrip().startswith("[")), len(lines))
    before = "".join(lines[:first])
    before += "" if before.endswith("\n") or not before else "\n"
    edited = f'{before}[host."{url}"]\n{rules}' + "".join(lines[first:])
    try:
        old, new = tomllib.loads(text), tomllib.loads(edited)
    except (ValueError, RecursionError) as error:
        raise NodeUnusable(f"a hosts.toml on the node is not valid: {error}") from error
    own = {"capabilities": ["pull", "resolve"], "override_path": True}
    if new != {**old, "host": {url: own, **old.get("host", {})}} or next(iter(new["host"])) != url:
        raise NodeUnusable("imgload cannot edit a hosts.toml in this layout")
    return edited


def _require_pulls(
    node: Node, root: str, was_asked: Callable[[str], bool], *, by_cri: bool
) -> None:
    """Raise NodeUnusable unless a pull of CRI, or else of ctr, sends its request to our server.

    The registry in the image's name is a loopback address at which nothing listens.
    """
    repository = f"{PROBE}{secrets.token_hex(8)}"
    name = f"127.0.0.1:1/{repository}:none"
    pull = pull_image(name) if by_cri else probe_command(root, name)
    command = ["timeout", _SECONDS, *node.resolve_command(pull)]
    result = node.engine.exec(node.container.id, command)
    if not was_asked(repository):
        raise NodeUnusable(
            f"{node.name} is set up, but does not pull through imgload: {result.message}",
            hint=node.exec_command("ls", "-lR", root),
        )
