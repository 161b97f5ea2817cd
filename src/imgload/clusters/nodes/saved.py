"""Hashes the layers of an image again, on nodes whose runtime stores them only as files.

Docker and Podman recreate the tar of a layer from its files when they save an image, and compare
the checksum of each file (vbatts/tar-split, tar/asm). A tar with other headers has another hash.
"""

from __future__ import annotations

import re
from collections.abc import Sequence

from imgload.clusters.nodes import causes
from imgload.clusters.nodes.base import WITHOUT_BLOBS, NodeRuntime
from imgload.clusters.nodes.batch import NOT_FOUND, keepalive_command
from imgload.core.errors import NodeFull, NodeUnusable, NotVerified
from imgload.oci.digest import Digest

_HASH = r"""
folder=$1
shift
exec 3>&1
{ "$@" 2>&3 || echo "status $?" >&3; } | tar -xf - --to-command=sha256sum
"""
_PROGRESS = 'now=$(df -Pk "$folder"; cat /proc/$work/stat 2>/dev/null)'
"""Docker saves to its disk first; then tar works."""
_SUM = re.compile(r"^([0-9a-f]{64})  -$", re.MULTILINE)
_FAILED = re.compile(r"^status \d+$", re.MULTILINE)


def repair_hint(remove: str) -> str:
    """Return the way to repair an image, from the command that removes it."""
    return (
        f"{remove}, and load it again; other images with its layers keep them: remove these first"
    )


def damaged_layers(
    node: NodeRuntime, name: str, save: Sequence[str], folder: str, digests: Sequence[Digest]
) -> list[Digest]:
    """Return the digests without a member of the archive that `save` prints; NodeError if it fails.

    Args:
        node: the node.
        name: the image.
        save: the command that prints the image as an archive of uncompressed layers.
        folder: a folder on the disk of the images.
        digests: of its layers and config.

    """
    (output,) = node.run_all([keepalive_command(_HASH, _PROGRESS, folder, *save)])
    failed = _FAILED.search(output.text)
    if output.exit_status == NOT_FOUND or (output.exit_status and not failed):
        message = f"{node.name} cannot hash {name}: tar has exit status {output.exit_status} there"
        raise NodeUnusable(message, hint=WITHOUT_BLOBS, node=node.name)
    if failed:
        messages = _SUM.sub("", _FAILED.sub("", output.text)).split("\n")
        reason = next(filter(None, reversed(messages)), failed[0])
        if causes.DISK_FULL in reason:
            message = f"{node.name} ran out of disk space: {reason}"
            raise NodeFull(message, hint=node.disk_hint, node=node.name)
        message = f"{node.name} cannot recreate the layers of {name}: {reason}"
        raise NotVerified(message, hint=node.repair_hint(name), node=node.name, image=name)
    hashes = {Digest("sha256", value) for value in _SUM.findall(output.text)}
    return [digest for digest in digests if digest not in hashes]
