"""``imgload verify``."""

from __future__ import annotations

import click

from imgload.cli.options import (
    cluster_options,
    images_argument,
    output_option,
    source_options,
)
from imgload.cli.output import failures, show
from imgload.cli.progress import watching


@click.command(no_args_is_help=True)
@images_argument
@cluster_options
@source_options
@click.option("--deep", is_flag=True, help="Read every blob on the nodes again, too.")
@output_option("json", "junit")
@click.option("--quiet", "-q", is_flag=True, help="Print what is wrong only.")
def verify(
    images: tuple[str, ...],
    cluster: str | None,
    nodes: tuple[str, ...],
    source: str | None,
    name: str | None,
    platform: str | None,
    deep: bool,
    output: str,
    quiet: bool,
) -> None:
    """Read back whether every node of a cluster has exactly these images.

    The source (an engine, or an archive) tells which image a name means; each node must have that
    very image under that name, unpacked, and known to CRI. Nothing is changed. Exit status 1 when a
    node lacks an image or has another one under its name.

    \b
    Examples:
      imgload verify app:dev                       in the current kube context's cluster
      imgload verify app:dev db:dev -c kind        two images in this one
      imgload verify app:dev --as ghcr.io/me/app:1 under the name that the pod spec uses
      imgload verify --from app.tar                all images of an archive
      imgload verify app:dev --deep                what the nodes keep of it is hashed again
      imgload verify app:dev -o junit > images.xml a CI step with a report
    """  # noqa: D301 - click's mark for a block that keeps its lines
    from imgload.loader.api import verify as verify_images  # noqa: PLC0415 - --help needs none of it

    silent = quiet or output != "text"
    with failures(output, quiet=quiet), watching(silent=silent) as on_event:
        report = verify_images(
            images,
            cluster=cluster,
            nodes=nodes,
            source=source,
            name=name,
            platform=platform,
            deep=deep,
            on_event=on_event,
        )
    show(report, output, quiet=quiet)
