"""``imgload clusters``."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from imgload.cli.options import output_option
from imgload.cli.output import failures, show_json
from imgload.cli.process import say, style
from imgload.cli.text import name_text

if TYPE_CHECKING:
    from imgload.clusters.list import ClusterInfo, ClusterList


@click.command(short_help="List the clusters that can be loaded, with their nodes.")
@output_option("json", text="stdout")
def clusters(output: str) -> None:
    """List the clusters of kind, k3d and minikube on every engine, with their nodes.

    A star marks the cluster that the current kube context names, which is what other commands
    take without --cluster. A container that runs containerd without being in a cluster is not
    listed, and can be loaded all the same: --node CONTAINER.

    \b
    Examples:
      imgload clusters
      imgload clusters -o json | jq -r '.clusters[].nodes[].name'
    """  # noqa: D301 - click's mark for a block that keeps its lines
    from imgload.loader.api import find_clusters  # noqa: PLC0415 - --help needs none of it

    with failures(output, quiet=False):
        found = find_clusters()
    if output == "json":
        show_json(found.to_json())
    else:
        show_clusters(found)


def show_clusters(found: ClusterList) -> None:
    """Print each cluster with its nodes, and which engines could not be asked."""
    for error in found.errors:
        say(f"note: {error.message}", err=True)
    for cluster in found.clusters:
        mark = style("*", fg="green") if cluster.current else " "
        name = style(name_text(cluster.name), bold=True)
        say(f"{mark} {name} ({cluster.tool}, {cluster.engine})")
        _show_nodes(cluster)
    if not found.clusters:
        places = " and ".join(map(str, found.engines))
        say(f"no kind, k3d or minikube cluster on {places}", err=True)


def _show_nodes(cluster: ClusterInfo) -> None:
    width = max(len(node.name) for node in cluster.nodes)
    for node in cluster.nodes:
        colour = {"running": "green", "stopped": "red"}.get(node.state, "yellow")
        state = style(name_text(node.state), fg=colour)
        name, role = name_text(node.name), name_text(node.role)
        say(f"    {name:<{width}}  {role:<13}  {state}")
