"""Options that several commands share."""

from __future__ import annotations

import os
import stat
from collections.abc import Callable, Sequence
from contextlib import suppress
from functools import partial
from typing import TYPE_CHECKING, Any, TypeVar

import click
from click.core import ParameterSource

from imgload.core.errors import UsageError

if TYPE_CHECKING:
    from click.shell_completion import CompletionItem

_ARCHIVE_ENDS = (".tar", ".tgz", *(f".tar.{form}" for form in ("gz", "zst", "bz2", "xz")))
Command = TypeVar("Command", bound=Callable[..., Any])


def complete(
    kind: str, context: click.Context, _parameter: click.Parameter, incomplete: str
) -> list[CompletionItem]:
    from imgload.cli.completion import candidates  # noqa: PLC0415 - start-up

    return candidates(kind, context, incomplete)


class AliasedOption(click.Option):
    """An option that also answers to an ``alias``, without showing it."""

    def __init__(self, *args: Any, alias: str, **options: Any) -> None:
        super().__init__(*args, **options)
        self._alias = alias

    def add_to_parser(self, parser: Any, ctx: click.Context) -> None:
        super().add_to_parser(parser, ctx)
        action = "append" if self.multiple else "store"
        parser.add_option(self, [self._alias], dest=self.name, action=action)


class ImagesCommand(click.Command):
    """A command whose IMAGE arguments may be archives.

    Without any argument, or another list of images, it reads an archive from a pipe.
    """

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        return super().parse_args(ctx, args or (["-"] if _is_piped() else []))

    def invoke(self, ctx: click.Context) -> Any:
        images = ctx.params["images"]
        is_named = ctx.get_parameter_source("source") is ParameterSource.COMMANDLINE
        has_list = ctx.params.get("files") or ctx.params.get("manifests")
        if not (is_named or images or has_list) and _is_piped():
            images = ("-",)
        if not (images or has_list) and ctx.params["source"] is None:
            hint = f"{ctx.command_path} app:dev; all options: {ctx.command_path} --help"
            raise UsageError("no image given", hint=hint)
        archives = [text for text in images if not is_named and _is_archive(text)]
        ctx.params["archives"] = tuple(archives)
        ctx.params["images"] = tuple(text for text in images if text not in archives)
        return super().invoke(ctx)


def _is_piped() -> bool:
    """Whether standard input is a pipe or a file, and not a terminal or /dev/null."""
    with suppress(OSError):
        mode = os.fstat(0).st_mode
        return stat.S_ISFIFO(mode) or stat.S_ISREG(mode)
    return False


def _is_archive(text: str) -> bool:
    """Whether an IMAGE is an archive: ``-``, a file (as for k3d), or the path of a folder.

    The name of a folder is more likely to be that of an image, which is often built from it. A
    name like ``app.tar`` is more likely to be that of a file, which may be missing.
    """
    is_path = text.startswith(("./", "../", "/")) or text.endswith(_ARCHIVE_ENDS)
    return text == "-" or is_path or os.path.isfile(text)  # noqa: PTH113 - start-up


def _option(kind: str, text: str, *names: str, **options: Any) -> Callable[[Command], Command]:
    return click.option(*names, shell_complete=partial(complete, kind), help=text, **options)


def choice_option(
    *names: str, choices: Sequence[str], text: str, **options: Any
) -> Callable[[Command], Command]:
    """Return an option whose default is the first choice."""
    kind, default = click.Choice(choices), choices[0]
    return click.option(*names, type=kind, default=default, help=text, show_default=True, **options)


complete_images = partial(complete, "images")
tag_option = partial(click.option, "--tag", cls=AliasedOption, alias="--as", metavar="NAME")
FROM = "IMGLOAD_FROM"
_ENGINE_HELP = "Source engine: docker, podman or a URL. [default: every engine that responds]"
engine_option = _option("engines", _ENGINE_HELP, "--from", "source", metavar="ENGINE", envvar=FROM)


def _unless_nodes_named(
    context: click.Context, parameter: click.Parameter, value: tuple[str, ...]
) -> tuple[str, ...]:
    """Ignore the default cluster if ``--node`` has names, which may be of any cluster.

    A pattern selects nodes of the default cluster.
    """
    source = context.get_parameter_source(parameter.name or "")
    is_named = source is ParameterSource.COMMANDLINE
    nodes = context.params.get("nodes") or ()
    has_pattern = any(character in node for node in nodes for character in "*?[")
    return value if is_named or has_pattern or not nodes else ()


def cluster_option(
    command: Command,
    default: str = "the kube context's cluster, or the only one",
    envvar: Sequence[str] = ("IMGLOAD_CLUSTER", "KIND_CLUSTER_NAME"),
) -> Command:
    """Add ``--cluster``."""
    text = f"Name of a cluster; repeatable. [default: {default}]"
    option = _option(
        "clusters",
        text,
        *("--cluster", "-c"),
        multiple=True,
        metavar="NAME",
        cls=AliasedOption,
        alias="--name",
        envvar=envvar,
        callback=_unless_nodes_named,
    )
    return option(command)


def cluster_options(command: Command, **options: Any) -> Command:
    """Add ``--cluster`` and ``--node``, as ``cluster`` and ``nodes``."""
    text = (
        "Name of a node, the end of its name, a pattern with * and ?, or ssh://user@host;"
        " repeatable, or with commas between. [default: every node of the cluster]"
    )
    names = ("--node", "--nodes", "-n", "nodes")
    node = _option(
        "nodes", text, *names, multiple=True, metavar="NODE", is_eager=True, callback=_split
    )
    return cluster_option(node(command), **options)


address_option = click.option(
    "--address",
    metavar="PATH",
    help="Path of containerd's socket on the nodes. [default: detected]",
)


def _split(_context: click.Context, _option: click.Parameter, values: Sequence[str]) -> list[str]:
    """Split names at commas, as kind's ``--nodes`` does; a container's name has none."""
    return [name for value in values for name in value.split(",")]


def load_options(command: Command) -> Command:
    """Add IMAGE and the options of its source, its name, its platform, the cluster and nodes."""
    text = (
        "Source of the images: docker, podman, an engine's URL, an archive file, an OCI layout"
        " folder, or - for an archive on stdin. [default: every engine that responds]"
    )
    source = _option("sources", text, "--from", "source", metavar="SOURCE", envvar=FROM)
    tag = tag_option(help="Name of the image on the nodes, for one IMAGE. [default: IMAGE]")
    text = "Platform of a multi-platform image. [default: the nodes' platform]"
    platform = _option(
        "platforms", text, "--platform", metavar="OS/ARCH", envvar="IMGLOAD_PLATFORM"
    )
    text = "Fail if a node can run an image neither natively nor by emulation. [default: in CI]"
    flags, variable = "--strict-platform/--no-strict-platform", "IMGLOAD_STRICT_PLATFORM"
    strict = click.option(flags, default=None, envvar=variable, help=text)
    text = "Follow symbolic links that lead out of a folder of images."
    links = click.option("--follow-links", is_flag=True, help=text)
    named = address_option(source(links(platform(strict(tag(command))))))
    images = click.argument(
        "images", nargs=-1, metavar="[IMAGE]...", shell_complete=complete_images
    )
    return images(cluster_options(named))


def _trace(_context: click.Context, _parameter: click.Parameter, value: bool) -> None:
    if value:
        from imgload.cli.process import say, style  # noqa: PLC0415 - start-up
        from imgload.core import trace  # noqa: PLC0415

        trace.enable(lambda line: say(style(line, dim=True), err=True))


verbose_option = click.option(
    *("--verbose", "-v"),
    is_flag=True,
    expose_value=False,
    callback=_trace,
    envvar="IMGLOAD_VERBOSE",
    help="Print requests, commands on nodes and decisions, with times, on stderr.",
)


restart_option = click.option(
    "--restart",
    is_flag=True,
    help="Restart workloads that use a changed image, by kubectl rollout restart.",
)


def output_option(*formats: str) -> Callable[[Command], Command]:
    """Return the option ``--output``."""
    text = f"Output format: text, or {' or '.join(formats)}."
    return choice_option("--output", "-o", choices=("text", *formats), text=text)
