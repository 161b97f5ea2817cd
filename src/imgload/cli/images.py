"""``imgload images``."""

from __future__ import annotations

import click

from imgload.cli.options import cluster_options, completed, output_option
from imgload.cli.output import failures, show_json


@click.command(short_help="Which images the nodes have, and what they take.")
@click.argument("patterns", nargs=-1, metavar="[PATTERN]...", shell_complete=completed("images"))
@cluster_options
@click.option("--unused", is_flag=True, help="Only what no container was made from.")
@click.option("--drift", is_flag=True, help="Only names that differ from node to node.")
@output_option("json", text="stdout")
def images(
    patterns: tuple[str, ...],
    cluster: str | None,
    nodes: tuple[str, ...],
    unused: bool,
    drift: bool,
    output: str,
) -> None:
    """Show which images the nodes of a cluster have.

    PATTERN is a name or a repository, and may have * and ? in it. SIZE is what an image takes on a
    node's disk, OWN what no other image shares, AGE how long ago it came to the node. A name that
    leads to different images on different nodes is marked as drift. A build whose name moved on to
    the next one is shown by the name that imgload loaded it under.

    \b
    Examples:
      imgload images                     everything, in the current kube context's cluster
      imgload images app 'ghcr.io/me/*'  these repositories
      imgload images --drift             where the nodes are not alike
      imgload images --unused            what could go; see imgload prune
      imgload images -o json | jq '.images[] | select(.drift) | .reference'

    \b
    Exit status: 0 all nodes were asked; 1 some node failed; others as for imgload load.
    """  # noqa: D301 - click's mark for a block that keeps its lines
    from imgload.tools.inventory.api import images as list_images  # noqa: PLC0415 - --help needs none of it

    with failures(output, quiet=False):
        listing = list_images(patterns, cluster=cluster, nodes=nodes, unused=unused, drift=drift)
    if output == "json":
        show_json(listing.to_json())
    else:
        from imgload.cli.table import show_listing  # noqa: PLC0415

        show_listing(listing)
    if not listing.ok:
        raise click.exceptions.Exit(1)
