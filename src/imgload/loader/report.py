"""The results of a load or verification, as values and as a JSON document."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal

import attrs

from imgload.clusters.nodes.proof import Proof
from imgload.core.errors import (
    JSON_VERSION,
    ImgloadError,
    NodeError,
    SourceError,
    error_json,
    one_line,
)
from imgload.oci.digest import Digest
from imgload.oci.platform import Platform

Action = Literal["present", "tagged", "delta", "full"]


@attrs.frozen
class NodeResult:
    """The result for one image on one node.

    Args:
        node: the node's name.
        action: ``present``, ``tagged``, ``delta`` (the node had some of the layers) or ``full``; in
            a dry run, the planned one; None if the node could not be surveyed.
        transport: how the content reached the node; None if nothing was sent.
        proof: the checks of the image on the node; None if it was not read back.
        bytes_missing: in a dry run, the size of the layers to send, as far as it is known;
            Docker's graphdriver store and Podman report unpacked sizes.
        bytes_sent: bytes sent to the node for this image; a layer that several images share counts
            for the first of them.
        seconds: from the start of the transfer to the verification.
        error: why it failed, or None.
        replaced: the ID of the other image that had the name before, or None.

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

    def __attrs_post_init__(self) -> None:
        if isinstance(self.error, NodeError):  # the error of a source may be that of several nodes
            self.error.node = self.error.node or self.node

    @property
    def ok(self) -> bool:
        """Whether the image was verified on the node."""
        return self.error is None and self.proof is not None and self.proof.ok

    @property
    def content(self) -> Literal["complete", "partial"] | None:
        """Whether the content store has all layers of the image; None if that is unknown.

        Containers run with ``partial`` content, too; but containerd cannot push or export it.
        """
        return self.proof.layers if self.proof else None

    @property
    def content_reason(self) -> str:
        """Why the content is partial; otherwise empty."""
        return self.proof.partial_reason if self.proof else ""

    @property
    def error_text(self) -> str:
        """The error's message, or that the image was not verified."""
        return self.error.message if self.error else "not verified"

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
            "content": self.content,
            "content_reason": self.content_reason or None,
            "proof": self.proof.to_json() if self.proof else None,
            "error": error_json(self.error) if self.error else None,
        }


@attrs.frozen
class ImageResult:
    """The results for one image, by node."""

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
class Workload:
    """A workload to restart; `kind` is ``deployment``, ``statefulset`` or ``daemonset``."""

    context: str
    namespace: str
    kind: str
    name: str

    def __str__(self) -> str:
        return one_line(f"{self.kind}/{self.name} in {self.namespace} ({self.context})")


@attrs.frozen
class Restart:
    """The workloads that a load restarted, or in a dry run would restart; why others were not."""

    workloads: tuple[Workload, ...] = ()
    error: ImgloadError | None = None

    def to_json(self) -> dict[str, Any]:
        """Return the part of the document about restarts."""
        return {
            "workloads": [attrs.asdict(workload) for workload in self.workloads],
            "error": error_json(self.error) if self.error else None,
        }


@attrs.frozen
class Report:
    """The results for all images; in a dry run, the planned actions.

    `notes` are the texts of the `Note` events until then. `restart` is None unless restarts were
    requested and every image was loaded, or planned in a dry run. `errors` are why images of a list
    could not be loaded at all. `changed` are the names of the images that are new or replaced on a
    node, or in a dry run would be, by kube context.
    """

    images: tuple[ImageResult, ...]
    dry_run: bool = False
    notes: tuple[str, ...] = ()
    restart: Restart | None = None
    errors: tuple[ImgloadError, ...] = ()
    changed: Mapping[str, frozenset[str]] = attrs.field(factory=dict, hash=False, repr=False)

    @property
    def ok(self) -> bool:
        """Whether every image was verified on every node, and the restarts succeeded.

        In a dry run, whether there is a plan, and the workloads to restart are known.
        """
        return not (self.errors or self.failures() or (self.restart and self.restart.error))

    def failures(self) -> list[tuple[str, NodeResult]]:
        """Return the results that are not `ok`, with the names of their images."""
        results = [(image.reference, node) for image in self.images for node in image.nodes]
        return [(n, r) for n, r in results if not (r.error is None if self.dry_run else r.ok)]

    def to_json(self) -> dict[str, Any]:
        """Return the document of ``--output json``."""
        document: dict[str, Any] = {"version": JSON_VERSION}
        if self.dry_run:
            document["dry_run"] = True
        document["images"] = [image.to_json() for image in self.images]
        document["notes"] = list(self.notes)
        if self.errors:
            document["errors"] = [error_json(e) | {"image": e.image} for e in self.errors]
        if self.restart:
            document["restart"] = self.restart.to_json()
        document["ok"] = self.ok
        return document


class LoadFailed(ImgloadError):
    """At least one image was not verified on at least one node.

    Its exit status is that of a `SourceError` if only images of an archive are at fault, and that
    of the `errors` of a list if they all have the same one.

    Args:
        report: the results for all nodes, including the successful ones.

    """

    def __init__(self, report: Report) -> None:
        failed = report.failures()
        lines = [f"{name} on {node.node}: {node.error_text}" for name, node in failed]
        lines += [error.message for error in report.errors]
        super().__init__("\n".join(lines) or "some node failed")
        errors = [*(node.error for _, node in failed if node.error), *report.errors]
        self.show_hints(error.hint for error in errors)
        self.report = report
        statuses = {error.exit_status for error in report.errors}
        statuses |= {
            SourceError.exit_status if isinstance(node.error, SourceError) else 1
            for _, node in failed
        }
        if len(statuses) == 1:
            [self.exit_status] = statuses


class RestartFailed(ImgloadError):
    """Every image was loaded, but at least one workload was not restarted.

    Args:
        report: the results of the load, and its `restart`.

    """

    def __init__(self, report: Report) -> None:
        error = report.restart.error if report.restart else None
        super().__init__(error.message if error else "no restart", hint=error.hint if error else "")
        self.report = report
