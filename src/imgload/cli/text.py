"""Results as text for people, on stderr; stdout is for machines."""

from __future__ import annotations

import re

from imgload.cli.process import say, style
from imgload.core.errors import one_line
from imgload.core.units import size_text
from imgload.loader.report import ImageResult, NodeResult, Report

_DIGEST = re.compile(r"\b([0-9a-f]{12})[0-9a-f]{28,}\b")
_DONE = {"present": "already there", "tagged": "tagged", "delta": "loaded", "full": "loaded"}
_PLANNED = {
    "present": "already there",
    "tagged": "would be tagged",
    "delta": "would be sent in part",
    "full": "would be sent",
}


def show_report(report: Report, *, quiet: bool) -> None:
    """Print each image with its nodes; if quiet, only failures."""
    for image in report.images:
        failed = [node for node in image.nodes if node.error or not (node.ok or report.dry_run)]
        if quiet and not failed:
            continue
        say(_title(image.reference, image), err=True)
        for node in failed if quiet else image.nodes:
            say(f"  {_line(node, dry_run=report.dry_run)}", err=True)
    for image in () if quiet else report.images:
        if image.reference.endswith(":latest"):
            say(
                f"note: the kubelet pulls {image.reference} each time; set imagePullPolicy:"
                " IfNotPresent in the pod spec, or use another tag",
                err=True,
            )


def _line(node: NodeResult, *, dry_run: bool) -> str:
    if dry_run and not node.error:
        size = f" ({size_text(node.bytes_missing)} missing)" if node.bytes_missing else ""
        return f"- {node.node}: {_PLANNED[node.action or 'full']}{size}"
    if not node.ok:
        return failure_text(node.node, node.error_text, node.error.hint if node.error else "")
    sent = f", {size_text(node.bytes_sent)} in {node.seconds:.1f} s" if node.bytes_sent else ""
    replaced = f", replaced {node.replaced.short}" if node.replaced else ""
    mark = style("✓", fg="green")
    return f"{mark} {node.node}: {_DONE[node.action or 'full']}{sent}{replaced}; {_verified(node)}"


def at_node(node: str, message: str) -> str:
    """Return a message about a node that starts with the node's name, once."""
    return message if message.startswith((f"{node} ", f"{node}: ")) else f"{node}: {message}"


def failure_text(node: str, message: str, hint: str) -> str:
    """Return the line about a node that failed, and the hint below it."""
    return f"{style('✗', fg='red')} {at_node(node, message)}{hint_text(hint)}"


def hint_text(hint: str) -> str:
    """Return the ``try:`` line to append to a message; empty without a hint."""
    return f"\n      {style('try:', fg='cyan')} {hint}" if hint else ""


def _verified(node: NodeResult) -> str:
    deep = ", blobs re-hashed" if node.proof and node.proof.content else ""
    if node.proof is not None and node.proof.cri:
        return f"verified by containerd and CRI{deep}"
    return f"verified by containerd (no crictl on the node){deep}"


def short_name(name: str) -> str:
    """Return an image name for one line of a terminal, with digests cut to twelve digits."""
    return _DIGEST.sub(r"\1…", one_line(name))


def show_built(report: Report) -> None:
    """Print one line about an image that every node has under all of its names."""
    image = report.images[0]
    results = [node for image in report.images for node in image.nodes]
    size = max(node.bytes_sent for node in results)
    sent = f", {size_text(size)}" if size else ""
    verified = " or ".join(sorted({_verified(node) for node in results}))
    summary = summary_text(short_name(image.reference), image, str(len(image.nodes)))
    say(f"{summary}{sent}; {verified}", err=True)


def summary_text(name: str, image: ImageResult, count: str) -> str:
    """Return ``NAME ID -> COUNT nodes`` for an image."""
    plural = "" if len(image.nodes) == 1 else "s"
    return f"{_title(name, image)} -> {count} node{plural}"


def _title(name: str, image: ImageResult) -> str:
    return style(name, bold=True) + (f" {image.image_id.short}" if image.image_id else "")
