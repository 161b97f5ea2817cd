"""Causes of a node's failures to import or pull, and the hint for each."""

from __future__ import annotations

from imgload.engines.causes import Cause, cause_of

DISK_FULL = "no space left on device"
_CAUSES = (
    Cause(
        r"read-only file system",
        "find the disk, and the cause: {command} mount; after the repair: {restart}",
    ),
    Cause(
        r"wrong diff id|mismatched image rootfs",
        "build the image again, or save it from an engine that runs it: its config lists other"
        " layers than it has",
    ),
    Cause(
        r"is rejected by policy|is required by policy|policy\.json",
        "have the node's signature policy accept local images: {command} cat"
        " /etc/containers/policy.json",
    ),
    Cause(
        r"image might be filtered out|no match for platform",
        "choose a platform that the image has: imgload load IMAGE --platform OS/ARCH",
    ),
    Cause(
        r"operation not permitted|lchown .*: invalid argument|mknod",
        "build the image without the file that is named above (its owner, or a device): the node's"
        " user namespace does not allow it",
    ),
    Cause(
        r"exec: \"sh\": executable file not found|executable file `sh` not found",
        "it has no shell, so it is likely Talos or another immutable system; push to a registry"
        " that it pulls from: imgload registry push IMAGE --to URL; Talos pulls in advance with:"
        " talosctl image pull IMAGE",
    ),
    Cause(r"containerd\.sock", "start containerd: {command} systemctl restart containerd"),
)


def hint_for(message: str, *, command: str, restart: str) -> str:
    """Return the next step after a failure on a node; empty if the cause is unknown.

    `command` precedes a command that runs on the node, and `restart` restarts the node.
    """
    cause = cause_of(message, _CAUSES)
    return cause.hint.format(command=command, restart=restart) if cause else ""
