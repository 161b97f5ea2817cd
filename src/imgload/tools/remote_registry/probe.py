"""CRI's own answer: whether it reads a folder of registries, and whether it reaches a registry.

Neither settings nor versions tell the first: containerd 2.1 and later take a ``config_path`` of
two folders, the default from 2.2 on, as one where CRI pulls through the transfer service, and as
two where it does not (containerd #12415, #12636). So CRI is asked to pull an image whose registry
only a file in that folder knows. Nothing listens at the address in the file; if CRI's error names
the address, CRI has read the file. No image is pulled, and nothing outside the node is asked.
"""

from __future__ import annotations

import re
import secrets
import shlex

from imgload.clusters.nodes.batch import NOT_FOUND
from imgload.clusters.nodes.containerd import probe_command
from imgload.clusters.nodes.cri import NOT_PERMITTED, pull_image
from imgload.clusters.nodes.node import Node
from imgload.core.errors import NodeUnusable, RegistryError
from imgload.engines.base import ExecResult
from imgload.tools.remote_registry.hosts_toml import MARK, registry_line
from imgload.tools.remote_registry.url import RegistryUrl

_SECONDS = "30"
_FORGET_ROOT = r"""
forget_root() {
    if [ -e "$root/.imgload" ]; then
        set -- "$root"/*
        if [ ! -e "$1" ]; then rm "$root/.imgload"; rmdir "$root" 2>/dev/null || :; fi
    fi
}
"""
_PROBE = (
    _FORGET_ROOT
    + r"""
set -eu
umask 022
root=$1 name=$2 text=$3 limit=$4
shift 4
trap 'rm -rf "$root/$name"; forget_root' EXIT
trap 'exit 1' HUP INT TERM
[ -e "$root" ] || { mkdir "$root"; : >"$root/.imgload"; }
mkdir "$root/$name"
: >"$root/$name/.imgload"
printf '%s' "$text" >"$root/$name/hosts.toml"
status=0
timeout "$limit" "$@" 2>&1 || status=$?
printf '\nasked %d\n' $status
"""
)
_ASKED = re.compile(r"\nasked (\d+)\n\Z")
_PULLED = "failed to pull"
"""What CRI's error says when it tried to pull, in every version from 1.5 on."""
_ANSWERED = ("not found", "unauthorized", "forbidden", "denied", "insufficient_scope")
"""What containerd says of an image that a registry lacks, or gives only to those who log in."""
_REASON = re.compile(r'(?:failed to do request|desc = failed to pull.*?): (.+?)"?$')


def reads_folder(node: Node, root: str, url: RegistryUrl) -> bool | None:
    """Return whether CRI reads the registries in a folder; None where the node has no crictl.

    Args:
        node: a node that runs.
        root: the folder.
        url: the registry that is to be connected, by which a file left behind is recognized.

    Raises:
        NodeUnusable: when CRI could not be asked, or the folder cannot be written to.

    """
    address = "127." + ".".join(str(1 + secrets.randbelow(254)) for _ in range(3))
    name, nobody = f"{address}:1", RegistryUrl("http", f"{address}:2")
    text = f'{MARK}\n{registry_line(url)}\nserver = "{nobody}"\n\n[host."{nobody}"]\n'
    pull = node.spelled(pull_image(f"{name}/imgload/probe:none"))
    script = ["sh", "-c", _PROBE, "imgload", root, name, text, _SECONDS, *pull]
    result = node.engine.exec(node.container.id, script)
    said = result.stdout.decode(errors="replace")
    asked = _ASKED.search(said)
    if not asked:
        raise NodeUnusable(
            f"{node.name}: its registries could not be set up: {result.message}",
            hint=f"look at them with: {node.engine.name} exec {node.name}"
            f" ls -lR {shlex.quote(root)}",
        )
    if int(asked.group(1)) in {NOT_FOUND, NOT_PERMITTED}:
        return None
    if f"//{nobody.host}/" in said:
        return True
    if _PULLED in said:
        return False
    reason = ExecResult(1, b"", said[: asked.start()].encode()).message
    raise NodeUnusable(
        f"{node.name}: CRI could not be asked: {reason or 'crictl printed nothing'}",
        hint=f"{node.engine.name} exec {node.name} crictl info",
    )


def require_answer(node: Node, url: RegistryUrl, root: str, *, by_cri: bool) -> None:
    """Have the node ask the registry for an image that nobody has.

    Args:
        node: a node on which the registry is set up.
        url: the registry.
        root: the folder of registries.
        by_cri: whether CRI is to ask; otherwise ctr does, with the same file.

    Raises:
        RegistryError: when the registry does not answer.

    """
    name = f"{url.host}/imgload/probe:{secrets.token_hex(8)}"
    command = pull_image(name) if by_cri else probe_command(root, name)
    result = node.engine.exec(node.container.id, ["timeout", _SECONDS, *node.spelled(command)])
    said = (result.message.splitlines() or [f"no answer within {_SECONDS} seconds"])[-1]
    answer = said.lower().replace(url.host.lower(), "")
    if result.exit_status and not any(word in answer for word in _ANSWERED):
        reason = match.group(1) if (match := _REASON.search(said)) else said
        reason = reason.replace('\\"', '"')
        raise RegistryError(
            f"{node.name} is set up, and does not reach {url}: {reason}",
            hint="give the address at which the nodes see it; a registry in a container joins"
            f" their network with: {node.engine.name} network connect kind REGISTRY",
        )
