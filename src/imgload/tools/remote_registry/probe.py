"""Ask CRI whether it reads a folder of hosts.toml files, and whether it reaches a registry.

Neither the configuration nor the version answers the first question: containerd 2.1 and later
treat a ``config_path`` of two folders, the default from 2.2 on, as one folder when CRI pulls
through the transfer service, and as two otherwise (containerd #12415, #12636). So imgload has CRI
pull an image from a registry that only a file in that folder defines. Nothing listens at the
address in the file; if CRI's error names this address, CRI has read the file. CRI pulls no image,
and contacts nothing outside the node.
"""

from __future__ import annotations

import re
import secrets
import shlex

from imgload.clusters.nodes.batch import NOT_FOUND
from imgload.clusters.nodes.containerd import NOT_PERMITTED, probe_command, pull_image
from imgload.clusters.nodes.node import Node
from imgload.core.errors import NodeUnusable, RegistryError
from imgload.engines.base import ExecResult
from imgload.tools.remote_registry.config import MARK, registry_line
from imgload.tools.remote_registry.url import RegistryUrl

_SECONDS = "30"
_PROBE = r"""
clean_up() {
    rm -rf "$root/$name"
    [ -e "$root/.imgload" ] || return 0
    set -- "$root"/*
    if [ ! -e "$1" ]; then rm "$root/.imgload"; rmdir "$root" 2>/dev/null || :; fi
}
set -eu
umask 022
root=$1 name=$2 text=$3 limit=$4
shift 4
trap clean_up EXIT
trap 'exit 1' HUP INT TERM
[ -e "$root" ] || { mkdir "$root"; : >"$root/.imgload"; }
mkdir "$root/$name"
: >"$root/$name/.imgload"
printf '%s' "$text" >"$root/$name/hosts.toml"
status=0
timeout "$limit" "$@" 2>&1 || status=$?
printf '\nasked %d\n' $status
"""
_ENDED = re.compile(r"\nasked (\d+)\n\Z")
_PULL_FAILED = "failed to pull"
"""Part of CRI's error for every failed pull, from containerd 1.5 on."""
_NO_IMAGE = ("not found", "unauthorized", "forbidden", "denied", "insufficient_scope")
"""containerd's errors for an image that the registry lacks, or protects by a login."""
_REASON = re.compile(r'(?:failed to do request|desc = failed to pull.*?): (.+?)"?$')


def setup_failed(node: Node, root: str, message: str) -> NodeUnusable:
    return NodeUnusable(
        f"{node.name}: imgload could not set up its registries: {message}",
        hint=f"{node.engine.name} exec {node.name} ls -lR {shlex.quote(root)}",
    )


def reads_folder(node: Node, root: str, url: RegistryUrl) -> bool | None:
    """Return whether CRI reads a folder of hosts.toml files; None if the node has no crictl.

    The probe's own file names the URL, so that `disconnect` removes it if a probe is killed.
    Raises NodeUnusable when CRI does not answer, or the folder is not writable.
    """
    address = "127." + ".".join(str(1 + secrets.randbelow(254)) for _ in range(3))
    name, closed = f"{address}:1", RegistryUrl("http", f"{address}:2")
    text = f'{MARK}\n{registry_line(url)}\nserver = "{closed}"\n\n[host."{closed}"]\n'
    pull = node.resolve_command(pull_image(f"{name}/imgload/probe:none"))
    script = ["sh", "-c", _PROBE, "imgload", root, name, text, _SECONDS, *pull]
    result = node.engine.exec(node.container.id, script)
    output = result.stdout.decode(errors="replace")
    ended = _ENDED.search(output)
    if not ended:
        raise setup_failed(node, root, result.message)
    if int(ended.group(1)) in {NOT_FOUND, NOT_PERMITTED}:
        return None
    if f"//{closed.host}/" in output:
        return True
    if _PULL_FAILED in output:
        return False
    reason = ExecResult(1, b"", output[: ended.start()].encode()).message
    raise NodeUnusable(
        f"{node.name}: CRI could not be asked: {reason or 'crictl printed nothing'}",
        hint=f"{node.engine.name} exec {node.name} crictl info",
    )


def require_registry(node: Node, url: RegistryUrl, root: str, *, by_cri: bool) -> None:
    """Raise RegistryError if a node does not reach a registry that is set up there.

    CRI, or else ctr with the same folder, asks for an image with a random name.
    """
    name = f"{url.host}/imgload/probe:{secrets.token_hex(8)}"
    command = pull_image(name) if by_cri else probe_command(root, name)
    result = node.engine.exec(
        node.container.id, ["timeout", _SECONDS, *node.resolve_command(command)]
    )
    last = (result.message.splitlines() or [f"no answer within {_SECONDS} seconds"])[-1]
    answer = last.lower().replace(url.host.lower(), "")
    if result.exit_status and not any(word in answer for word in _NO_IMAGE):
        reason = match.group(1) if (match := _REASON.search(last)) else last
        reason = reason.replace('\\"', '"')
        raise RegistryError(
            f"{node.name} is set up, and does not reach {url}: {reason}",
            hint="use the address at which the nodes reach the registry; connect a registry"
            f" container to their network: {node.engine.name} network connect kind REGISTRY",
        )
