"""Shell completion: ``imgload completion``, and the values that it offers.

A failure or a slow engine offers nothing: a message would corrupt the user's command line.
"""

from __future__ import annotations

import os
import re
from collections.abc import Mapping, Sequence
from functools import partial
from itertools import pairwise
from typing import TYPE_CHECKING, Any

import click
from click import shell_completion
from click.shell_completion import BashComplete, CompletionItem

from imgload.cli.process import say
from imgload.core.errors import ImgloadError
from imgload.core.parallel import Task, in_parallel, result_or_error

if TYPE_CHECKING:
    from imgload.loader.session import Session

VARIABLE = "_IMGLOAD_COMPLETE"
_WORDBREAKS = frozenset(":=@")
"""Of bash's COMP_WORDBREAKS; bash replaces only the part of a word behind the last one."""
_SECONDS = 0.8
"""How long a user waits for completion."""
_ENGINES = ("docker", "podman")
_FIXED = {
    "engines": _ENGINES,
    "sources": _ENGINES,
    "platforms": ("linux/amd64", "linux/arm64", "linux/arm/v7", "linux/ppc64le", "linux/s390x"),
}
_STORED_PREFIXES = ("docker.io/", "localhost/")
_SAFE = re.compile(r"[\w./:-]+", re.ASCII)
"""Values that need no quoting: a container's label may contain shell code."""


@click.command()
@click.argument("shell", type=click.Choice(["bash", "zsh", "fish"]))
@click.pass_context
def completion(context: click.Context, shell: str) -> None:
    """Print a completion script for bash, zsh or fish.

    Completes commands, options, and the names of images, clusters and nodes.

    \b
    To install:
      bash  echo 'eval "$(imgload completion bash)"' >> ~/.bashrc
      zsh   echo 'eval "$(imgload completion zsh)"' >> ~/.zshrc   after compinit
      fish  imgload completion fish > ~/.config/fish/completions/imgload.fish

    With kubectl's completion installed, `kubectl imgload` needs no script.
    """
    if completer := shell_completion.get_completion_class(shell):
        say(completer(context.find_root().command, {}, "imgload", VARIABLE).source())


@shell_completion.add_completion_class
class Bash(BashComplete):
    """Completion for bash, which splits ``app:dev`` and ``--cluster=kind`` into three words."""

    _kept = 0

    def get_completion_args(self) -> tuple[list[str], str]:
        cursor = int(os.environ["COMP_CWORD"])
        parts = shell_completion.split_arg_string(os.environ["COMP_WORDS"])
        parts = [*parts[:cursor], "".join(parts[cursor : cursor + 1])]
        *arguments, incomplete = join_words(parts)[1:]
        self._kept = kept_length(incomplete, parts[-1])
        return arguments, incomplete

    def format_completion(self, item: CompletionItem) -> str:
        value = item.value[self._kept :] if item.type == "plain" else item.value
        return f"{item.type},{value}"


def join_words(parts: Sequence[str]) -> list[str]:
    """Return the words that bash split into parts."""
    words: list[str] = []
    for previous, part in pairwise(["", *parts]):
        if words and part and (_is_break(part) or _is_break(previous)):
            words[-1] += part
        else:
            words.append(part)
    return words


def kept_length(word: str, last_part: str) -> int:
    """Return how many characters of a value bash keeps; an option's name is not counted."""
    value = word.partition("=")[2] if word.startswith("-") else word
    return max(len(value) - (0 if _is_break(last_part) else len(last_part)), 0)


def _is_break(part: str) -> bool:
    return bool(part) and _WORDBREAKS.issuperset(part)


def candidates(kind: str, context: click.Context, incomplete: str) -> list[CompletionItem]:
    """Return candidates: images, recorded, repositories, clusters, nodes, or those of `_FIXED`."""
    task = Task(partial(result_or_error, partial(_names, kind, context.params, incomplete)))
    task.wait_at_most(_SECONDS)
    names = task.result() if task.done else ()
    names = () if isinstance(names, ImgloadError) else names
    matching = {n for n in names if n.startswith(incomplete) and _SAFE.fullmatch(n)}
    if kind == "sources" and not matching:
        return [CompletionItem(incomplete, type="file")]
    return [CompletionItem(name) for name in sorted(matching)]


def _names(kind: str, params: Mapping[str, Any], incomplete: str) -> Sequence[str]:
    if kind in _FIXED:
        return _FIXED[kind]
    from imgload.clusters.cluster import find_clusters  # noqa: PLC0415 - start-up
    from imgload.loader.session import Session  # noqa: PLC0415

    source = params.get("source") if kind == "images" else None
    with Session.open(source, follow_links=bool(params.get("follow_links"))) as session:
        if kind == "images":
            return _images(session, incomplete)
        if kind == "repositories":
            return [name.rpartition(":")[0] for name in _images(session, incomplete)]
        clusters = find_clusters(session.engines)
    if kind == "clusters":
        return [cluster.name for cluster in clusters]
    wanted = params.get("cluster")
    own = [cluster for cluster in clusters if cluster.name in (wanted or [cluster.name])]
    if kind == "recorded":
        from imgload.loader.record import read_record  # noqa: PLC0415 - start-up
        from imgload.oci.reference import familiar_name  # noqa: PLC0415

        return [familiar_name(name) for cluster in own for name in read_record(cluster)]
    return [member.name for cluster in own for member in cluster.members]


def _images(session: Session, incomplete: str) -> Sequence[str]:
    from imgload.oci.reference import pod_name  # noqa: PLC0415 - start-up
    from imgload.sources.engine import EngineSource  # noqa: PLC0415

    globs = [incomplete + rest for rest in ("*", "*/*", "*/*/*")]
    if not _SAFE.fullmatch(incomplete) or incomplete.startswith("docker.io/"):
        globs = []  # otherwise the engine filters: listing takes it milliseconds for each image
    engines = [s.engine for s in session.sources if isinstance(s, EngineSource)]
    stored = in_parallel([partial(engine.names, globs) for engine in engines])
    names = {name: pod_name(name, ["*"]) for of_engine in stored for name in of_engine}
    if incomplete.startswith(_STORED_PREFIXES):
        return [name for name in names if names[name]]
    return [name for name in names.values() if name]
