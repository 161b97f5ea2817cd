"""Options that several commands share."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import TYPE_CHECKING, Any, TypeVar

import click

if TYPE_CHECKING:
    from click.shell_completion import CompletionItem

Command = TypeVar("Command", bound=Callable[..., Any])


def complete(
    kind: str, context: click.Context, _parameter: click.Parameter, incomplete: str
) -> list[CompletionItem]:
    from imgload.cli.completion import candidates  # noqa: PLC0415 - start-up

    return candidates(kind, context, incomplete)


class TagOption(click.Option):
    """``--tag``, which also answers to its former name ``--as``, without showing it."""

    def add_to_parser(self, parser: Any, ctx: click.Context) -> None:
        super().add_to_parser(parser, ctx)
        parser.add_option(self, ["--as"], dest=self.name)


def _option(kind: str, text: str, *names: str, **options: Any) -> Callable[[Command], Command]:
    return click.option(*names, shell_complete=partial(complete, kind), help=text, **options)


def choice_option(*names: str, choices: Sequence[str], text: str) -> Callable[[Command], Command]:
    """Return an option whose default is the first choice."""
    kind, default = click.Choice(choices), choices[0]
    return click.option(*names, type=kind, default=default, help=text, show_default=True)


complete_images = partial(complete, "images")
images_argument = click.argument(
    "images", nargs=-1, metavar="[IMAGE]...", shell_complete=complete_images
)
tag_option = partial(click.option, "--tag", cls=TagOption, metavar="NAME")
_ENGINE_HELP = "Source engine: docker, podman or a URL. [default: every engine that responds]"
engine_option = _option("engines", _ENGINE_HELP, "--from", "source", metavar="ENGINE")


def cluster_options(
    command: Command, default: str = "the kube context's cluster, or the only one"
) -> Command:
    """Add ``--cluster`` and ``--node``, as ``cluster`` and ``nodes``."""
    text = f"Name of a cluster; repeatable. [default: {default}]"
    cluster = _option("clusters", text, "--cluster", "-c", multiple=True, metavar="NAME")
    text = "Name of a node; repeatable. [default: every node of the cluster]"
    node = _option("nodes", text, "--node", "-n", "nodes", multiple=True, metavar="NODE")
    return cluster(node(command))


def load_options(command: Command) -> Command:
    """Add IMAGE and the options of its source, its name, its platform, the cluster and nodes."""
    text = (
        "Source of the images: docker, podman, an engine's URL, an archive file, an OCI layout"
        " folder, or - for an archive on stdin. [default: every engine that responds]"
    )
    source = _option("sources", text, "--from", "source", metavar="SOURCE")
    tag = tag_option(help="Name of the image on the nodes, for one IMAGE. [default: IMAGE]")
    text = "Platform of a multi-platform image. [default: the nodes' platform]"
    platform = _option("platforms", text, "--platform", metavar="OS/ARCH")
    text = "Fail if a node can run an image neither natively nor by emulation. [default: in CI]"
    strict = click.option("--strict-platform/--no-strict-platform", default=None, help=text)
    text = "Follow symbolic links that lead out of a folder of images."
    links = click.option("--follow-links", is_flag=True, help=text)
    return images_argument(cluster_options(source(links(tag(platform(strict(command)))))))


def output_option(*formats: str, text: str = "stderr") -> Callable[[Command], Command]:
    """Return the option ``--output``; formats other than text go to stdout."""
    text = f"Output format: text on {text}, or {' or '.join(formats)} on stdout."
    return choice_option("--output", "-o", choices=("text", *formats), text=text)
