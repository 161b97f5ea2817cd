"""``imgload registry``: connect, disconnect, push."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from imgload.cli.options import (
    cluster_options,
    engine_option,
    images_argument,
    output_option,
)
from imgload.cli.output import failures, show_json
from imgload.cli.process import say, style
from imgload.cli.text import at_node, hint_text
from imgload.core.sizes import size_text

if TYPE_CHECKING:
    from collections.abc import Callable

    from imgload.tools.remote_registry.api import PushReport, RegistryReport
    from imgload.tools.remote_registry.configure import NodeWiring
    from imgload.tools.remote_registry.push import PushedImage

_GOOD, _BAD = style("✓", fg="green"), style("✗", fg="red")


@click.group(no_args_is_help=True)
def registry() -> None:
    """Have a cluster's nodes pull from a registry, and push images to it.

    The way for clusters on several machines, and for images that are pulled more often than they
    are built. On one machine `imgload load` is faster, and needs no registry.

    \b
    Examples:
      imgload registry connect http://registry:5000
      imgload registry push app:dev --to http://localhost:5001
      imgload registry disconnect
    """  # noqa: D301 - click's mark for a block that keeps its lines


@registry.command(no_args_is_help=True, short_help="Make a cluster's nodes pull from a registry.")
@click.argument("url")
@click.option(
    "--mirror",
    "mirrors",
    multiple=True,
    metavar="NAME",
    help="Also the images of this registry come from there; may be repeated.",
)
@click.option(
    "--restart-containerd",
    is_flag=True,
    help="Set config_path and restart containerd on nodes that need it; containers keep running.",
)
@cluster_options
@output_option("json")
def connect(
    url: str,
    mirrors: tuple[str, ...],
    restart_containerd: bool,
    cluster: str | None,
    nodes: tuple[str, ...],
    output: str,
) -> None:
    """Make the nodes of a cluster pull from the registry at URL.

    URL is where the nodes see the registry: http://HOST:PORT or https://HOST. Pods use it under its
    own name, HOST:PORT/app:dev, and with --mirror under others. Where those have a configuration
    already it is put aside. Each node's CRI is then asked to pull through them. Where it does not
    read them, nothing is changed unless you add --restart-containerd. Other tools are told by the
    ConfigMap local-registry-hosting, if kubectl reaches the cluster.

    \b
    Examples:
      imgload registry connect http://registry:5000                       as registry:5000/app:dev
      imgload registry connect http://registry:5000 --mirror docker.io    also plain app:dev
      imgload registry connect http://registry:5000 --mirror localhost:5001
                                                   also under its name on this machine
    """  # noqa: D301 - click's mark for a block that keeps its lines
    from imgload.tools.remote_registry.api import connect_registry  # noqa: PLC0415 - --help needs none of it

    with failures(output, quiet=False):
        report = connect_registry(
            url,
            mirrors=mirrors,
            cluster=cluster,
            nodes=nodes,
            restart_containerd=restart_containerd,
        )
    _show_wiring(report, output, _connected)


@registry.command(short_help="Leave the nodes as they were before `connect`.")
@click.argument("url", required=False)
@cluster_options
@output_option("json")
def disconnect(url: str | None, cluster: str | None, nodes: tuple[str, ...], output: str) -> None:
    """Leave the nodes' configuration byte for byte as it was before `connect`.

    URL is the registry, as it was connected; without it, every one. Where `connect` has changed
    containerd's configuration, containerd is restarted again.
    """
    from imgload.tools.remote_registry.api import disconnect_registry  # noqa: PLC0415 - as above

    with failures(output, quiet=False):
        report = disconnect_registry(url, cluster=cluster, nodes=nodes)
    _show_wiring(report, output, _disconnected)


@registry.command(
    no_args_is_help=True, short_help="Put images into a registry, and read them back."
)
@images_argument
@click.option("--to", "url", required=True, metavar="URL", help="The registry, as seen from here.")
@engine_option
@click.option("--as", "name", metavar="NAME", help="Push the one image under this name.")
@output_option("json")
def push(
    images: tuple[str, ...], url: str, source: str | None, name: str | None, output: str
) -> None:
    """Put images into a registry; only what it lacks moves, and it is read back.

    app:dev becomes URL's HOST/app:dev and, for mirrors of Docker Hub, HOST/library/app:dev;
    ghcr.io/me/app:dev becomes HOST/me/app:dev.

    \b
    Examples:
      imgload registry push app:dev --to http://localhost:5001
      imgload registry push app:dev --as team/app:v2 --to https://registry.example
      imgload registry push app:dev db:dev --from podman --to http://localhost:5001
    """  # noqa: D301 - click's mark for a block that keeps its lines
    from imgload.tools.remote_registry.api import push_to_registry  # noqa: PLC0415 - as above

    with failures(output, quiet=False):
        report = push_to_registry(images, url, source=source, name=name)
    _show_push(report, output)


def _show_wiring(
    report: RegistryReport, output: str, describe: Callable[[NodeWiring], str]
) -> None:
    if output == "json":
        show_json(report.to_json())
    else:
        if report.names:
            names = ", ".join(report.names)
            say(f"{style(report.registry, bold=True)} for {names}", err=True)
        for node in report.nodes:
            say(f"  {_node(node, describe)}", err=True)
        if report.hosting and report.hosting.note:
            say(f"note: {' '.join(report.hosting.note.split())}", err=True)
    _end(ok=report.ok)


def _node(node: NodeWiring, describe: Callable[[NodeWiring], str]) -> str:
    files = "".join(f"\n      {file}" for file in node.files)
    if node.error:
        said = at_node(node.node, node.error.message)
        return f"{_BAD} {said}{hint_text(node.error.hint)}{files}"
    restarted = "; containerd was restarted" if node.restarted else ""
    return f"{_GOOD} {node.node}: {describe(node)}{restarted}{files}"


def _connected(node: NodeWiring) -> str:
    if node.cri:
        return "connected, and CRI pulls through it"
    return (
        "connected; the node has no crictl, so CRI could not be asked whether it pulls through it"
    )


def _disconnected(node: NodeWiring) -> str:
    return "as it was before" if node.files else "nothing to disconnect"


def _show_push(report: PushReport, output: str) -> None:
    if output == "json":
        show_json(report.to_json())
    else:
        for image in report.images:
            say(_image(image), err=True)
    _end(ok=report.ok)


def _image(image: PushedImage) -> str:
    name = style(image.reference, bold=True)
    if image.error:
        return f"{_BAD} {name}: {image.error.message}{hint_text(image.error.hint)}"
    sent = f"{size_text(image.bytes_sent)} in {image.seconds:.1f} s" if image.bytes_sent else ""
    names = "".join(f"\n      {each}@{image.digest}" for each in image.names)
    return f"{_GOOD} {name}: {sent or 'already there'}; the registry has it{names}"


def _end(*, ok: bool) -> None:
    if not ok:
        raise click.exceptions.Exit(1)
