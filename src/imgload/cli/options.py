"""Options that several commands share."""

from __future__ import annotations

from collections.abc import Callable
from importlib import import_module
from typing import TYPE_CHECKING, Any, TypeVar

import click

if TYPE_CHECKING:
    from click.shell_completion import CompletionItem

Complete = Callable[[click.Context, click.Parameter, str], list["CompletionItem"]]
Command = TypeVar("Command", bound=Callable[..., Any])


def completed(what: str) -> Complete:
    """Return what completes an argument: a function of `imgload.cli.candidates`, by name."""

    def complete(
        context: click.Context, _parameter: click.Parameter, incomplete: str
    ) -> list[CompletionItem]:
        home = import_module("imgload.cli.candidates")
        found: list[CompletionItem] = getattr(home, what)(context, incomplete)
        return found

    return complete


def cluster_options(
    command: Command, default: str = "the kube context's, or the only one"
) -> Command:
    """Add ``--cluster`` and ``--node``, as ``cluster`` and ``nodes``."""
    cluster = click.option(
        "--cluster",
        "-c",
        metavar="NAME",
        shell_complete=completed("clusters"),
        help=f"The cluster. [default: {default}]",
    )
    node = click.option(
        "--node",
        "-n",
        "nodes",
        multiple=True,
        metavar="NODE",
        shell_complete=completed("nodes"),
        help="Only this node; may be repeated.",
    )
    return cluster(node(command))


def images_argument(command: Command) -> Command:
    """Add ``[IMAGE]...``, as ``images``."""
    return click.argument(
        "images", nargs=-1, metavar="[IMAGE]...", shell_complete=completed("images")
    )(command)


def engine_option(command: Command) -> Command:
    """Add ``--from`` for commands to which only engines are sources, as ``source``."""
    return click.option(
        "--from",
        "source",
        metavar="ENGINE",
        shell_complete=completed("engines"),
        help="docker, podman or an engine's URL. [default: every engine that answers]",
    )(command)


def source_options(command: Command) -> Command:
    """Add ``--from``, ``--as`` and ``--platform``, as ``source``, ``name`` and ``platform``."""
    source = click.option(
        "--from",
        "source",
        metavar="SOURCE",
        shell_complete=completed("sources"),
        help="docker, podman, an engine's URL, an archive (a file, - or an OCI layout folder)."
        " [default: every engine that answers]",
    )
    name = click.option(
        "--as", "name", metavar="NAME", help="Take the one image under this name on the nodes."
    )
    platform = click.option(
        "--platform",
        metavar="OS/ARCH",
        shell_complete=completed("platforms"),
        help="Which platform of a multi-platform image.",
    )
    return source(name(platform(command)))


def output_option(*formats: str, text: str = "stderr") -> Callable[[Command], Command]:
    """Return ``--output``; everything but text goes to stdout."""
    return click.option(
        "--output",
        "-o",
        type=click.Choice(["text", *formats]),
        default="text",
        help=f"text on {text}, or {' or '.join(formats)} on stdout.",
        show_default=True,
    )
