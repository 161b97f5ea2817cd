"""``imgload load``."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from imgload.cli.options import (
    cluster_options,
    images_argument,
    output_option,
    source_options,
)
from imgload.cli.output import failures, show
from imgload.cli.progress import watching

if TYPE_CHECKING:
    from imgload.loader.plan import Verify
    from imgload.sources.choose import TransportOption


@click.command(no_args_is_help=True, short_help="Put images on every node, and prove it.")
@images_argument
@cluster_options
@source_options
@click.option("--also", multiple=True, metavar="NAME", help="A further name for the one image.")
@click.option(
    "--transport",
    type=click.Choice(["auto", "archive", "delta"]),
    default="auto",
    help="How: saved by the source, or pushed by the engine.",
    show_default=True,
)
@click.option(
    "--verify",
    type=click.Choice(["cri", "deep"]),
    default="cri",
    help="What containerd and CRI say; deep: every blob on the nodes is read again, too.",
    show_default=True,
)
@click.option("--dry-run", is_flag=True, help="Say what would be done, and do nothing.")
@output_option("json")
@click.option("--quiet", "-q", is_flag=True, help="Print errors only.")
def load(
    images: tuple[str, ...],
    cluster: str | None,
    nodes: tuple[str, ...],
    source: str | None,
    name: str | None,
    also: tuple[str, ...],
    platform: str | None,
    transport: TransportOption,
    verify: Verify,
    dry_run: bool,
    output: str,
    quiet: bool,
) -> None:
    """Put images on every node of a cluster, and prove that they are there.

    IMAGE is a name as a pod spec has it, or an image ID; for an archive, none means all. An image
    that a node is proven to have is not sent again; one that only lacks its name is tagged.

    \b
    Examples:
      imgload load app:dev                        into the current kube context's cluster
      imgload load app:dev db:dev -c kind         two images, sent together
      imgload load app:dev --from podman          when Docker has an app:dev, too
      imgload load app:dev --as ghcr.io/me/app:1  under the name that the pod spec uses
      imgload load app:dev -n kind-worker         one node only
      imgload load --from app.tar                 all images of an archive
      podman save app:dev | imgload load --from - an archive from a pipe
      imgload load app:dev -o json | jq .ok       for machines
    """  # noqa: D301 - click's mark for a block that keeps its lines
    from imgload.loader.api import load as load_images  # noqa: PLC0415 - --help needs none of it

    silent = quiet or output == "json"
    with failures(output, quiet=quiet), watching(silent=silent) as on_event:
        report = load_images(
            images,
            cluster=cluster,
            nodes=nodes,
            source=source,
            name=name,
            also=also,
            platform=platform,
            transport=transport,
            verify=verify,
            dry_run=dry_run,
            on_event=on_event,
        )
    show(report, output, quiet=quiet)
