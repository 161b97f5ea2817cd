"""``imgload prune``."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Sequence
from typing import Any

import click

from imgload.cli.options import cluster_options, output_option
from imgload.cli.output import failures, show_json, show_result
from imgload.cli.process import say, style
from imgload.cli.text import failure_text, short_name
from imgload.core.ages import age_text, parse_age
from imgload.core.errors import JSON_VERSION, UsageError, one_line
from imgload.core.sizes import size_text
from imgload.core.state import clear_cache, state_folder
from imgload.tools.inventory.images import NodeImage
from imgload.tools.inventory.prune import NodePruned, PruneFailed, PruneReport

_DRY_RUN = "this was a dry run: nothing was removed; to remove, add --yes"


@click.command()
@click.argument("repositories", nargs=-1, metavar="[REPOSITORY]...")
@cluster_options
@click.option("--yes", "-y", is_flag=True, help="Remove the images instead of listing them.")
@click.option("--dry-run", is_flag=True, help="List the images and remove nothing, despite --yes.")
@click.option(
    "--keep",
    type=click.IntRange(min=0),
    default=3,
    metavar="N",
    help="Number of tagged builds to keep in each repository, newest first.",
    show_default=True,
)
@click.option(
    "--older-than",
    metavar="AGE",
    help="Minimum age on the node, with a unit: 90m, 24h, 7d. [default: any age]",
)
@click.option("--all", "everything", is_flag=True, help="Include images that imgload did not load.")
@click.option("--cache", is_flag=True, help="Clear imgload's cache on this machine instead.")
@output_option("json")
def prune(
    repositories: tuple[str, ...],
    yes: bool,
    dry_run: bool,
    older_than: str | None,
    cache: bool,
    output: str,
    **options: Any,
) -> None:
    """Remove old builds from the nodes.

    Removes images that imgload loaded and that are untagged or older than the newest --keep builds
    of their repository, with all of their names. Images used by a container (running or stopped)
    and pinned images are never removed. REPOSITORY is an image name without a tag, and may contain
    * and ?; omit it to prune all repositories. Without --yes, nothing is removed.

    \b
    Examples:
      imgload prune                        list the images that would be removed
      imgload prune --yes                  remove them
      imgload prune app --keep 1 --yes     keep only the newest build of app
      imgload prune --older-than 24h -y    keep images loaded in the last day
      imgload prune --all --keep 1         include images that the kubelet pulled or kind loaded
      imgload prune --cache --yes          clear the cached facts about container engines

    \b
    Exit status: 0 done, or dry run; 1 some nodes failed; others as for imgload load.
    """
    from imgload.tools.inventory.prune import prune as prune_images  # noqa: PLC0415 - start-up

    dry_run = dry_run or not yes
    with failures(output, quiet=False):
        if cache:
            _prune_cache(repositories, dry_run=dry_run, output=output)
            return
        age = parse_age(older_than) if older_than else None
        try:
            report = prune_images(repositories, older_than=age, dry_run=dry_run, **options)
        except PruneFailed as error:
            report = error.report
    show_result(report, output, show_pruned)


def _prune_cache(repositories: Sequence[str], *, dry_run: bool, output: str) -> None:
    if repositories:
        raise UsageError(
            "--cache clears this machine's cache and takes no REPOSITORY",
            hint="imgload prune --cache",
        )
    folder, size = str(state_folder()), clear_cache(dry_run=dry_run)
    if output == "json":
        cache = {"folder": folder, "bytes_freed": size}
        show_json({"version": JSON_VERSION, "dry_run": dry_run, "cache": cache, "ok": True})
        return
    say(f"{folder}: {size_text(size)} {'would be freed' if dry_run else 'freed'}", err=True)
    if dry_run and size:
        say(_DRY_RUN, err=True)


def show_pruned(report: PruneReport) -> None:
    """Print the removed and the kept images on stderr."""
    for node in report.nodes:
        if node.removed or not node.error:
            say(f"{style(node.node, bold=True)}: {_total(node, report.dry_run)}", err=True)
        for image in node.removed:
            say(f"  - {_describe(image)}", err=True)
        for reason, count in Counter(kept.reason for kept in node.kept).most_common():
            say(style(f"  {count} kept: {one_line(reason)}", dim=True), err=True)
        if node.error:
            say(failure_text(node.node, node.error.message, node.error.hint), err=True)
    if report.dry_run and any(node.removed for node in report.nodes):
        say(_DRY_RUN, err=True)


def _total(node: NodePruned, dry_run: bool) -> str:
    if not node.removed:
        return "nothing to remove"
    count = f"{len(node.removed)} image{'s' if len(node.removed) > 1 else ''}"
    size = size_text(node.bytes_freed)
    return f"would remove {count}, {size}" if dry_run else f"removed {count}, {size} freed"


def _describe(image: NodeImage) -> str:
    age = f", {age_text(time.time() - image.since)} old" if image.since is not None else ""
    former = [f"was {name}" for name in image.loaded_as] or ["untagged"]
    names = ", ".join(map(short_name, image.names or former))
    return f"{names} {image.image_id.short} ({size_text(image.size)}{age})"
