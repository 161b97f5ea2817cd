"""What happened, as values, and as the JSON document that machines read."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import attrs

from imgload.core.errors import JSON_VERSION, ImgloadError, error_json
from imgload.loader.plan import Action
from imgload.loader.proof import Proof
from imgload.oci.digest import Digest
from imgload.oci.platform import Platform


@attrs.frozen
class NodeResult:
    """What happened to one image on one node.

    Args:
        node: the node's name.
        action: ``present``, ``tagged``, ``delta`` (the node had some of the layers) or ``full``; in
            a dry run, the planned one; None when the node could not be asked.
        transport: how the content reached the node; None when nothing was sent.
        proof: what was read back; None when nothing was.
        bytes_missing: in a dry run, the layers that would be sent, as far as their sizes are
            known before; Docker's graphdriver store and Podman know them unpacked.
        bytes_sent: into the node, for this image; a layer that several images share is counted
            with the first of them.
        seconds: from the start of the transfer to the proof.
        error: why it failed, or None.
        replaced: the image ID that had the name before, when it was another.

    """

    node: str
    action: Action | None
    proof: Proof | None = None
    bytes_sent: int = 0
    seconds: float = 0.0
    error: ImgloadError | None = None
    replaced: Digest | None = None
    bytes_missing: int | None = None
    transport: str | None = None

    @property
    def ok(self) -> bool:
        """Whether the node was proven to have the image."""
        return self.error is None and self.proof is not None and self.proof.ok

    @property
    def error_text(self) -> str:
        """The error's message, or that nothing was proven."""
        return self.error.message if self.error else "not proven"

    def to_json(self) -> dict[str, Any]:
        """Return the node's part of the document."""
        planned = {} if self.bytes_missing is None else {"bytes_missing": self.bytes_missing}
        return {
            "node": self.node,
            "action": self.action,
            "transport": self.transport,
            "ok": self.ok,
            **planned,
            "bytes_sent": self.bytes_sent,
            "seconds": round(self.seconds, 3),
            "replaced": str(self.replaced) if self.replaced else None,
            "proof": proof_json(self.proof) if self.proof else None,
            "error": error_json(self.error) if self.error else None,
        }


@attrs.frozen
class ImageResult:
    """What happened to one image, node by node."""

    reference: str
    image_id: Digest | None
    source: str
    platform: Platform
    nodes: tuple[NodeResult, ...]

    def to_json(self) -> dict[str, Any]:
        """Return the image's part of the document."""
        return {
            "reference": self.reference,
            "image_id": str(self.image_id) if self.image_id else None,
            "source": self.source,
            "platform": str(self.platform),
            "nodes": [node.to_json() for node in self.nodes],
        }


@attrs.frozen
class Report:
    """What happened; in a dry run, what would."""

    images: tuple[ImageResult, ...]
    dry_run: bool = False

    @property
    def ok(self) -> bool:
        """Whether every image was proven on every node; in a dry run, whether a plan was made."""
        results = [node for image in self.images for node in image.nodes]
        return all(r.error is None if self.dry_run else r.ok for r in results)

    def failures(self) -> list[tuple[str, NodeResult]]:
        """Return what was not proven, with the image's name."""
        return list(self._failures())

    def _failures(self) -> Iterator[tuple[str, NodeResult]]:
        for image in self.images:
            yield from ((image.reference, node) for node in image.nodes if not node.ok)

    def to_json(self) -> dict[str, Any]:
        """Return the document of ``--output json``."""
        document: dict[str, Any] = {"version": JSON_VERSION}
        if self.dry_run:
            document["dry_run"] = True
        document["images"] = [image.to_json() for image in self.images]
        document["ok"] = self.ok
        return document


def proof_json(proof: Proof) -> dict[str, bool | None]:
    """Return a proof for machines; `content` only where it was asked."""
    document = attrs.asdict(proof)
    if proof.content is None:
        del document["content"]
    return document


class LoadFailed(ImgloadError):
    """At least one node could not be proven to have every image.

    Args:
        report: what happened on every node, including those that went well.

    """

    def __init__(self, report: Report) -> None:
        failed = report.failures()
        lines = [f"{name} on {node.node}: {node.error_text}" for name, node in failed]
        super().__init__("\n".join(lines) or "some node failed")
        self.report = report
