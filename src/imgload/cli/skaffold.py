"""``imgload skaffold``."""

from __future__ import annotations

import os
import signal
import threading
import time
from collections.abc import Callable
from contextlib import ExitStack
from functools import partial
from typing import TYPE_CHECKING, Any

import click

from imgload.cli.options import cluster_options, verbose_option
from imgload.cli.process import say

if TYPE_CHECKING:
    from imgload.loader.events import Event

_POLL_SECONDS = 0.1


@click.command()
@click.argument("command", nargs=-1, metavar="[-- COMMAND...]")
@click.option(
    "--builder",
    type=click.Choice(["docker", "podman", "buildah"]),
    help="Build tool. [default: the first installed one whose engine responds]",
)
@click.option(
    "--file", "-f", metavar="FILE", help="Path to the Dockerfile. [default: the builder's]"
)
@click.option("--target", metavar="STAGE", help="Stage of the Dockerfile to build.")
@click.option(
    "--build-arg",
    "build_args",
    multiple=True,
    metavar="KEY=VALUE",
    help="Build argument; repeatable.",
)
@click.option("--load/--no-load", default=True, help="Load the built image. [default: --load]")
@verbose_option
@partial(cluster_options, default="the kube context's cluster", envvar=())
def skaffold(load: bool, cluster: tuple[str, ...], nodes: tuple[str, ...], **recipe: Any) -> None:
    """Build and load an image for Skaffold.

    Skaffold runs this command as a custom builder, with IMAGE, BUILD_CONTEXT, PUSH_IMAGE and
    PLATFORMS in its environment. Builds the image from BUILD_CONTEXT, loads it into the cluster of
    the current kube context, and verifies it on every node as $IMAGE and as REPOSITORY:ID, the name
    that Skaffold writes into manifests. With PUSH_IMAGE=true, pushes the image instead.

    COMMAND replaces the build of a Dockerfile; it must leave $IMAGE in a container engine.

    \b
    Examples (in skaffold.yaml, below build.artifacts[].custom):
      buildCommand: imgload skaffold
      buildCommand: imgload skaffold --builder podman --target dev
      buildCommand: imgload skaffold -- make image
    By hand:
      IMAGE=app:dev BUILD_CONTEXT=. imgload skaffold
    """
    from imgload.tools.skaffold.build import build  # noqa: PLC0415 - start-up
    from imgload.tools.skaffold.builders import Recipe  # noqa: PLC0415

    exit_with_parent()
    with ExitStack() as stack:
        destination = (cluster, nodes) if load else None
        result = build(os.environ, Recipe(**recipe), destination, partial(_watch, stack))
    if isinstance(result, str):
        say(result)
    elif result:
        from imgload.cli.output import show_built  # noqa: PLC0415 - imported by _watch

        show_built(result)


def _watch(stack: ExitStack) -> Callable[[Event], None]:
    """Return a callback that shows events; called during the build, when imports cost no time."""
    from imgload.cli.output import failures, watching  # noqa: PLC0415

    stack.enter_context(failures("text", quiet=False))
    return stack.enter_context(watching(silent=False))


def exit_with_parent() -> None:
    """Treat the parent's exit as Ctrl-C, and handle SIGINT even if it was ignored.

    Skaffold signals the shell that runs the builder, and some shells (dash) exit without passing
    the signal on. SIGTTOU is ignored: it would stop the process when a child in a process group of
    its own changes the terminal's settings.
    """
    signal.signal(signal.SIGINT, signal.getsignal(signal.SIGTERM))
    signal.signal(signal.SIGTTOU, signal.SIG_IGN)
    parent = os.getppid()

    def poll() -> None:
        while os.getppid() == parent:
            time.sleep(_POLL_SECONDS)
        os.kill(os.getpid(), signal.SIGINT)

    threading.Thread(target=poll, daemon=True).start()
