"""The result as text, for people; on stderr, stdout is for machines."""

from __future__ import annotations

import re

from imgload.cli.process import say, style
from imgload.core.errors import ImgloadError, one_line
from imgload.core.sizes import size_text
from imgload.loader.report import NodeResult, Report

_DIGITS = re.compile(r"\b([0-9a-f]{12})[0-9a-f]{28,}\b")
_DONE = {
    "present": "already there",
    "tagged": "tagged",
    "delta": "loaded",
    "full": "loaded",
}
_PLANNED = {
    "present": "already there",
    "tagged": "would be tagged",
    "delta": "would be sent in part",
    "full": "would be sent",
}


def show_report(report: Report, *, quiet: bool) -> None:
    """Print each image with its nodes; only failures when quiet."""
    for image in report.images:
        bad = [node for node in image.nodes if node.error or not (node.ok or report.dry_run)]
        if quiet and not bad:
            continue
        identity = f" {image.image_id.short}" if image.image_id else ""
        say(f"{style(image.reference, bold=True)}{identity}", err=True)
        for node in bad if quiet else image.nodes:
            say(f"  {_line(node, dry_run=report.dry_run)}", err=True)
    if not quiet:
        _advise(report)


def _line(node: NodeResult, *, dry_run: bool) -> str:
    if dry_run and not node.error:
        size = f" ({size_text(node.bytes_missing)} missing)" if node.bytes_missing else ""
        return f"- {node.node}: {_PLANNED[node.action or 'full']}{size}"
    if not node.ok:
        hint = hint_text(node.error.hint if node.error else "")
        return f"{style('✗', fg='red')} {at_node(node.node, node.error_text)}{hint}"
    sent = f", {size_text(node.bytes_sent)} in {node.seconds:.1f} s" if node.bytes_sent else ""
    replaced = f", replaced {node.replaced.short}" if node.replaced else ""
    mark = style("✓", fg="green")
    return f"{mark} {node.node}: {_DONE[node.action or 'full']}{sent}{replaced}; {_proof(node)}"


def at_node(node: str, said: str) -> str:
    """Return what is said of a node, with its name before it once."""
    return said if said.startswith((f"{node} ", f"{node}: ")) else f"{node}: {said}"


def hint_text(hint: str) -> str:
    """Return the line below a failure that says what to do, or nothing."""
    return f"\n      {style('try:', fg='cyan')} {hint}" if hint else ""


def _proof(node: NodeResult) -> str:
    again = ", its content read again" if node.proof and node.proof.content else ""
    if node.proof is not None and node.proof.cri:
        return f"proven on containerd and by CRI{again}"
    return f"proven on containerd (no crictl on the node){again}"


def _advise(report: Report) -> None:
    for image in report.images:
        if image.reference.endswith(":latest"):
            say(
                f"note: the kubelet pulls {image.reference} each time; set imagePullPolicy:"
                " IfNotPresent in the pod spec, or use another tag",
                err=True,
            )


def name_text(name: str) -> str:
    """Return a name that a node told, fit for a terminal and for one line."""
    return one_line(name)


def short_name(name: str) -> str:
    """Return a name that a node told, with the first twelve of a digest's digits only."""
    return _DIGITS.sub(r"\1…", name_text(name))


def show_built(report: Report) -> None:
    """Print one line for an image that every node has under all of its names."""
    image = report.images[0]
    results = [node for each in report.images for node in each.nodes]
    size = max(node.bytes_sent for node in results)
    count = len(image.nodes)
    nodes = f"{count} node{'' if count == 1 else 's'}"
    name = style(short_name(image.reference), bold=True)
    identity = f" {image.image_id.short}" if image.image_id else ""
    sent = f", {size_text(size)}" if size else ""
    proof = " or ".join(sorted({_proof(node) for node in results}))
    say(f"{name}{identity} -> {nodes}{sent}; {proof}", err=True)


def show_node_error(node: str, error: ImgloadError) -> None:
    """Print why a node failed, and what to do about it."""
    say(f"{style('✗', fg='red')} {at_node(node, error.message)}", err=True)
    if error.hint:
        say(f"    {style('try:', fg='cyan')} {error.hint}", err=True)
