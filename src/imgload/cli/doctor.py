"""``imgload doctor``."""

from __future__ import annotations

from itertools import groupby
from typing import TYPE_CHECKING

import click

from imgload.cli.options import cluster_options, output_option
from imgload.cli.output import failures, show_json
from imgload.cli.process import say, style

if TYPE_CHECKING:
    from imgload.tools.doctor.finding import Diagnosis, Finding

_MARKS = {
    "ok": style("✓", fg="green"),
    "info": style("-", fg="cyan"),
    "warning": style("!", fg="yellow"),
    "problem": style("✗", fg="red"),
}


@click.command()
@click.argument("image", required=False)
@cluster_options
@output_option("json", text="stdout")
def doctor(image: str | None, cluster: str | None, nodes: tuple[str, ...], output: str) -> None:
    """Say what is wrong between here and the nodes, and the command that changes it.

    Looks at the engines, the kube context, the clusters and their nodes, and what Skaffold would
    do. With IMAGE it follows that image from the engine that has it to the answer of each node's
    CRI, and names the first link that is broken. Nothing is changed.

    The marks: ✓ well, - worth knowing, ! may become a problem, ✗ keeps images from nodes or pods.
    Exit status 1 when there is a ✗, 4 when the cluster or node named is not there, else 0.

    \b
    Examples:
      imgload doctor
      imgload doctor app:dev                 why is my pod in ImagePullBackOff?
      imgload doctor app:dev -c dev -o json | jq '.findings[] | select(.status == "problem")'
    """  # noqa: D301 - click's mark for a block that keeps its lines
    from imgload.tools.doctor.run import examine  # noqa: PLC0415 - --help needs none of it

    with failures(output, quiet=False):
        found = examine(image, cluster=cluster, nodes=nodes)
    if output == "json":
        show_json(found.to_json())
    else:
        show_diagnosis(found)
    if not found.ok:
        raise click.exceptions.Exit(found.exit_status)


def show_diagnosis(found: Diagnosis) -> None:
    """Print the findings of each area, and below them the first problem."""
    for check, findings in groupby(found.findings, key=lambda finding: finding.check):
        say(style(check, bold=True))
        for finding in findings:
            _show_finding(finding)
    say(_conclusion(found))


def _show_finding(finding: Finding) -> None:
    first, *rest = finding.message.splitlines() or [""]
    say(f"  {_MARKS[finding.status]} {first}")
    for line in rest:
        say(f"    {line}")
    if finding.hint and finding.status != "ok":
        say(f"      {style('try:', fg='cyan')} {finding.hint}")


def _conclusion(found: Diagnosis) -> str:
    count = len(found.problems)
    if not count:
        return "no problem found"
    return f"{count} problem{'s' if count > 1 else ''} found; first: {found.problems[0].message}"
