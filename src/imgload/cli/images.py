"""``imgload images`` and ``imgload prune``."""

from __future__ import annotations

import sys
import time
from collections import Counter
from collections.abc import Callable, Collection, Sequence
from functools import partial
from os.path import commonprefix
from typing import TYPE_CHECKING, Any

import click

from imgload.cli.options import (
    address_option,
    cluster_options,
    complete,
    complete_images,
    output_option,
    verbose_option,
)
from imgload.cli.output import (
    cut,
    failure_text,
    failures,
    short_name,
    shorten,
    show_json,
    show_result,
)
from imgload.cli.process import say, style
from imgload.core.errors import JSON_VERSION, UsageError, one_line
from imgload.core.state import clear_cache, state_folder
from imgload.core.units import age_text, parse_age, size_text
from imgload.oci.reference import familiar_name

if TYPE_CHECKING:
    from rich.table import Table

    from imgload.tools.inventory.base import NodeImage
    from imgload.tools.inventory.images import ListedImage, Listing
    from imgload.tools.inventory.prune import PruneReport

_HEADER = ("IMAGE", "NODE", "ID", "SIZE", "OWN", "AGE", "STATE")
_KEEP = "Number of tagged builds to keep in each repository, newest first."
_UNPIN = "Remove the pins that imgload load --pin set, and treat these images like others."
_OLDER_THAN = "Minimum age on the node, with a unit: 90m, 24h, 7d. [default: any age]"
_DRY_RUN = "this was a dry run: nothing was removed; to remove, add --yes"


@click.command()
@click.argument("patterns", nargs=-1, metavar="[PATTERN]...", shell_complete=complete_images)
@cluster_options
@address_option
@click.option("--unused", is_flag=True, help="Show only images that no container uses.")
@click.option("--drift", is_flag=True, help="Show only names that differ between nodes.")
@verbose_option
@output_option("json")
def images(patterns: tuple[str, ...], output: str, **options: Any) -> None:
    """List the images on the nodes.

    PATTERN is an image name or a repository, and may contain * and ?. SIZE is the disk space of an
    image on a node, OWN the part that no other image shares, AGE the time since it came to the
    node. A name that refers to different images on different nodes is marked as drift. An untagged
    build is listed under the name with which imgload loaded it. In a pipe, each image and node has
    a line with a STATE: in-use or unused, loaded (by imgload), pinned, drift.

    \b
    Examples:
      imgload images                     list all images
      imgload images app 'ghcr.io/me/*'  list the images of some repositories
      imgload images --unused            list the images that no container uses
      imgload images --drift             list the names that differ between nodes
      imgload images -o json | jq '.images[] | select(.drift) | .reference'

    \b
    Exit status: 0 all nodes responded; 1 some failed; others as for load.
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
    for note in listing.notes:
        say(f"note: {note}", err=True)
    if not listing.images:
        say("no matching image", err=True)
    for node, size in listing.sizes.items():
        say(f"{node}: {size_text(size)} in images", err=True)
    for node, error in listing.errors.items():
        say(failure_text(node, error.message, error.hint), err=True)


def _show_lines(listing: Listing) -> None:
    rows = [
        (_name(image), node, image.image_id.short, *_words(_measures(copy)), _state(image, copy))
        for image in listing.images
        for node, copy in image.nodes.items()
    ]
    widths = [max(map(len, column)) for column in zip(_HEADER, *rows, strict=True)]
    for row in (_HEADER, *rows):
        cells = (cell.ljust(width) for cell, width in zip(row, widths, strict=True))
        say("  ".join(cells).rstrip())


def _show_table(listing: Listing) -> None:
    """Print a column for each node; one for all of them if the names of images need the space."""
    from rich.console import Console  # noqa: PLC0415 - start-up

    terminal = Console()
    unlimited = terminal.options.update(max_width=sys.maxsize)
    nodes = [one_line(node) for node in _without_common_prefix(listing.sizes)]
    names = [_name(image, lambda name: short_name(familiar_name(name))) for image in listing.images]
    for headers in (nodes, [node.replace("-", "-\n") for node in nodes], ["NODES"]):
        grid = _grid(listing, names, headers)
        excess = terminal.measure(grid, options=unlimited).maximum - terminal.width
        if excess <= 0:
            break
    else:
        width = max(map(len, names)) - excess
        grid = _grid(listing, [cut(name, width) for name in names], headers)
    legend = "● in use  ✓ present  · absent"
    if any(image.drift for image in listing.images):
        legend += "  ≠ drift: nodes have different images"
    if len(headers) < len(nodes):
        legend += f"\nNODES: {', '.join(nodes)}"
    terminal.print(grid)
    terminal.print(legend, style="dim", highlight=False, markup=False)


def _grid(listing: Listing, names: Sequence[str], headers: Sequence[str]) -> Table:
    """Return the table of images under these names; `headers` are the nodes, or one for all."""
    from rich import box, table, text  # noqa: PLC0415 - start-up

    grid = table.Table(box=box.SIMPLE_HEAD, pad_edge=False)
    grid.add_column("IMAGE", overflow="ellipsis")
    grid.add_column("ID", no_wrap=True)
    for header in ("SIZE", "OWN", "AGE"):
        grid.add_column(header, justify="right", no_wrap=True)
    for header in headers:
        grid.add_column(text.Text(header), justify="center", overflow="fold")
    for image, name in zip(listing.images, names, strict=True):
        copies = [image.nodes.get(node) for node in listing.sizes]
        marks = ["·" if copy is None else "●" if copy.in_use else "✓" for copy in copies]
        image_id = image.image_id.short + (" ≠" if image.drift else "")
        by_node = marks if len(headers) == len(marks) else ["".join(marks)]
        row = (name, image_id, *_measures(*image.nodes.values()), *by_node)
        color = "yellow" if image.drift else "" if image.name else "dim"
        grid.add_row(*map(text.Text, row), style=color)
    return grid


def _name(image: ListedImage, spelling: Callable[[str], str] = str) -> str:
    if image.name is not None:
        return one_line(spelling(image.name))
    former = ",".join(one_line(spelling(name)) for name in image.loaded_as)
    return f"<none:was={former}>" if former else "<none>"


def _words(texts: Sequence[str]) -> list[str]:
    """Return each text as one word, for the columns that awk reads."""
    return [text.replace(" ", "") for text in texts]


def _measures(*copies: NodeImage) -> tuple[str, str, str]:
    """Return size, own size and age: of the largest and the newest copy."""
    size = size_text(max(copy.size for copy in copies))
    own_size = size_text(max(copy.own_size for copy in copies))
    times = [copy.since for copy in copies if copy.since is not None]
    return size, own_size, age_text(time.time() - max(times)) if times else "?"


def _state(image: ListedImage, copy: NodeImage) -> str:
    states = {"loaded": copy.loaded_as, "pinned": copy.pinned, "drift": image.drift}
    used = "in-use" if copy.in_use else "unused"
    return ",".join([used, *(state for state, applies in states.items() if applies)])


def _without_common_prefix(nodes: Collection[str]) -> list[str]:
    """Return the nodes' names without the words that all of them start with: the cluster's name."""
    names = [node.split("-") for node in nodes]
    common = len(commonprefix([name[:-1] for name in names])) if len(nodes) > 1 else 0  # noqa: RUF071
    return ["-".join(name[common:]) for name in names]


@click.command()
@click.argument(
    "repositories",
    nargs=-1,
    metavar="[REPOSITORY]...",
    shell_complete=partial(complete, "repositories"),
)
@cluster_options
@address_option
@click.option("--yes", "-y", is_flag=True, help="Remove the images instead of listing them.")
@click.option("--dry-run", is_flag=True, help="List the images and remove nothing, despite --yes.")
@click.option(
    "--keep",
    type=click.IntRange(min=0),
    default=3,
    metavar="N",
    help=_KEEP,
    show_default=True,
    envvar="IMGLOAD_KEEP",
)
@click.option("--older-than", metavar="AGE", help=_OLDER_THAN)
@click.option("--all", "everything", is_flag=True, help="Include images that imgload did not load.")
@click.option("--unpin", is_flag=True, help=_UNPIN)
@click.option("--cache", is_flag=True, help="Clear imgload's cache on this machine instead.")
@verbose_option
@output_option("json")
def prune(
    repositories: tuple[str, ...],
    yes: bool,
    dry_run: bool,
    older_than: str | None,
    cache: bool,
    output: str,
    **options: Any,
) -> None:
    """Remove old builds from the nodes.

    Removes images that imgload loaded and that are untagged or older than the newest --keep builds
    of their repository, with all of their names. Images used by a container (running or stopped)
    and pinned images are never removed; --unpin removes the pins that imgload set. REPOSITORY is an
    image name without a tag, and may contain * and ?; omit it to prune all repositories. Without
    --yes, nothing is removed.

    \b
    Examples:
      imgload prune                        list the images that would be removed
      imgload prune --yes                  remove them
      imgload prune app --keep 1 --yes     keep only the newest build of app
      imgload prune --older-than 24h -y    keep images loaded in the last day
      imgload prune --all --keep 1         include images that others loaded
      imgload prune app --unpin --yes      remove the pins of load --pin, too
      imgload prune --cache --yes          clear the cache on this machine

    \b
    Exit status: 0 done, or dry run; 1 some failed; others as for load.
    """
    from imgload.tools.inventory.prune import PruneFailed  # noqa: PLC0415
    from imgload.tools.inventory.prune import prune as prune_images  # noqa: PLC0415 - start-up

    dry_run = dry_run or not yes
    with failures(output, quiet=False):
        if cache:
            _prune_cache(repositories, dry_run=dry_run, output=output)
            return
        age = parse_age(older_than) if older_than else None
        try:
            report = prune_images(repositories, older_than=age, dry_run=dry_run, **options)
        except PruneFailed as error:
            report = error.report
    show_result(report, output, show_pruned)


def _prune_cache(repositories: Sequence[str], *, dry_run: bool, output: str) -> None:
    if repositories:
        message = "--cache clears this machine's cache and takes no REPOSITORY"
        raise UsageError(message, hint="imgload prune --cache")
    folder, size = str(state_folder()), clear_cache(dry_run=dry_run)
    if output == "json":
        cache = {"folder": folder, "bytes_freed": size}
        show_json({"version": JSON_VERSION, "dry_run": dry_run, "cache": cache, "ok": True})
        return
    say(f"{folder}: {size_text(size)} {'would be freed' if dry_run else 'freed'}")
    if dry_run and size:
        say(_DRY_RUN, err=True)


def show_pruned(report: PruneReport) -> None:
    for node in report.nodes:
        images = f"{len(node.removed)} image{'s' if len(node.removed) > 1 else ''}"
        images += f", {size_text(node.bytes_freed)}"
        total = f"would remove {images}" if report.dry_run else f"removed {images} freed"
        if node.removed or not node.error:
            nothing = "no image to remove" if node.unpinned else "nothing to remove"
            total = total if node.removed else nothing
            say(f"{style(shorten(node.node, len(total) + 2), bold=True)}: {total}")
        for image in node.removed:
            age = f", {age_text(time.time() - image.since)} old" if image.since is not None else ""
            former = [f"was {name}" for name in image.loaded_as] or ["untagged"]
            rest = f" {image.image_id.short} ({size_text(image.size)}{age})"
            say(f"  - {shorten(', '.join(image.names or former), len(rest) + 4)}{rest}")
        for name in node.unpinned:
            removed = "would be removed" if report.dry_run else "removed"
            say(f"  - {shorten(name, len(removed) + 10)}: pin {removed}")
        for reason, count in Counter(kept.reason for kept in node.kept).most_common():
            kept = f"  {count} kept: "
            say(style(kept + shorten(reason, len(kept)), dim=True))
        if node.error:
            say(failure_text(node.node, node.error.message, node.error.hint))
    if report.dry_run and any(node.removed or node.unpinned for node in report.nodes):
        say(_DRY_RUN, err=True)
