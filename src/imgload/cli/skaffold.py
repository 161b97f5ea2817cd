"""``imgload skaffold``."""

from __future__ import annotations

import os
from collections.abc import Callable
from contextlib import ExitStack
from functools import partial
from typing import TYPE_CHECKING

import click

from imgload.cli.options import cluster_options
from imgload.cli.parent import heed_parent
from imgload.cli.process import say

if TYPE_CHECKING:
    from imgload.loader.events import Event
    from imgload.tools.skaffold.builders import BuilderName


@click.command()
@click.argument("command", nargs=-1, metavar="[-- COMMAND...]")
@click.option(
    "--builder",
    type=click.Choice(["docker", "podman", "buildah"]),
    help="What to build with. [default: the first of them that is installed and whose engine"
    " answers]",
)
@click.option("--file", "-f", metavar="FILE", help="The Dockerfile. [default: the builder's]")
@click.option("--target", metavar="STAGE", help="The stage of the Dockerfile to build.")
@click.option("--build-arg", "build_args", multiple=True, metavar="KEY=VALUE", help="Repeatable.")
@click.option("--load/--no-load", default=True, help="Whether to load what was built.")
@partial(cluster_options, default="the kube context's")
def skaffold(
    command: tuple[str, ...],
    builder: BuilderName | None,
    file: str | None,
    target: str | None,
    build_args: tuple[str, ...],
    load: bool,
    cluster: str | None,
    nodes: tuple[str, ...],
) -> None:
    """Build an image for Skaffold, and load it under the names that Skaffold deploys.

    A custom builder: Skaffold runs it with IMAGE, BUILD_CONTEXT, PUSH_IMAGE and PLATFORMS in its
    environment. The image is built from BUILD_CONTEXT, loaded into the cluster of the current kube
    context, and proven on every node under $IMAGE and under REPOSITORY:ID, which is the name that
    Skaffold writes into the manifests. With PUSH_IMAGE=true it is pushed instead.

    COMMAND is a build of your own, in place of a Dockerfile's; it must leave $IMAGE in an engine.

    \b
    Examples (in skaffold.yaml, below build.artifacts[].custom):
      buildCommand: imgload skaffold
      buildCommand: imgload skaffold --builder podman --target dev
      buildCommand: imgload skaffold -- make image
    By hand:
      IMAGE=app:dev BUILD_CONTEXT=. imgload skaffold
    """  # noqa: D301 - click's mark for a block that keeps its lines
    from imgload.tools.skaffold.build import Destination, build  # noqa: PLC0415
    from imgload.tools.skaffold.builders import Recipe  # noqa: PLC0415 - --help needs none of it
    from imgload.tools.skaffold.request import Request  # noqa: PLC0415

    heed_parent()
    with ExitStack() as stack:
        built = build(
            Request.from_environ(os.environ),
            Recipe(builder, command, file, target, build_args),
            Destination(load, cluster, nodes),
            watch=partial(_watch, stack),
        )
    if built.report:
        from imgload.cli.text import show_built  # noqa: PLC0415 - imported by _watch

        show_built(built.report)
    if built.digest:
        say(str(built.digest))


def _watch(stack: ExitStack) -> Callable[[Event], None]:
    """Show from here on what happens, and what fails; called while the image is built."""
    from imgload.cli.output import failures  # noqa: PLC0415 - not needed to start a build
    from imgload.cli.progress import watching  # noqa: PLC0415

    stack.enter_context(failures("text", quiet=False))
    return stack.enter_context(watching(silent=False))
