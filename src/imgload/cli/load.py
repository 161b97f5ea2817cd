"""``imgload load`` and ``imgload verify``."""

from __future__ import annotations

from functools import partial
from typing import Any

import click

from imgload.cli.options import (
    ImagesCommand,
    choice_option,
    load_options,
    output_option,
    restart_option,
    verbose_option,
)
from imgload.cli.output import failures, show_report, show_result, watching

_ALSO = "Additional name on the nodes; repeatable."
_TRANSPORT = (
    "Transfer: nodes pull from imgload, or import a stream; archive saves whole images, and delta"
    " pushes missing layers."
)
_KEEP_MANIFEST = "Store manifest and layers unchanged, so that the image keeps its digest."
_DISCARD_LAYERS = "Store no layers on the nodes but the unpacked ones; containerd cannot push them."
_COMPLETE = "Send the layers that the nodes have unpacked, but do not store as blobs, as well."
_PIN = "Pin the images, so that the kubelet keeps them when the disk is full."
_VERIFY = (
    "Verification: cri checks containerd and CRI; deep also re-hashes the nodes' blobs; files also"
    " compares the unpacked files with the source's layers; contents hashes them, too."
)
_FILE = (
    "File with a list of images, each with its own options; - for stdin; repeatable. Options on the"
    " command line apply where an image of the list has none."
)
_MANIFESTS = (
    "Load the images that Kubernetes manifests name and an engine has: a YAML file, a folder, - for"
    " stdin, or a workload in the cluster such as deployment/app; repeatable."
)
_STORED = "Require that the nodes store all layers, not only unpacked."


@click.command(cls=ImagesCommand)
@load_options
@click.option("--file", "-f", "files", multiple=True, metavar="FILE", type=click.Path(), help=_FILE)
@click.option(
    "--from-manifests",
    "manifests",
    multiple=True,
    metavar="PATH",
    type=click.Path(),
    help=_MANIFESTS,
)
@click.option("--also", "extra_tags", multiple=True, metavar="NAME", help=_ALSO)
@choice_option(
    "--transport",
    choices=("auto", "pull", "import", "archive", "delta"),
    text=_TRANSPORT,
    envvar="IMGLOAD_TRANSPORT",
)
@choice_option(
    "--verify",
    choices=("cri", "deep", "files", "contents"),
    text=_VERIFY,
    envvar="IMGLOAD_VERIFY",
)
@click.option("--keep-manifest", is_flag=True, help=_KEEP_MANIFEST)
@click.option("--discard-layers", is_flag=True, help=_DISCARD_LAYERS)
@click.option("--complete", is_flag=True, help=_COMPLETE)
@click.option("--pin", is_flag=True, help=_PIN)
@restart_option
@click.option("--dry-run", is_flag=True, help="Print the plan and change nothing.")
@verbose_option
@output_option("json")
@click.option("--quiet", "-q", is_flag=True, help="Print errors only.")
def load(
    images: tuple[str, ...],
    files: tuple[str, ...],
    manifests: tuple[str, ...],
    output: str,
    quiet: bool,
    **options: Any,
) -> None:
    """Load images onto every node and verify them.

    IMAGE is an image name (as in a pod spec) or ID, or the path of an archive, of which every image
    is loaded. Images already verified on a node are skipped; if only the tag is missing, it is
    added.

    \b
    Examples:
      imgload load app:dev                       the kube context's cluster
      imgload load app:dev db:dev -c kind        two images in one transfer
      imgload load app:dev -n kind-worker        one node
      imgload load app:dev --nodes 'worker*'     the nodes that match
      imgload load app:dev --from podman         if several engines have it
      imgload load app:dev --tag ghcr.io/me/app  the name from the pod spec
      imgload load app.tar                       every image of an archive
      imgload load app:dev --from app.tar        one image of an archive
      imgload load -f images.yaml                a list, with options per image
      imgload load --from-manifests k8s/         local images in a folder of YAML
      kustomize build | imgload load --from-manifests -
      imgload load app:dev --restart             restart the pods that use it
      imgload load app:dev --verify files        compare the unpacked files, too
      podman save app:dev | imgload load         an archive from a pipe
      imgload load app:dev -o json | jq .ok      the report as JSON
    """
    from imgload.loader.api import load as load_images  # noqa: PLC0415 - start-up

    with failures(output, quiet=quiet), watching(silent=quiet or output != "text") as on_event:
        if files or manifests:
            from imgload.loader.entries import ImageEntry  # noqa: PLC0415 - start-up
            from imgload.loader.lists import load_list  # noqa: PLC0415

            archives = [ImageEntry(source=path) for path in options.pop("archives")]
            listed = [*map(ImageEntry, images), *archives]
            report = load_list(
                listed, files=files, manifests=manifests, on_event=on_event, **options
            )
        else:
            report = load_images(images, on_event=on_event, **options)
    show_result(report, output, partial(show_report, quiet=quiet))


@click.command(cls=ImagesCommand)
@load_options
@click.option("--deep", is_flag=True, help="Re-hash every blob of the images that the nodes store.")
@click.option("--files", is_flag=True, help="Compare the unpacked files with the source's layers.")
@click.option("--contents", is_flag=True, help="Compare the files, and hash their contents.")
@click.option("--complete", is_flag=True, help=_STORED)
@verbose_option
@output_option("json", "junit")
@click.option("--quiet", "-q", is_flag=True, help="Print failures only.")
def verify(images: tuple[str, ...], output: str, quiet: bool, **options: Any) -> None:
    """Check that every node has exactly these images.

    IMAGE is an image name (as in a pod spec) or ID, which the source resolves, or the path of an
    archive. Each node must have
    the same image under that name, unpacked and known to CRI. Changes nothing. Exit status 1 if a
    node lacks an image or has another image under its name.

    \b
    Examples:
      imgload verify app:dev                       the kube context's cluster
      imgload verify app:dev db:dev -c kind        two images
      imgload verify app:dev --tag ghcr.io/me/app  the name from the pod spec
      imgload verify app.tar                       every image of an archive
      imgload verify app:dev --deep                re-hash the blobs on the nodes
      imgload verify app:dev --files               compare the unpacked files
      imgload verify app:dev --complete            require all layers as blobs
      imgload verify app:dev -o junit > a.xml      a JUnit report for a CI server
    """
    from imgload.loader.api import verify as verify_images  # noqa: PLC0415 - start-up

    with failures(output, quiet=quiet), watching(silent=quiet or output != "text") as on_event:
        report = verify_images(images, on_event=on_event, **options)
    show_result(report, output, partial(show_report, quiet=quiet))
