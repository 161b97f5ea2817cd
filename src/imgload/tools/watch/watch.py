"""Load each image when an engine has built or tagged it."""

from __future__ import annotations

import math
import queue
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from datetime import datetime
from functools import partial
from importlib import import_module
from os import PathLike
from typing import Any

import attrs

from imgload.clusters.nodes.node import Node
from imgload.clusters.nodes.survey import NOTHING
from imgload.clusters.select import select_cluster, select_nodes
from imgload.core.arguments import require_callback, require_strings
from imgload.core.errors import (
    JSON_VERSION,
    ClusterError,
    EngineError,
    ImgloadError,
    UsageError,
    error_json,
)
from imgload.core.parallel import Task, in_parallel
from imgload.engines.base import ContainerHost, ImageStore
from imgload.engines.discovery.discover import with_discovery_errors
from imgload.loader.events import Event, Note
from imgload.loader.loader import Loader
from imgload.loader.report import LoadFailed, Report
from imgload.loader.session import Session
from imgload.oci.digest import Digest
from imgload.oci.patterns import engine_filter, parse_patterns, pod_name
from imgload.sources.engine import EngineSource
from imgload.tools.watch.listener import Back, Heard, Listener, Lost, Notice

Key = tuple[EngineSource, str]
_Named = tuple[Heard, list[tuple[str, Digest]]]
_TOGETHER_SECONDS = 0.03
"""Events within this time come from one build: their images are loaded together."""
_LOOKUP_SECONDS = (0.2, 10.0)
_RETRY_SECONDS = (2.0, 30.0)
_RESEND_SECONDS = 600.0
"""The longest pause before a retry that may send a whole image again."""
_MOST_LOOKUPS = 8


@attrs.frozen
class WatchedLoad:
    """The result of one load by a watch.

    Args:
        at: when it ended, with the local time zone.
        references: the images, by familiar name.
        seconds: from the engine's event to the proof.
        report: the results on each node; None if nothing was loaded.
        error: why it failed, or None.

    """

    at: datetime
    references: tuple[str, ...]
    seconds: float
    report: Report | None = None
    error: ImgloadError | None = None

    def to_json(self) -> dict[str, Any]:
        """Return the document of ``--output json``: the report's images, with the time."""
        return {
            "version": JSON_VERSION,
            "time": self.at.isoformat(timespec="milliseconds"),
            "references": list(self.references),
            "seconds": round(self.seconds, 3),
            "images": self.report.to_json()["images"] if self.report else [],
            "ok": self.error is None,
            "error": error_json(self.error) if self.error else None,
        }


@attrs.define
class ClusterSelector:
    """A selection of nodes that does not follow later changes of the kube context.

    It keeps the engines that run the nodes, and the cluster's name; None if nodes were named.
    """

    engines: Sequence[ContainerHost]
    cluster: str | None
    names: Sequence[str]
    nodes: tuple[Node, ...] = ()

    @classmethod
    def settle(
        cls, engines: Sequence[ContainerHost], cluster: str | None, names: Sequence[str]
    ) -> ClusterSelector:
        """Select nodes once; arguments and errors as for `select_nodes`."""
        nodes = select_nodes(engines, cluster, names)
        if cluster is None and not names:
            cluster = select_cluster(engines, None).name
        own = list(dict.fromkeys(node.engine for node in nodes))
        return cls(own or engines, cluster, names, nodes)

    def renew(self) -> bool:
        """Return whether any node has a new container; raise EngineError or ClusterError."""
        nodes = select_nodes(self.engines, self.cluster, self.names)
        before = {node.container.id for node in self.nodes}
        if [node.container for node in nodes] != [node.container for node in self.nodes]:
            self.nodes = nodes
        return not before.issuperset(node.container.id for node in nodes)

    def forget(self) -> None:
        """Drop cached facts about the nodes: after a failure their free space is stale, too."""
        self.nodes = tuple(attrs.evolve(node, traits=None, last=None) for node in self.nodes)


@attrs.define
class _Backoff:
    """Doubling pauses between attempts, from `shortest` to `longest` seconds."""

    shortest: float
    longest: float
    due_at: float = math.inf
    """By `time.monotonic`; infinite when there is nothing to attempt."""
    _pause: float = 0.0

    @property
    def is_due(self) -> bool:
        return self.due_at <= time.monotonic()

    def extend(self, longest: float | None = None) -> None:
        self._pause = min(2 * self._pause or self.shortest, longest or self.longest)
        self.due_at = time.monotonic() + self._pause

    def reset(self) -> None:
        self._pause, self.due_at = 0.0, math.inf


@attrs.define
class Watch:
    """Listens to engines and loads new images; iterate over it once.

    `on_event` is called with the events of each load, from several threads; `busy` is whether a
    load is running.
    """

    sources: Sequence[EngineSource]
    selection: ClusterSelector
    patterns: Sequence[str]
    on_event: Callable[[Event], None] = lambda _: None
    busy: bool = False
    _notices: queue.SimpleQueue[Notice] = attrs.field(factory=queue.SimpleQueue)
    _loaded: dict[Key, Digest] = attrs.field(factory=dict)
    _pending: dict[Key, Digest] = attrs.field(factory=dict)
    """Images to load again, with the next image or at the next retry."""
    _newest: dict[str, EngineSource] = attrs.field(factory=dict)
    """The engine that built each name last."""
    _retry: _Backoff = attrs.field(factory=lambda: _Backoff(*_RETRY_SECONDS))
    _failure: str = ""
    _unknown: dict[Heard, int] = attrs.field(factory=dict)
    """Events whose image could not be looked up, with the number of attempts."""
    _lookup: _Backoff = attrs.field(factory=lambda: _Backoff(*_LOOKUP_SECONDS))
    _lost: set[ImageStore] = attrs.field(factory=set)

    @classmethod
    @contextmanager
    def open(
        cls,
        patterns: Sequence[str],
        *,
        cluster: str | None = None,
        nodes: Sequence[str] = (),
        source: str | PathLike[str] | None = None,
        on_event: Callable[[Event], None] = lambda _: None,
    ) -> Iterator[Watch]:
        """Listen until the end of the block; arguments and errors as for `watch`."""
        parsed = parse_patterns(require_strings(patterns, "patterns"))
        require_callback(on_event, "on_event")
        names = require_strings(nodes, "nodes")
        if not parsed:
            raise UsageError("no image named", hint="name some: imgload watch app 'ghcr.io/me/*'")
        with Session.open(source) as connections:
            sources = [s for s in connections.sources if isinstance(s, EngineSource)]
            if not sources:
                raise UsageError(f"{source} is not an engine", hint="watch one: --from docker")
            with with_discovery_errors(connections.discovery.unreachable):
                selection = ClusterSelector.settle(connections.engines, cluster, names)
            watch = cls(sources, selection, parsed, on_event)
            listeners = watch.listeners()
            try:
                in_parallel([listener.start for listener in listeners])
                yield watch
            finally:
                for listener in listeners:
                    listener.stop()

    def listeners(self) -> list[Listener]:
        """Return a listener for each engine, limited to the patterns if the engine can do that."""
        filters = [engine_filter(pattern) for pattern in self.patterns]
        names = [name for name in filters if name] if all(filters) else []
        return [Listener(source.engine, self._notices.put, names) for source in self.sources]

    def __iter__(self) -> Iterator[WatchedLoad | Note]:
        """Yield loads and notes for ever."""
        Task(partial(_prepare, self.selection.nodes))
        engines = " and ".join(source.describe for source in self.sources)
        nodes = ", ".join(node.name for node in self.selection.nodes)
        yield Note(f"watching {engines} for {', '.join(self.patterns)}; loading into {nodes}")
        while True:
            notices = self._next()
            began = time.monotonic()
            yield from (self._note(n) for n in notices if not isinstance(n, Heard))
            named, failed = self._named([n for n in notices if isinstance(n, Heard)])
            yield from failed
            due = self._due(named)
            if due or self._retry.is_due:
                self.busy = True
                loads = self._load(due, began)
                self.busy = False
                yield from loads

    def _next(self) -> list[Notice]:
        """Wait for notices until the next retry is due."""
        due_at = min(self._lookup.due_at, self._retry.due_at)
        timeout = None if due_at == math.inf else max(0.0, due_at - time.monotonic())
        try:
            notices = [self._notices.get(timeout=timeout)]
        except queue.Empty:
            return []
        time.sleep(_TOGETHER_SECONDS)
        while not self._notices.empty():
            notices.append(self._notices.get())
        return notices

    def _note(self, notice: Lost | Back) -> Note:
        if isinstance(notice, Lost):
            self._lost.add(notice.engine)
            return Note(f"{notice.error.message}; waiting for it")
        self._lost.discard(notice.engine)
        if self._unknown:
            self._lookup.due_at = 0.0
        if self._pending:
            self._retry.due_at = 0.0
        return Note(f"{notice.engine.endpoint} is back")

    def _named(self, events: Iterable[Heard]) -> tuple[list[_Named], list[WatchedLoad]]:
        """Return each event with its image's names, and the failures of abandoned lookups.

        A failed lookup is repeated; it does not count while the engine is lost.
        """
        waiting = self._unknown if self._lookup.is_due else {}
        self._unknown = {} if waiting else self._unknown
        named: list[_Named] = []
        failed: list[WatchedLoad] = []
        for heard in [*waiting, *(event for event in events if event not in waiting)]:
            attempts = waiting.get(heard, 0) + (heard.engine not in self._lost)
            try:
                named.append((heard, _names(heard)))
            except ImgloadError as error:
                if attempts < _MOST_LOOKUPS:
                    self._unknown[heard] = attempts
                else:
                    name = heard.event.name or str(heard.event.target)
                    failed.append(_watched_load([name], time.monotonic(), error=error))
        if not self._unknown:
            self._lookup.reset()
        elif waiting or self._lookup.due_at == math.inf:
            self._lookup.extend()
        return named, failed

    def _due(self, named: Iterable[_Named]) -> dict[Key, Digest]:
        """Return the images to load; an event that may be a repeat loads nothing again."""
        due: dict[Key, Digest] = {}
        for heard, names in named:
            source = next(source for source in self.sources if source.engine is heard.engine)
            for engine_name, target in names:
                name = pod_name(engine_name, self.patterns)
                if name and not (heard.seen and self._loaded.get((source, name)) == target):
                    due[source, name] = target
                    self._newest[name] = source
        return due

    def _load(self, due: Mapping[Key, Digest], began: float) -> list[WatchedLoad]:
        """Load due and pending images; leave out a failure that only repeats in a retry."""
        loads = self._attempts(due, began)
        if not due and not loads:
            self._retry.reset()
        before = "" if due else self._failure
        self._failure = next((load.error.message for load in reversed(loads) if load.error), "")
        return [load for load in loads if not (load.error and load.error.message == before)]

    def _attempts(self, due: Mapping[Key, Digest], began: float) -> list[WatchedLoad]:
        self._pending |= due
        for key in filter(self._is_superseded, list(self._pending)):
            self._loaded[key] = self._pending.pop(key)
        try:
            if self.selection.renew():
                loaded = [item for item in self._loaded.items() if not self._is_superseded(item[0])]
                self._pending = dict(loaded) | self._pending
        except ImgloadError as error:
            self._retry.extend()
            return [_watched_load([n for _, n in due or self._pending], began, error=error)]
        loads = []
        keys = [*due, *(key for key in sorted(self._pending, key=str) if key not in due)]
        for source in self.sources:
            own = [key for key in keys if key[0] is source and key in self._pending]
            names = [key[1] for key in own if key in due or _has(*key)]
            attempted = self._attempt(source, names, began)
            self._record(source, attempted)
            loads += attempted
        return loads

    def _is_superseded(self, key: Key) -> bool:
        """Whether another engine has built an image of that name since."""
        source, name = key
        return self._newest.get(name, source) is not source

    def _attempt(
        self, source: EngineSource, names: Sequence[str], began: float
    ) -> list[WatchedLoad]:
        """Load images together, or one by one if one of them prevents that."""
        if not names:
            return []
        try:
            report = Loader([source], self.selection.nodes).load(names, on_event=self.on_event)
        except LoadFailed as error:
            return [_watched_load(names, began, error.report, error)]
        except ImgloadError as error:
            if len(names) == 1:
                return [_watched_load(names, began, error=error)]
            return [load for name in names for load in self._attempt(source, [name], began)]
        return [_watched_load(names, began, report)]

    def _record(self, source: EngineSource, loads: Sequence[WatchedLoad]) -> None:
        for load in loads:
            if load.error:
                self.selection.forget()
            else:
                keys = [(source, name) for name in load.references]
                self._loaded.update({key: self._pending.pop(key) for key in keys})
        errors = [load.error for load in loads if load.error]
        if any(isinstance(error, LoadFailed) for error in errors):
            self._retry.extend(_RESEND_SECONDS)
        elif any(isinstance(error, (EngineError, ClusterError)) for error in errors):
            self._retry.extend()
        elif not self._pending:
            self._retry.reset()


def _prepare(nodes: Sequence[Node]) -> None:
    """Before the first build, import modules and read the nodes' constant traits."""
    import_module("imgload.loader.execute")
    for node in nodes:
        with suppress(ImgloadError):
            node.survey(NOTHING)


def _names(heard: Heard) -> list[tuple[str, Digest]]:
    """Return the names of an event's image, asking the engine if the event lacks name or ID."""
    name, target = heard.event.name, heard.event.target
    if name and target:
        return [(name, target)]
    image = heard.engine.find(name or str(target))
    return [(n, image.target) for n in ([name] if name else image.names)] if image else []


def _has(source: EngineSource, name: str) -> bool:
    try:
        return source.find(name, None) is not None
    except ImgloadError:
        return False


def _watched_load(
    names: Sequence[str],
    began: float,
    report: Report | None = None,
    error: ImgloadError | None = None,
) -> WatchedLoad:
    now = datetime.now().astimezone()
    return WatchedLoad(now, tuple(names), time.monotonic() - began, report, error)


def watch(
    patterns: str | Sequence[str],
    *,
    cluster: str | None = None,
    nodes: Sequence[str] = (),
    source: str | PathLike[str] | None = None,
    on_event: Callable[[Event], None] = lambda _: None,
) -> Iterator[WatchedLoad | Note]:
    """Load each image whose name matches, when an engine has built or tagged it.

    Images that existed before are not loaded. If the cluster is created again, its new nodes get
    every image that this watch has loaded, with the next image. The cluster is selected once, at
    the start. Close the iterator to stop.

    Args:
        patterns: names in which ``*`` matches anything: ``app:dev-*``; without a tag, every tag.
        cluster: the cluster's name; None for the kube context's, or the only one.
        nodes: names of the nodes to load; empty for all nodes of the cluster.
        source: ``docker``, ``podman`` or an engine's URL; None for every engine.
        on_event: called with the events of each load, from several threads.

    Yields:
        a `WatchedLoad` for each load, including failures, and a `Note` when an engine is lost or
        back. No failure ends the watch.

    Raises:
        EngineError: when at the start no engine can be used.
        ClusterError: when at the start the cluster or a node does not exist.
        UsageError: when a pattern or the source is invalid.

    """
    with Watch.open(
        patterns, cluster=cluster, nodes=nodes, source=source, on_event=on_event
    ) as opened:
        yield from opened
