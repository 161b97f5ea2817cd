"""``imgload doctor``."""

from __future__ import annotations

from itertools import groupby
from typing import TYPE_CHECKING

import click

from imgload.cli.options import cluster_options, output_option
from imgload.cli.output import failures, show_result
from imgload.cli.process import say, style
from imgload.cli.text import hint_text

if TYPE_CHECKING:
    from imgload.tools.doctor.finding import Diagnosis

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
    """Diagnose problems between this machine and the nodes.

    Checks the container engines, the kube context, the clusters and their nodes, and Skaffold's
    settings, and suggests a fix for each problem. With IMAGE, follows that image from its engine to
    the CRI of each node, and reports the first failing step. Changes nothing.

    Marks: ✓ ok, - info, ! warning, ✗ problem. Exit status: 0 no problem; 1 problems found;
    4 --cluster or --node not found.

    \b
    Examples:
      imgload doctor
      imgload doctor app:dev                 find out why a pod is in ImagePullBackOff
      imgload doctor app:dev -c dev -o json | jq '.findings[] | select(.status == "problem")'
    """
    from imgload.tools.doctor.run import diagnose  # noqa: PLC0415 - start-up

    with failures(output, quiet=False):
        diagnosis = diagnose(image, cluster=cluster, nodes=nodes)
    show_result(diagnosis, output, show_diagnosis, diagnosis.exit_status)


def show_diagnosis(diagnosis: Diagnosis) -> None:
    """Print the findings of each area, then the number of problems and the first one."""
    for check, findings in groupby(diagnosis.findings, key=lambda finding: finding.check):
        say(style(check, bold=True))
        for finding in findings:
            message = "\n    ".join(finding.message.splitlines())
            hint = hint_text(finding.hint) if finding.status != "ok" else ""
            say(f"  {_MARKS[finding.status]} {message}{hint}")
    if problems := diagnosis.problems:
        plural = "s" if len(problems) > 1 else ""
        say(f"{len(problems)} problem{plural} found; first: {problems[0].message}")
    else:
        say("no problem found")
