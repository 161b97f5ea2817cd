"""From what a user names to open sources and nodes."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager

import attrs

from imgload.clusters.nodes.node import Node
from imgload.clusters.select import Cluster, select_cluster, select_nodes
from imgload.core.errors import EngineUnreachable, UsageError
from imgload.engines.base import Engine
from imgload.engines.discovery.attempt import Candidate
from imgload.engines.discovery.candidates import named_address
from imgload.engines.discovery.discover import Discovery, explained, open_engines
from imgload.engines.endpoint import Endpoint
from imgload.oci.reference import string_or_none
from imgload.sources.base import Source
from imgload.sources.engine import EngineSource


@attrs.frozen
class Connections:
    """Open engines: those asked for images, and those that may run nodes."""

    sources: tuple[Source, ...]
    engines: tuple[Engine, ...]
    found: Discovery

    @classmethod
    @contextmanager
    def open(cls, source: str | os.PathLike[str] | None = None) -> Iterator[Connections]:
        """Find and open the engines, and close them at the end.

        Args:
            source: ``docker``, ``podman``, an engine's URL, or a path; None for every engine.

        """
        source = string_or_none(source, "source")
        with ExitStack() as stack:
            is_engine = source in {None, "docker", "podman"} or "://" in (source or "")
            archive = None if is_engine else _archive(source or "", stack)
            found, engines = stack.enter_context(open_engines(_named(source)))
            sources = [archive] if archive else _engines(source, engines, found)
            opened = cls(tuple(sources), tuple(engines.values()), found)
            for each in opened.sources:
                stack.callback(each.release)
            yield opened

    def select_nodes(
        self, cluster: str | None, names: Sequence[str], *, guess: bool = True
    ) -> tuple[Node, ...]:
        """Return the nodes meant; see `imgload.clusters.select.select_nodes`."""
        with explained(self.found.silent):
            return select_nodes(self.engines, cluster, names, guess=guess)

    def select_cluster(self, name: str | None) -> Cluster:
        """Return the cluster meant; see `imgload.clusters.select.select_nodes`."""
        with explained(self.found.silent):
            return select_cluster(self.engines, name)


def _named(source: str | None) -> list[Candidate]:
    """Return the engine's address that the source is."""
    return [named_address(source, "--from", os.environ)] if source and "://" in source else []


def _engines(
    source: str | None, engines: dict[Endpoint, Engine], found: Discovery
) -> Iterator[Source]:
    if source is None:
        yield from map(EngineSource, engines.values())
    elif source in {"docker", "podman"}:
        yield from map(EngineSource, _of_kind(source, engines, found))
    else:
        yield EngineSource(engines[found.required_at(source)])


def _archive(path: str, stack: ExitStack) -> Source:
    from imgload.sources.archive import ArchiveSource  # noqa: PLC0415 - start-up

    if path != "-" and not os.path.exists(path):  # noqa: PTH110 - Path's raises for long names
        raise UsageError(
            f"no such source: {path!r} is neither docker, podman, an engine's URL, nor a file",
            hint="make an archive with: docker save app:dev -o app.tar",
        )
    archive = ArchiveSource(path)
    stack.callback(archive.close)
    return archive


def _of_kind(kind: str, engines: dict[Endpoint, Engine], found: Discovery) -> list[Engine]:
    fitting = [engine for endpoint, engine in engines.items() if endpoint.kind == kind]
    if fitting:
        return fitting
    for attempt in found.attempts:
        if attempt.error and attempt.candidate.kind == kind and not attempt.passed_over:
            raise attempt.error
    raise EngineUnreachable(
        f"no {kind} engine answers",
        hint=f"start it, or name it: --from unix:///path/to/{kind}.sock",
    )
