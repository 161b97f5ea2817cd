"""What was pruned, or would be, for people and for machines."""

from __future__ import annotations

import time
from collections import Counter

from imgload.cli.output import show_json
from imgload.cli.process import say, style
from imgload.cli.text import name_text, short_name, show_node_error
from imgload.core.ages import age_text
from imgload.core.errors import JSON_VERSION
from imgload.core.sizes import size_text
from imgload.core.state import state_folder
from imgload.tools.inventory.node_images import NodeImage
from imgload.tools.inventory.prune import NodePruned, PruneReport

_DRY = "this was a dry run: nothing was removed; to do it, add --yes"


def show_pruned(report: PruneReport, output: str) -> None:
    """Print what went and what stayed: as text on stderr, or as JSON on stdout."""
    if output == "json":
        show_json(report.to_json())
        return
    for node in report.nodes:
        _show_node(node, dry_run=report.dry_run)
    if report.dry_run and any(node.removed for node in report.nodes):
        say(_DRY, err=True)


def show_cache(size: int, *, dry_run: bool, output: str) -> None:
    """Print how much of the cache on this machine went."""
    folder = str(state_folder())
    if output == "json":
        cache = {"folder": folder, "bytes_freed": size}
        show_json({"version": JSON_VERSION, "dry_run": dry_run, "cache": cache, "ok": True})
        return
    done = "would be freed" if dry_run else "freed"
    say(f"{folder}: {size_text(size)} {done}", err=True)
    if dry_run and size:
        say(_DRY, err=True)


def _show_node(node: NodePruned, *, dry_run: bool) -> None:
    if node.removed or not node.error:
        say(f"{style(node.node, bold=True)}: {_sum(node, dry_run=dry_run)}", err=True)
    for image in node.removed:
        say(f"  - {_line(image)}", err=True)
    reasons = Counter(kept.reason for kept in node.kept)
    for reason, count in reasons.most_common():
        say(style(f"  {count} kept: {name_text(reason)}", dim=True), err=True)
    if node.error:
        show_node_error(node.node, node.error)


def _sum(node: NodePruned, *, dry_run: bool) -> str:
    if not node.removed:
        return "nothing to remove"
    count = f"{len(node.removed)} image{'s' if len(node.removed) > 1 else ''}"
    size = size_text(node.bytes_freed)
    return f"would remove {count}, {size}" if dry_run else f"removed {count}, {size} freed"


def _line(image: NodeImage) -> str:
    age = f", {age_text(time.time() - image.since)} old" if image.since is not None else ""
    was = [f"was {name}" for name in image.loaded_as] or ["no name"]
    names = ", ".join(map(short_name, image.names or was))
    return f"{names} {image.image_id.short} ({size_text(image.size)}{age})"
