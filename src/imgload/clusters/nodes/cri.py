"""What ``crictl`` prints, understood: the kubelet's own view of a node's images."""

from __future__ import annotations

import json
from typing import Any

import attrs

from imgload.clusters.nodes.batch import NOT_FOUND, Output
from imgload.core.errors import ArchiveInvalid, NodeUnusable, reason
from imgload.oci.digest import Digest

NOT_PERMITTED = 126
_NO_IMAGE = "no such image"
_NOT_CONNECTED = (
    "validate service connection",
    "connect endpoint",
    "code = Unimplemented",
    "dial unix",
)
"""crictl on a socket where nobody answers, or a containerd without its CRI plugin (cri-tools
``cmd/crictl/main.go``)."""
_CRI_STATE = "see whether containerd runs its CRI plugin, on the node: ctr plugins ls -d id==cri"
CONTAINERS = ("crictl", "ps", "-a", "-o", "json")


def inspect_image(name: str) -> tuple[str, ...]:
    """Return the command that asks CRI about an image."""
    return ("crictl", "inspecti", name)


def pull_image(name: str) -> tuple[str, ...]:
    """Return the command that has CRI pull an image."""
    return ("crictl", "pull", name)


@attrs.frozen
class CriAnswer:
    """CRI's answer about one name.

    Args:
        image_id: None when CRI does not know the name, or gave no answer.
        failure: why it gave no answer; empty when it did.

    """

    image_id: Digest | None
    failure: str = ""


def parse_inspect(output: Output) -> CriAnswer | None:
    """Understand ``crictl inspecti``; None where the node has no crictl.

    Raises:
        NodeUnusable: when crictl does not reach CRI, which says nothing about the image.

    """
    if output.exit_status in {NOT_FOUND, NOT_PERMITTED}:
        return None
    if output.exit_status:
        failure = reason(output.text)
        if any(words in failure for words in _NOT_CONNECTED):
            raise NodeUnusable(f"crictl does not reach CRI: {failure}", hint=_CRI_STATE)
        return CriAnswer(None, "" if _NO_IMAGE in failure else failure)
    try:
        status: Any = json.loads(output.stdout)["status"]
        return CriAnswer(Digest.parse(status["id"]))
    except (ValueError, KeyError, TypeError, RecursionError, ArchiveInvalid):
        return CriAnswer(None, "crictl inspecti printed something that is not understood")


def parse_containers(output: Output) -> frozenset[str]:
    """Return all that ``crictl ps -a`` calls the images of containers: names, IDs, digests.

    Raises:
        NodeUnusable: when there is a crictl and it fails: an image in use might not look so.

    """
    if output.exit_status in {NOT_FOUND, NOT_PERMITTED}:
        return frozenset()
    if output.exit_status:
        failure = reason(output.text)
        raise NodeUnusable(f"crictl does not list the containers: {failure}", hint=_CRI_STATE)
    try:
        containers: Any = json.loads(output.stdout)["containers"]
        called = [(c.get("imageRef"), c.get("imageId"), _image(c)) for c in containers]
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError):
        return frozenset()
    return frozenset(name for names in called for name in names if isinstance(name, str) and name)


def _image(container: Any) -> Any:
    return (container.get("image") or {}).get("image")
