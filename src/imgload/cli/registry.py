"""``imgload registry``: connect, disconnect, push."""

from __future__ import annotations

from typing import Any

import click

import imgload
from imgload.cli.options import (
    cluster_options,
    complete_images,
    engine_option,
    output_option,
    tag_option,
    verbose_option,
)
from imgload.cli.output import failure_text, failures, show_result
from imgload.cli.process import say, style
from imgload.core.units import size_text

_NOT_ASKED = "CRI could not be asked whether it pulls through it (no crictl on the node)"
_MIRROR_HELP = "Registry whose images are also pulled from URL; repeatable."


@click.group(no_args_is_help=True)
def registry() -> None:
    """Connect nodes to a registry, and push images to it.

    Use a registry for clusters on several machines, and for images that are pulled more often than
    built. On one machine, `imgload load` is faster and needs no registry.

    \b
    Examples:
      imgload registry connect http://registry:5000
      imgload registry push app:dev --to http://localhost:5001
      imgload registry disconnect
    """


@registry.command()
@click.argument("url")
@click.option("--mirror", "mirrors", multiple=True, metavar="NAME", help=_MIRROR_HELP)
@click.option(
    "--restart-containerd",
    is_flag=True,
    help="Set config_path and restart containerd on nodes that need it; containers keep running.",
)
@cluster_options
@verbose_option
@output_option("json")
def connect(url: str, output: str, **options: Any) -> None:
    """Make the nodes of a cluster pull from a registry.

    URL is the registry's address as seen from the nodes: http://HOST:PORT or https://HOST. Pods
    name an image HOST:PORT/app:dev, or with --mirror by the name of the mirrored registry. Existing
    configuration for these names is backed up. imgload then tests that each node's CRI pulls
    through URL. If CRI does not read the configuration, nothing is changed unless you add
    --restart-containerd. The ConfigMap local-registry-hosting announces the registry to other
    tools, if kubectl reaches the cluster.

    \b
    Examples:
      imgload registry connect http://reg:5000   pull reg:5000/app:dev
      imgload registry connect http://reg:5000 --mirror docker.io
      imgload registry connect http://reg:5000 --mirror localhost:5001
    """
    with failures(output, quiet=False):
        report = imgload.connect_registry(url, **options)
    show_result(report, output, show_nodes)


@registry.command()
@click.argument("url", required=False)
@cluster_options
@verbose_option
@output_option("json")
def disconnect(url: str | None, output: str, **options: Any) -> None:
    """Undo `connect`, byte for byte.

    URL is the address given to `connect`; omit it to disconnect every registry. If `connect`
    changed containerd's configuration, containerd is restarted again.
    """
    with failures(output, quiet=False):
        report = imgload.disconnect_registry(url, **options)
    show_result(report, output, show_nodes)


@registry.command()
@click.argument(
    "images", nargs=-1, required=True, metavar="IMAGE...", shell_complete=complete_images
)
@click.option(
    "--to", "url", required=True, metavar="URL", help="Address of the registry, from this machine."
)
@engine_option
@tag_option(help="Name of the image in the registry; for one IMAGE. [default: IMAGE]")
@verbose_option
@output_option("json")
def push(images: tuple[str, ...], url: str, output: str, **options: Any) -> None:
    """Push images to a registry, and verify them there.

    Transfers only the layers that the registry lacks. The registry's name replaces the image's own:
    app:dev becomes HOST/app:dev and, for mirrors of Docker Hub, HOST/library/app:dev;
    ghcr.io/me/app:dev becomes HOST/me/app:dev.

    \b
    Examples:
      imgload registry push app:dev --to http://localhost:5001
      imgload registry push app:dev --tag team/app:v2 --to https://reg.example
      imgload registry push a:dev b:dev --from podman --to http://localhost:5001
    """
    with failures(output, quiet=False):
        report = imgload.push_to_registry(images, url, **options)
    show_result(report, output, _show_push)


def show_nodes(report: imgload.RegistryReport) -> None:
    """Print the result on each node; only a connection has names."""
    for note in report.notes:
        say(f"note: {note}", err=True)
    if report.names:
        say(f"{style(report.registry, bold=True)} for {', '.join(report.names)}")
    for node in report.nodes:
        asked = "CRI pulls through it" if node.cri else _NOT_ASKED
        restored = "restored" if node.files else "nothing to disconnect"
        status = f"connected; {asked}" if report.names else restored
        restarted = "; containerd was restarted" if node.restarted else ""
        line = f"{style('✓', fg='green')} {node.node}: {status}{restarted}"
        if node.error:
            line = failure_text(node.node, node.error.message, node.error.hint)
        say("\n      ".join([f"  {line}", *node.files]))
    if report.hosting and report.hosting.note:
        say(f"note: {' '.join(report.hosting.note.split())}", err=True)


def _show_push(report: imgload.PushReport) -> None:
    for image in report.images:
        reference = style(image.reference, bold=True)
        sent = f"{size_text(image.bytes_sent)} in {image.seconds:.1f} s"
        status = f"{sent if image.bytes_sent else 'already there'}; verified in the registry"
        line = f"{style('✓', fg='green')} {reference}: {status}"
        if image.error:
            line = failure_text(reference, image.error.message, image.error.hint)
        names = (f"{name}@{image.digest}" for name in image.names)
        say("\n      ".join([line, *names]))
