"""``imgload clusters`` and ``imgload doctor``: the engines, clusters and nodes around imgload."""

from __future__ import annotations

from itertools import groupby
from typing import TYPE_CHECKING, Any

import click

from imgload.cli.options import (
    address_option,
    cluster_options,
    complete_images,
    output_option,
    verbose_option,
)
from imgload.cli.output import failures, hint_text, show_json, show_result
from imgload.cli.process import say, style
from imgload.core.errors import one_line

if TYPE_CHECKING:
    from imgload.clusters.listing import ClusterList
    from imgload.tools.doctor.finding import Diagnosis

_STATE_COLORS = {"running": "green", "stopped": "red"}
_MARKS = {"ok": "✓", "info": "-", "warning": "!", "problem": "✗"}
_MARK_COLORS = {"ok": "green", "info": "cyan", "warning": "yellow", "problem": "red"}


@click.command()
@verbose_option
@output_option("json")
def clusters(output: str) -> None:
    """List local clusters and their nodes.

    Shows the clusters of kind, k3d, minikube, Cluster API's Docker provider (capd) and vCluster's
    Docker driver on every container engine, and those in the machines of Colima, Lima, Rancher
    Desktop and minikube. A star marks the cluster of the current kube context, which other commands
    use without --cluster. A container or machine that runs containerd outside these is not listed;
    select it with --node CONTAINER or --node ssh://user@host.

    \b
    Examples:
      imgload clusters
      imgload clusters -o json | jq -r '.clusters[].nodes[].name'
    """
    from imgload.loader.api import find_clusters  # noqa: PLC0415 - start-up

    with failures(output, quiet=False):
        listing = find_clusters()
    show_json(listing.to_json()) if output == "json" else show_clusters(listing)


def show_clusters(listing: ClusterList) -> None:
    for error in listing.errors:
        say(f"note: {error.message}", err=True)
    for cluster in listing.clusters:
        mark = style("*", fg="green") if cluster.current else " "
        name = style(one_line(cluster.name), bold=True)
        say(f"{mark} {name} ({cluster.tool}, {cluster.engine})")
        width = max(len(node.name) for node in cluster.nodes)
        for node in cluster.nodes:
            state = style(one_line(node.state), fg=_STATE_COLORS.get(node.state, "yellow"))
            say(f"    {one_line(node.name):<{width}}  {one_line(node.role):<13}  {state}")
    if not listing.clusters:
        engines = " and ".join(map(str, listing.engines))
        say(f"no local cluster on {engines}", err=True)


@click.command()
@click.argument("image", required=False, shell_complete=complete_images)
@cluster_options
@address_option
@verbose_option
@output_option("json")
def doctor(image: str | None, output: str, **options: Any) -> None:
    """Diagnose problems between this machine and the nodes.

    Checks the container engines, the kube context, the clusters and their nodes, and Skaffold's
    settings, and suggests a fix for each problem. With IMAGE, follows that image from its engine to
    the CRI of each node, and reports the first failing step. Changes nothing.

    Marks: ✓ ok, - info, ! warning, ✗ problem. Exit status: 0 no problem; 1 problems found;
    4 --cluster or --node not found.

    \b
    Examples:
      imgload doctor
      imgload doctor app:dev   find out why a pod is in ImagePullBackOff
      imgload doctor app:dev -c dev -o json | jq -r '.findings[].hint'
    """
    from imgload.tools.doctor.run import diagnose  # noqa: PLC0415 - start-up

    with failures(output, quiet=False):
        diagnosis = diagnose(image, **options)
    show_result(diagnosis, output, show_diagnosis, diagnosis.exit_status)


def show_diagnosis(diagnosis: Diagnosis) -> None:
    for check, findings in groupby(diagnosis.findings, key=lambda finding: finding.check):
        say(style(check, bold=True))
        for finding in findings:
            message = "\n    ".join(finding.message.splitlines())
            hint = hint_text(finding.hint) if finding.status != "ok" else ""
            mark = style(_MARKS[finding.status], fg=_MARK_COLORS[finding.status])
            say(f"  {mark} {message}{hint}")
    if problems := diagnosis.problems:
        plural = "s" if len(problems) > 1 else ""
        say(f"{len(problems)} problem{plural} found; first: {problems[0].message}")
    else:
        say("no problem found")
