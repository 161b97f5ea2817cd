"""Causes of a node's failures to import or pull, and the hint for each."""

from __future__ import annotations

import re

DISK_FULL = "no space left on device"
_CAUSES = {
    r"read-only file system": "find the disk, and the cause: {command} mount;"
    " after the repair: {engine} restart {node}",
    r"wrong diff id|mismatched image rootfs": "build the image again, or save it from an"
    " engine that runs it: its config lists other layers than it has",
    r"image might be filtered out|no match for platform": "choose a platform that the image has:"
    " imgload load IMAGE --platform OS/ARCH",
    r"operation not permitted|lchown .*: invalid argument|mknod": "build the image without the file"
    " that is named above (its owner, or a device): the node's user namespace does not allow it",
    r"containerd\.sock": "start containerd: {command} systemctl restart containerd",
}


def hint_for(message: str, *, engine: str, node: str) -> str:
    """Return the next step after a failure on a node; empty if the cause is unknown."""
    for pattern, hint in _CAUSES.items():
        if re.search(pattern, message):
            return hint.format(command=f"{engine} exec {node}", engine=engine, node=node)
    return ""
