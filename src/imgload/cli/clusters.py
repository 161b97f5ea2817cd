"""``imgload clusters``."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from imgload.cli.options import output_option
from imgload.cli.output import failures, show_json
from imgload.cli.process import say, style
from imgload.core.errors import one_line

if TYPE_CHECKING:
    from imgload.clusters.select import ClusterList

_COLORS = {"running": "green", "stopped": "red"}


@click.command()
@output_option("json", text="stdout")
def clusters(output: str) -> None:
    """List local clusters and their nodes.

    Shows the clusters of kind, k3d and minikube on every container engine. A star marks the cluster
    of the current kube context, which other commands use without --cluster. A container that runs
    containerd outside a cluster is not listed; select it with --node CONTAINER.

    \b
    Examples:
      imgload clusters
      imgload clusters -o json | jq -r '.clusters[].nodes[].name'
    """
    from imgload.loader.api import find_clusters  # noqa: PLC0415 - start-up

    with failures(output, quiet=False):
        listing = find_clusters()
    if output == "json":
        show_json(listing.to_json())
    else:
        show_clusters(listing)


def show_clusters(listing: ClusterList) -> None:
    """Print each cluster with its nodes, and the errors of engines that failed."""
    for error in listing.errors:
        say(f"note: {error.message}", err=True)
    for cluster in listing.clusters:
        mark = style("*", fg="green") if cluster.current else " "
        name = style(one_line(cluster.name), bold=True)
        say(f"{mark} {name} ({cluster.tool}, {cluster.engine})")
        width = max(len(node.name) for node in cluster.nodes)
        for node in cluster.nodes:
            state = style(one_line(node.state), fg=_COLORS.get(node.state, "yellow"))
            say(f"    {one_line(node.name):<{width}}  {one_line(node.role):<13}  {state}")
    if not listing.clusters:
        engines = " and ".join(map(str, listing.engines))
        say(f"no kind, k3d or minikube cluster on {engines}", err=True)
