"""``imgload restore``."""

from __future__ import annotations

from functools import partial
from typing import Any

import click

from imgload.cli.options import cluster_option, complete, output_option, verbose_option
from imgload.cli.output import failures, show_report, show_result, watching


@click.command()
@click.argument(
    "images", nargs=-1, metavar="[IMAGE]...", shell_complete=partial(complete, "recorded")
)
@cluster_option
@click.option("--forget", is_flag=True, help="Remove the images from the record instead.")
@click.option("--dry-run", is_flag=True, help="Print the plan and change nothing.")
@verbose_option
@output_option("json")
@click.option("--quiet", "-q", is_flag=True, help="Print errors only.")
def restore(images: tuple[str, ...], output: str, quiet: bool, **options: Any) -> None:
    """Load images again after a cluster was recreated.

    imgload records which images it has loaded into each cluster, and from which source. This
    command loads them again, as they are in that source now, and verifies them. A note reports an
    image that has changed since then. An image that its source does not have any more is an error,
    and the others are loaded.

    IMAGE is an image name or a repository, and may contain * and ?. [default: all]

    \b
    Examples:
      kind delete cluster; kind create cluster
      imgload restore                     every image of the cluster
      imgload restore --dry-run           show which images would be loaded
      imgload restore app 'ghcr.io/me/*'  the images of some repositories
      imgload restore -c kind -c dev      two clusters
      imgload restore --forget app:v1     never load this image again

    \b
    Exit status: as for load; 3 if no load into the cluster is recorded.
    """
    from imgload.loader.restore import restore as restore_images  # noqa: PLC0415 - start-up

    with failures(output, quiet=quiet), watching(silent=quiet or output != "text") as on_event:
        report = restore_images(images, on_event=on_event, **options)
    show_result(report, output, partial(show_report, quiet=quiet))
