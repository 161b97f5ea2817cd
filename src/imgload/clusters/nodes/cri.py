"""Commands of ``crictl``, and parsers of their output: the kubelet's view of a node's images."""

from __future__ import annotations

import json
from typing import Any

import attrs

from imgload.clusters.nodes.batch import NOT_FOUND, Output
from imgload.core.errors import ArchiveInvalid, NodeUnusable, reason
from imgload.oci.digest import Digest

NOT_PERMITTED = 126
CONTAINERS = ("crictl", "ps", "-a", "-o", "json")
_NO_IMAGE = "no such image"
_NOT_CONNECTED = (
    "validate service connection",
    "connect endpoint",
    "code = Unimplemented",
    "dial unix",
)
"""crictl on a socket without a server, or on a containerd without its CRI plugin (cri-tools
``cmd/crictl/main.go``)."""
_CRI_HINT = "check that containerd runs its CRI plugin, on the node: ctr plugins ls -d id==cri"


def inspect_image(name: str) -> tuple[str, ...]:
    """Return the command that queries CRI for an image."""
    return ("crictl", "inspecti", name)


def pull_image(name: str) -> tuple[str, ...]:
    """Return the command that makes CRI pull an image."""
    return ("crictl", "pull", name)


@attrs.frozen
class CriAnswer:
    """CRI's answer about one name.

    Args:
        image_id: None when CRI does not know the name, or failed.
        failure: why it failed; empty when it did not.

    """

    image_id: Digest | None
    failure: str = ""


def parse_inspect(output: Output) -> CriAnswer | None:
    """Parse the output of ``crictl inspecti``; None where the node has no crictl.

    Raises:
        NodeUnusable: when crictl does not reach CRI, so that nothing is known about the image.

    """
    if output.exit_status in {NOT_FOUND, NOT_PERMITTED}:
        return None
    if output.exit_status:
        failure = reason(output.text)
        if any(words in failure for words in _NOT_CONNECTED):
            raise NodeUnusable(f"crictl does not reach CRI: {failure}", hint=_CRI_HINT)
        return CriAnswer(None, "" if _NO_IMAGE in failure else failure)
    try:
        return CriAnswer(Digest.parse(json.loads(output.stdout)["status"]["id"]))
    except (ValueError, KeyError, TypeError, RecursionError, ArchiveInvalid):
        return CriAnswer(None, "cannot parse the output of crictl inspecti")


def parse_containers(output: Output) -> frozenset[str]:
    """Return the names, IDs and digests by which ``crictl ps -a`` lists containers' images.

    Raises:
        NodeUnusable: when crictl exists and fails: an image in use might look unused.

    """
    if output.exit_status in {NOT_FOUND, NOT_PERMITTED}:
        return frozenset()
    if output.exit_status:
        failure = reason(output.text)
        raise NodeUnusable(f"crictl does not list the containers: {failure}", hint=_CRI_HINT)
    try:
        containers: Any = json.loads(output.stdout)["containers"]
        names = [
            name
            for c in containers
            for name in (c.get("imageRef"), c.get("imageId"), (c.get("image") or {}).get("image"))
        ]
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError):
        return frozenset()
    return frozenset(name for name in names if isinstance(name, str) and name)
