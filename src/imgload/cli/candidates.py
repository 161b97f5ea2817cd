"""What a shell may complete: names of images, clusters and nodes, asked for within a second."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable
from functools import partial
from typing import TYPE_CHECKING

import click
from click.shell_completion import CompletionItem

from imgload.core.errors import ImgloadError
from imgload.core.parallel import Task, in_parallel

if TYPE_CHECKING:
    from imgload.clusters.select import Cluster
    from imgload.engines.base import Engine

_SECONDS = 0.8
"""Nobody waits longer for a key; what is not known by then is not offered."""
_PLATFORMS = ("linux/amd64", "linux/arm64", "linux/arm/v7", "linux/ppc64le", "linux/s390x")
_ENGINES = ("docker", "podman")
_FULL = ("docker.io/", "localhost/")
_PLAIN = re.compile(r"[\w./:-]+", re.ASCII)
"""What a shell takes as it is; a label of anybody's container may say anything."""


def images(context: click.Context, incomplete: str) -> list[CompletionItem]:
    """Return the engines' images, by the names that people write."""
    return _fitting(partial(_images, context.params.get("source"), incomplete), incomplete)


def clusters(_context: click.Context, incomplete: str) -> list[CompletionItem]:
    """Return the names of the clusters."""
    return _fitting(lambda: [cluster.name for cluster in _clusters()], incomplete)


def nodes(context: click.Context, incomplete: str) -> list[CompletionItem]:
    """Return the names of the nodes; only of the cluster that was named."""
    return _fitting(partial(_nodes, context.params.get("cluster")), incomplete)


def sources(_context: click.Context, incomplete: str) -> list[CompletionItem]:
    """Return the kinds of engines, and else have the shell complete a path."""
    return engines(_context, incomplete) or [CompletionItem(incomplete, type="file")]


def engines(_context: click.Context, incomplete: str) -> list[CompletionItem]:
    """Return the kinds of engines."""
    return _fitting(lambda: _ENGINES, incomplete)


def platforms(_context: click.Context, incomplete: str) -> list[CompletionItem]:
    """Return the platforms that images are mostly built for."""
    return _fitting(lambda: _PLATFORMS, incomplete)


def _fitting(ask: Callable[[], Iterable[str]], incomplete: str) -> list[CompletionItem]:
    """Return what begins with what was typed; nothing when that fails or takes too long."""
    task = Task(partial(_silently, ask))
    task.settle(_SECONDS)
    found = task.result() if task.done else []
    fitting = {n for n in found if n.startswith(incomplete) and _PLAIN.fullmatch(n)}
    return [CompletionItem(name) for name in sorted(fitting)]


def _silently(ask: Callable[[], Iterable[str]]) -> list[str]:
    try:
        return list(ask())
    except ImgloadError:
        return []


def _images(source: str | None, incomplete: str) -> list[str]:
    from imgload.loader.session import Connections  # noqa: PLC0415 - start-up
    from imgload.sources.engine import EngineSource  # noqa: PLC0415

    with Connections.open(source) as connections:
        asked = [s.engine for s in connections.sources if isinstance(s, EngineSource)]
        held = in_parallel([partial(_held, engine, incomplete) for engine in asked])
    return [name for names in held for name in names]


def _held(engine: Engine, incomplete: str) -> list[str]:
    """Return an engine's names; as it writes them where that is what was begun with."""
    from imgload.oci.patterns import meant  # noqa: PLC0415 - start-up

    found = {held: meant(held, ["*"]) for held in engine.names(_globs(incomplete))}
    if incomplete.startswith(_FULL):
        return [held for held, name in found.items() if name]
    return [name for name in found.values() if name]


def _globs(incomplete: str) -> list[str]:
    """Return an engine's own filter: it takes milliseconds for each image that it lists."""
    if not _PLAIN.fullmatch(incomplete) or incomplete.startswith(_FULL[0]):
        return []
    return [incomplete + deeper for deeper in ("*", "*/*", "*/*/*")]


def _clusters() -> list[Cluster]:
    from imgload.clusters.select import find_clusters  # noqa: PLC0415 - start-up
    from imgload.loader.session import Connections  # noqa: PLC0415

    with Connections.open() as connections:
        return find_clusters(connections.engines)


def _nodes(cluster: str | None) -> list[str]:
    found = [each for each in _clusters() if cluster in {None, each.name}]
    return [node.name for each in found for node in each.nodes]
