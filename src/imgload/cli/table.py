"""Images by nodes: a table on a terminal, one line for each image and node elsewhere."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterator, Sequence
from typing import TYPE_CHECKING

from imgload.cli.process import say
from imgload.cli.text import name_text, short_name, show_node_error
from imgload.core.ages import age_text
from imgload.core.sizes import size_text
from imgload.oci.patterns import familiar_name
from imgload.tools.inventory.list import ListedImage, Listing
from imgload.tools.inventory.node_images import NodeImage

if TYPE_CHECKING:
    from rich.table import Table

_HEADER = ("IMAGE", "NODE", "ID", "SIZE", "OWN", "AGE", "STATE")
_LEGEND = "● in use  ✓ there  · not there"
_RIGHT = ("SIZE", "OWN", "AGE")


def show_listing(listing: Listing) -> None:
    """Print the images on stdout, and below them what cannot be seen from the table."""
    if sys.stdout.isatty():
        _show_table(listing)
    else:
        _show_lines(listing)
    if not listing.images:
        say("no image fits", err=True)
    for node, size in listing.sizes.items():
        say(f"{node}: {size_text(size)} in images", err=True)
    for node, error in listing.errors.items():
        show_node_error(node, error)


def _show_lines(listing: Listing) -> None:
    now = time.time()
    rows = [
        (_name(image), node, image.image_id.short, *_measures([there], now), _state(image, there))
        for image in listing.images
        for node, there in image.nodes.items()
    ]
    widths = [max(map(len, column)) for column in zip(_HEADER, *rows, strict=True)]
    for row in (_HEADER, *rows):
        cells = (cell.ljust(width) for cell, width in zip(row, widths, strict=True))
        say("  ".join(cells).rstrip())


def _show_table(listing: Listing) -> None:
    from rich.console import Console  # noqa: PLC0415 - start-up
    from rich.text import Text  # noqa: PLC0415

    nodes, now = list(listing.sizes), time.time()
    table = _new_table(nodes)
    for image in listing.images:
        style = "yellow" if image.drift else "" if image.name else "dim"
        table.add_row(*map(Text, _cells(image, nodes, now)), style=style)
    console = Console()
    console.print(table)
    console.print(_legend(listing), style="dim", highlight=False, markup=False)


def _new_table(nodes: Sequence[str]) -> Table:
    from rich.box import SIMPLE_HEAD  # noqa: PLC0415 - start-up
    from rich.table import Table  # noqa: PLC0415
    from rich.text import Text  # noqa: PLC0415

    table = Table(box=SIMPLE_HEAD, pad_edge=False)
    table.add_column("IMAGE", overflow="fold")
    for header in ("ID", *_RIGHT):
        table.add_column(header, justify="right" if header in _RIGHT else "left", no_wrap=True)
    for node in _short(nodes):
        table.add_column(Text(name_text(node)), justify="center", overflow="fold")
    return table


def _cells(image: ListedImage, nodes: Sequence[str], now: float) -> Iterator[str]:
    drift = " ≠" if image.drift else ""
    yield _name(image, familiar_name)
    yield image.image_id.short + drift
    yield from _measures(list(image.nodes.values()), now)
    yield from (_mark(image.nodes.get(node)) for node in nodes)


def _legend(listing: Listing) -> str:
    drift = any(image.drift for image in listing.images)
    return _LEGEND + ("  ≠ drift: another image on another node" if drift else "")


def _mark(there: NodeImage | None) -> str:
    if there is None:
        return "·"
    return "●" if there.in_use else "✓"


def _name(image: ListedImage, spelling: Callable[[str], str] = str) -> str:
    if image.name is not None:
        return short_name(spelling(image.name))
    was = ",".join(short_name(spelling(name)) for name in image.loaded_as)
    return f"<none:was={was}>" if was else "<none>"


def _measures(places: Sequence[NodeImage], now: float) -> tuple[str, str, str]:
    """Return size, own size and age, of the nodes the largest and the youngest."""
    times = [place.since for place in places if place.since is not None]
    size, own = (size_text(max(sizes)).replace(" ", "") for sizes in _sizes(places))
    return size, own, age_text(now - max(times)) if times else "?"


def _sizes(places: Sequence[NodeImage]) -> tuple[list[int], list[int]]:
    return [place.size for place in places], [place.own_size for place in places]


def _state(image: ListedImage, there: NodeImage) -> str:
    states = {
        "in-use": there.in_use,
        "unused": not there.in_use,
        "loaded": bool(there.loaded_as),
        "pinned": there.pinned,
        "drift": image.drift,
    }
    return ",".join(state for state, holds in states.items() if holds)


def _short(nodes: Sequence[str]) -> list[str]:
    """Return the nodes' names without the cluster's, which all of them start with."""
    words = [node.split("-") for node in nodes]
    most = min(map(len, words), default=1) - 1 if len(nodes) > 1 else 0
    same = 0
    while same < most and len({word[same] for word in words}) == 1:
        same += 1
    return ["-".join(word[same:]) for word in words]
