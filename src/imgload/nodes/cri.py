"""What ``crictl`` prints, understood: the kubelet's own view of a node's images."""

from __future__ import annotations

import json
from typing import Any

import attrs

from imgload.errors import ArchiveInvalid
from imgload.nodes.batch import NOT_FOUND, Output
from imgload.oci.digest import Digest

NOT_PERMITTED = 126
CONTAINERS = ("crictl", "ps", "-a", "-o", "json")


def inspect_image(name: str) -> tuple[str, ...]:
    """Return the command that asks CRI about an image."""
    return ("crictl", "inspecti", name)


def pull_image(name: str) -> tuple[str, ...]:
    """Return the command that has CRI pull an image."""
    return ("crictl", "pull", name)


@attrs.frozen
class CriAnswer:
    """CRI's answer about one name; `image_id` is None when it does not know the name."""

    image_id: Digest | None


def parse_inspect(output: Output) -> CriAnswer | None:
    """Understand ``crictl inspecti``; None where the node has no crictl."""
    if output.exit_status in {NOT_FOUND, NOT_PERMITTED}:
        return None
    if output.exit_status:
        return CriAnswer(None)
    try:
        status: Any = json.loads(output.stdout)["status"]
        return CriAnswer(Digest.parse(status["id"]))
    except (ValueError, KeyError, TypeError, RecursionError, ArchiveInvalid):
        return CriAnswer(None)


def parse_containers(output: Output) -> frozenset[str]:
    """Return all that ``crictl ps -a`` calls the images of containers: names, IDs, digests."""
    try:
        containers: Any = json.loads(output.stdout)["containers"]
        called = [(c.get("imageRef"), c.get("imageId"), _image(c)) for c in containers]
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError):
        return frozenset()
    return frozenset(name for names in called for name in names if isinstance(name, str) and name)


def _image(container: Any) -> Any:
    return (container.get("image") or {}).get("image")
