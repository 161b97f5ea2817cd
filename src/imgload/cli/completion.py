"""Shell completion: ``imgload completion``, and the values that it offers.

A failure or a slow engine offers nothing: a message would corrupt the user's command line.
"""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import TYPE_CHECKING, Any

import click
from click.shell_completion import (
    BashComplete,
    CompletionItem,
    add_completion_class,
    get_completion_class,
    split_arg_string,
)

from imgload.cli.process import say
from imgload.core.errors import ImgloadError
from imgload.core.parallel import Task, in_parallel, result_or_error

if TYPE_CHECKING:
    from imgload.clusters.select import Cluster
    from imgload.engines.base import ImageStore

_Params = Mapping[str, Any]
VARIABLE = "_IMGLOAD_COMPLETE"
_WORDBREAKS = frozenset(":=@")
"""Of bash's COMP_WORDBREAKS; bash replaces only the part of a word behind the last one."""
_SECONDS = 0.8
"""How long a user waits for completion."""
_PLATFORMS = ("linux/amd64", "linux/arm64", "linux/arm/v7", "linux/ppc64le", "linux/s390x")
_STORED_PREFIXES = ("docker.io/", "localhost/")
_SAFE = re.compile(r"[\w./:-]+", re.ASCII)
"""Values that need no quoting: a container's label may contain shell code."""


@click.command(no_args_is_help=True)
@click.argument("shell", type=click.Choice(["bash", "zsh", "fish"]))
@click.pass_context
def completion(context: click.Context, shell: str) -> None:
    """Print a completion script for bash, zsh or fish.

    Completes commands, options, and the names of images, clusters and nodes.

    \b
    To install:
      bash  echo 'eval "$(imgload completion bash)"' >> ~/.bashrc
      zsh   echo 'eval "$(imgload completion zsh)"' >> ~/.zshrc      after compinit
      fish  imgload completion fish > ~/.config/fish/completions/imgload.fish

    With kubectl's completion installed, `kubectl imgload` needs no script.
    """
    if completer := get_completion_class(shell):
        command = context.find_root().command
        say(completer(command, {}, "imgload", VARIABLE).source())


@add_completion_class
class Bash(BashComplete):
    """Completion for bash, which splits ``app:dev`` and ``--cluster=kind`` into three words."""

    _kept = 0

    def get_completion_args(self) -> tuple[list[str], str]:
        cursor = int(os.environ["COMP_CWORD"])
        words = split_arg_string(os.environ["COMP_WORDS"])
        joined = join_words([*words[:cursor], "".join(words[cursor : cursor + 1])])
        self._kept = kept_length(joined[-1])
        *arguments, incomplete = ("".join(parts) for parts in joined[1:])
        return arguments, incomplete

    def format_completion(self, item: CompletionItem) -> str:
        value = item.value[self._kept :] if item.type == "plain" else item.value
        return f"{item.type},{value}"


def join_words(words: Sequence[str]) -> list[list[str]]:
    """Return each word as the parts into which bash split it."""
    joined: list[list[str]] = []
    for word in words:
        if word and joined and (_is_break(word) or _is_break(joined[-1][-1])):
            joined[-1].append(word)
        else:
            joined.append([word])
    return joined


def kept_length(parts: Sequence[str]) -> int:
    """Return how many characters of a value bash keeps; an option's name is not counted."""
    value = list(parts)
    if value[0].startswith("-") and "=" in value:
        value = value[value.index("=") + 1 :]
    last = len(value) if value and _is_break(value[-1]) else len(value) - 1
    return len("".join(value[: max(last, 0)]))


def _is_break(word: str) -> bool:
    return bool(word) and _WORDBREAKS.issuperset(word)


def candidates(kind: str, context: click.Context, incomplete: str) -> list[CompletionItem]:
    """Return candidates of a kind: a key of `_QUERIES`, or ``sources`` (an engine or a path)."""
    query = _QUERIES["engines" if kind == "sources" else kind]
    task = Task(partial(result_or_error, partial(query, context.params, incomplete)))
    task.wait_at_most(_SECONDS)
    names = task.result() if task.done else ()
    names = () if isinstance(names, ImgloadError) else names
    matching = {n for n in names if n.startswith(incomplete) and _SAFE.fullmatch(n)}
    if kind == "sources" and not matching:
        return [CompletionItem(incomplete, type="file")]
    return [CompletionItem(name) for name in sorted(matching)]


def _images(params: _Params, incomplete: str) -> Sequence[str]:
    from imgload.loader.session import Session  # noqa: PLC0415 - start-up
    from imgload.sources.engine import EngineSource  # noqa: PLC0415

    with Session.open(params.get("source")) as connections:
        engines = [s.engine for s in connections.sources if isinstance(s, EngineSource)]
        names = in_parallel([partial(_image_names, engine, incomplete) for engine in engines])
    return [name for of_engine in names for name in of_engine]


def _image_names(engine: ImageStore, incomplete: str) -> list[str]:
    from imgload.oci.patterns import pod_name  # noqa: PLC0415 - start-up

    globs = [incomplete + rest for rest in ("*", "*/*", "*/*/*")]
    if not _SAFE.fullmatch(incomplete) or incomplete.startswith("docker.io/"):
        globs = []  # otherwise the engine filters: listing takes it milliseconds for each image
    names = {stored: pod_name(stored, ["*"]) for stored in engine.names(globs)}
    if incomplete.startswith(_STORED_PREFIXES):
        return [stored for stored, name in names.items() if name]
    return [name for name in names.values() if name]


def _clusters() -> list[Cluster]:
    from imgload.clusters.select import find_clusters  # noqa: PLC0415 - start-up
    from imgload.loader.session import Session  # noqa: PLC0415

    with Session.open() as connections:
        return find_clusters(connections.engines)


def _nodes(params: _Params, _incomplete: str) -> Sequence[str]:
    clusters = [c for c in _clusters() if params.get("cluster") in {None, c.name}]
    return [node.name for cluster in clusters for node in cluster.nodes]


_QUERIES: dict[str, Callable[[_Params, str], Sequence[str]]] = {
    "images": _images,
    "clusters": lambda _params, _incomplete: [cluster.name for cluster in _clusters()],
    "nodes": _nodes,
    "engines": lambda _params, _incomplete: ("docker", "podman"),
    "platforms": lambda _params, _incomplete: _PLATFORMS,
}
