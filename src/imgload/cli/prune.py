"""``imgload prune``."""

from __future__ import annotations

from collections.abc import Sequence

import click

from imgload.cli.options import cluster_options, output_option
from imgload.cli.output import failures
from imgload.core.ages import parse_age
from imgload.core.errors import UsageError
from imgload.core.state import clear_cache
from imgload.tools.inventory.prune import PruneFailed


@click.command(short_help="Remove old builds from the nodes.")
@click.argument("repositories", nargs=-1, metavar="[REPOSITORY]...")
@cluster_options
@click.option("--yes", "-y", is_flag=True, help="Do it; without this, only say what would go.")
@click.option("--dry-run", is_flag=True, help="Only say what would go, also with --yes.")
@click.option(
    "--keep",
    type=click.IntRange(min=0),
    default=3,
    metavar="N",
    help="How many named builds stay in each repository, the newest first.",
    show_default=True,
)
@click.option(
    "--older-than",
    metavar="AGE",
    help="Only what came to the node that long ago: 90m, 24h, 7d.",
)
@click.option("--all", "everything", is_flag=True, help="Also what imgload did not load.")
@click.option("--cache", is_flag=True, help="Clear imgload's cache on this machine instead.")
@output_option("json")
def prune(
    repositories: tuple[str, ...],
    cluster: str | None,
    nodes: tuple[str, ...],
    yes: bool,
    dry_run: bool,
    keep: int,
    older_than: str | None,
    everything: bool,
    cache: bool,
    output: str,
) -> None:
    """Remove old builds from the nodes of a cluster, under every name that they have there.

    What goes is what imgload loaded, and what either has no name any more, since that moved on to
    a newer build, or is not among the newest --keep builds of its repository. What a container was
    made from, running or not, stays in any case, and so does what is pinned. REPOSITORY is a name
    without a tag, and may have * and ? in it; none means all.

    Without --yes nothing is removed, on a terminal and elsewhere, and the exit status is 0.

    \b
    Examples:
      imgload prune                        what would go
      imgload prune --yes                  let it go
      imgload prune app --keep 1 --yes     all but the newest build of app
      imgload prune --older-than 24h -y    only what is a day old
      imgload prune --all --keep 1         also what the kubelet pulled and kind loaded
      imgload prune --cache --yes          what imgload remembers of the engines

    \b
    Exit status: 0 done, or a dry run; 1 some node failed; others as for imgload load.
    """  # noqa: D301 - click's mark for a block that keeps its lines
    from imgload.cli.pruned import show_cache, show_pruned  # noqa: PLC0415
    from imgload.tools.inventory.api import prune as prune_images  # noqa: PLC0415 - --help needs none of it

    dry_run = dry_run or not yes
    with failures(output, quiet=False):
        if cache:
            show_cache(_clear(repositories, dry_run=dry_run), dry_run=dry_run, output=output)
            return
        age = parse_age(older_than) if older_than else None
        try:
            report = prune_images(
                repositories,
                cluster=cluster,
                nodes=nodes,
                keep=keep,
                older_than=age,
                everything=everything,
                dry_run=dry_run,
            )
        except PruneFailed as failed:
            report = failed.report
    show_pruned(report, output)
    if not report.ok:
        raise click.exceptions.Exit(PruneFailed.exit_status)


def _clear(repositories: Sequence[str], *, dry_run: bool) -> int:
    if repositories:
        raise UsageError(
            "--cache is about this machine, and REPOSITORY about nodes",
            hint="imgload prune --cache",
        )
    return clear_cache(dry_run=dry_run)
