"""``imgload images``: a table on a terminal, one line for each image and node elsewhere."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import click

from imgload.cli.options import cluster_options, completed, output_option
from imgload.cli.output import failures, show_result
from imgload.cli.process import say
from imgload.cli.text import failure_text, short_name
from imgload.core.ages import age_text
from imgload.core.errors import one_line
from imgload.core.sizes import size_text
from imgload.oci.patterns import familiar_name
from imgload.tools.inventory.images import ListedImage, Listing, NodeImage

_HEADER = ("IMAGE", "NODE", "ID", "SIZE", "OWN", "AGE", "STATE")


@click.command()
@click.argument("patterns", nargs=-1, metavar="[PATTERN]...", shell_complete=completed("images"))
@cluster_options
@click.option("--unused", is_flag=True, help="Show only images that no container uses.")
@click.option("--drift", is_flag=True, help="Show only names that differ between nodes.")
@output_option("json", text="stdout")
def images(patterns: tuple[str, ...], output: str, **options: Any) -> None:
    """List the images on the nodes.

    PATTERN is an image name or a repository, and may contain * and ?. SIZE is the disk space of an
    image on a node, OWN the part that no other image shares, AGE the time since it came to the
    node. A name that refers to different images on different nodes is marked as drift. An untagged
    build is listed under the name with which imgload loaded it.

    \b
    Examples:
      imgload images                     list all images, in the current kube context's cluster
      imgload images app 'ghcr.io/me/*'  list the images of some repositories
      imgload images --unused            list the images that imgload prune may remove
      imgload images --drift             list the names that differ between nodes
      imgload images -o json | jq '.images[] | select(.drift) | .reference'

    \b
    Exit status: 0 all nodes responded; 1 some nodes failed; others as for imgload load.
    """
    from imgload.tools.inventory.images import images as list_images  # noqa: PLC0415 - start-up

    with failures(output, quiet=False):
        listing = list_images(patterns, **options)
    show_result(listing, output, show_listing)


def show_listing(listing: Listing) -> None:
    """Print the images on stdout; on stderr, the size of each node's images and its error."""
    if sys.stdout.isatty():
        _show_table(listing)
    else:
        _show_lines(listing)
    if not listing.images:
        say("no matching image", err=True)
    for node, size in listing.sizes.items():
        say(f"{node}: {size_text(size)} in images", err=True)
    for node, error in listing.errors.items():
        say(failure_text(node, error.message, error.hint), err=True)


def _show_lines(listing: Listing) -> None:
    now = time.time()
    rows = [
        (_name(image), node, image.image_id.short, *_measures([copy], now), _state(image, copy))
        for image in listing.images
        for node, copy in image.nodes.items()
    ]
    widths = [max(map(len, column)) for column in zip(_HEADER, *rows, strict=True)]
    for row in (_HEADER, *rows):
        cells = (cell.ljust(width) for cell, width in zip(row, widths, strict=True))
        say("  ".join(cells).rstrip())


def _show_table(listing: Listing) -> None:
    from rich.box import SIMPLE_HEAD  # noqa: PLC0415 - start-up
    from rich.console import Console  # noqa: PLC0415
    from rich.table import Table  # noqa: PLC0415
    from rich.text import Text  # noqa: PLC0415

    nodes, now = list(listing.sizes), time.time()
    table = Table(box=SIMPLE_HEAD, pad_edge=False)
    table.add_column("IMAGE", overflow="fold")
    table.add_column("ID", no_wrap=True)
    for header in ("SIZE", "OWN", "AGE"):
        table.add_column(header, justify="right", no_wrap=True)
    for node in _without_common_prefix(nodes):
        table.add_column(Text(one_line(node)), justify="center", overflow="fold")
    for image in listing.images:
        style = "yellow" if image.drift else "" if image.name else "dim"
        table.add_row(*map(Text, _cells(image, nodes, now)), style=style)
    legend = "● in use  ✓ present  · absent"
    if any(image.drift for image in listing.images):
        legend += "  ≠ drift: nodes have different images"
    console = Console()
    console.print(table)
    console.print(legend, style="dim", highlight=False, markup=False)


def _cells(image: ListedImage, nodes: Sequence[str], now: float) -> Iterator[str]:
    yield _name(image, familiar_name)
    yield image.image_id.short + (" ≠" if image.drift else "")
    yield from _measures(list(image.nodes.values()), now)
    for node in nodes:
        copy = image.nodes.get(node)
        yield "·" if copy is None else "●" if copy.in_use else "✓"


def _name(image: ListedImage, spelling: Callable[[str], str] = str) -> str:
    if image.name is not None:
        return short_name(spelling(image.name))
    former = ",".join(short_name(spelling(name)) for name in image.loaded_as)
    return f"<none:was={former}>" if former else "<none>"


def _measures(copies: Sequence[NodeImage], now: float) -> tuple[str, str, str]:
    """Return size, own size and age: of the largest and the newest copy."""
    size = size_text(max(copy.size for copy in copies)).replace(" ", "")
    own_size = size_text(max(copy.own_size for copy in copies)).replace(" ", "")
    times = [copy.since for copy in copies if copy.since is not None]
    return size, own_size, age_text(now - max(times)) if times else "?"


def _state(image: ListedImage, copy: NodeImage) -> str:
    states = {
        "in-use": copy.in_use,
        "unused": not copy.in_use,
        "loaded": bool(copy.loaded_as),
        "pinned": copy.pinned,
        "drift": image.drift,
    }
    return ",".join(state for state, applies in states.items() if applies)


def _without_common_prefix(nodes: Sequence[str]) -> list[str]:
    """Return the nodes' names without the words that all of them start with: the cluster's name."""
    names = [node.split("-") for node in nodes]
    longest = min(map(len, names), default=1) - 1 if len(nodes) > 1 else 0
    common = 0
    while common < longest and len({name[common] for name in names}) == 1:
        common += 1
    return ["-".join(name[common:]) for name in names]
