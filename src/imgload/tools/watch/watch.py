"""Load each image when an engine has built or tagged it."""

from __future__ import annotations

import math
import queue
import time
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from datetime import datetime
from functools import partial
from importlib import import_module
from os import PathLike
from typing import Any

import attrs

from imgload.clusters.cluster import Cluster
from imgload.clusters.nodes.base import NodeRuntime
from imgload.clusters.nodes.survey import NOTHING
from imgload.clusters.select import select
from imgload.core.arguments import require_callback, require_flags, require_strings
from imgload.core.errors import (
    JSON_VERSION,
    ClusterError,
    EngineError,
    ImgloadError,
    UsageError,
    error_json,
)
from imgload.core.parallel import Task, in_parallel
from imgload.engines.base import ContainerHost
from imgload.engines.discovery.discover import with_discovery_errors
from imgload.loader.events import Event, Note
from imgload.loader.loader import Loader, require_clusters
from imgload.loader.report import LoadFailed, Report, RestartFailed
from imgload.loader.session import Session
from imgload.oci.digest import Digest
from imgload.oci.reference import engine_filter, parse_patterns, pod_name
from imgload.sources.engine import EngineSource
from imgload.tools.watch.listener import Back, Heard, Listener, Lost, Notice

_TOGETHER_SECONDS = 0.03
"""Events within this time come from one build: their images are loaded together."""
_SHORTEST_RETRY = 2.0
_LONGEST_RETRY = 30.0
_LONGEST_RESEND = 600.0
"""Seconds before a retry that may send a whole image again."""


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
        report = self.report.to_json() if self.report else {"images": []}
        results: dict[str, Any] = {
            key: report[key] for key in ("images", "restart") if key in report
        }
        return {
            "version": JSON_VERSION,
            "time": self.at.isoformat(timespec="milliseconds"),
            "references": list(self.references),
            "seconds": round(self.seconds, 3),
            **results,
            "ok": self.error is None,
            "error": error_json(self.error) if self.error else None,
        }


@attrs.define(eq=False, repr=False)
class ClusterSelector:
    """A selection of nodes that does not follow later changes of the kube context.

    It keeps the engines that run the nodes, and their clusters. A pattern selects nodes once, since
    the kube context may change.
    """

    engines: Sequence[ContainerHost]
    names: Sequence[str]
    nodes: tuple[NodeRuntime, ...] = ()
    notes: tuple[str, ...] = ()
    selected: tuple[Cluster, ...] = ()
    address: str | None = None

    @classmethod
    def settle(
        cls,
        engines: Sequence[ContainerHost],
        cluster: str | Sequence[str] | None,
        names: Sequence[str],
        address: str | None = None,
    ) -> ClusterSelector:
        """Select nodes once; arguments and errors as for `select_nodes`."""
        selection = select(engines, cluster, names, address=address)
        nodes = selection.nodes
        own = list(dict.fromkeys(node.engine for node in nodes))
        picked = [node.name for node in nodes] if names else ()
        return cls(own or engines, picked, nodes, selection.notes, selection.clusters, address)

    def renew(self) -> bool:
        """Return whether any node has a new container; raise EngineError or ClusterError."""
        selection = select(
            self.engines, None, self.names, address=self.address, again=self.selected
        )
        nodes, self.selected = selection.nodes, selection.clusters
        before = {node.container.id for node in self.nodes}
        if [node.container for node in nodes] != [node.container for node in self.nodes]:
            self.nodes = nodes
        return not before.issuperset(node.container.id for node in nodes)

    def forget(self) -> None:
        """Drop cached facts about the nodes: after a failure their free space is stale, too."""
        for node in self.nodes:
            node.forget()


@attrs.define(eq=False, repr=False)
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
    restart: bool = False
    listeners: Sequence[Listener] = attrs.field(init=False)
    _notices: queue.SimpleQueue[Notice] = attrs.field(factory=queue.SimpleQueue)
    _targets: dict[tuple[EngineSource, str], Digest] = attrs.field(factory=dict)
    """The last build of each name on each engine."""
    _newest: dict[str, EngineSource] = attrs.field(factory=dict)
    """The engine that built each name last."""
    _pending: set[str] = attrs.field(factory=set)
    """Names to load again, with the next image or at the next retry."""
    _pause: float = 0.0
    _retry_at: float = math.inf
    """By `time.monotonic`; infinite when there is nothing to retry."""
    _failure: str = ""

    def __attrs_post_init__(self) -> None:
        # Only if every pattern is a filter of engines, they can limit their names to the patterns.
        filters = [engine_filter(pattern) for pattern in self.patterns]
        names = [name for name in filters if name] if all(filters) else []
        self.listeners = [Listener(s.engine, self._notices.put, names) for s in self.sources]

    @classmethod
    @contextmanager
    def open(  # noqa: PLR0913 - options
        cls,
        patterns: str | Sequence[str],
        *,
        cluster: str | Sequence[str] | None = None,
        nodes: str | Sequence[str] = (),
        address: str | None = None,
        source: str | PathLike[str] | None = None,
        restart: bool = False,
        on_event: Callable[[Event], None] = lambda _: None,
    ) -> Iterator[Watch]:
        """Listen until the end of the block; arguments and errors as for `watch`."""
        parsed = parse_patterns(require_strings(patterns, "patterns"))
        require_callback(on_event, "on_event")
        require_flags(restart=restart)
        names = require_strings(nodes, "nodes")
        if not parsed:
            raise UsageError("no image given", hint="name some: imgload watch app 'ghcr.io/me/*'")
        with Session.open(source) as connections:
            sources = [s for s in connections.sources if isinstance(s, EngineSource)]
            if not sources:
                raise UsageError(f"{source} is not an engine", hint="watch one: --from docker")
            with with_discovery_errors(connections.discovery.unreachable):
                selection = ClusterSelector.settle(connections.engines, cluster, names, address)
            if restart:
                require_clusters(selection.selected)
            watch = cls(sources, selection, parsed, on_event, restart=restart)
            try:
                in_parallel([listener.start for listener in watch.listeners])
                yield watch
            finally:
                for listener in watch.listeners:
                    listener.stop()

    def __iter__(self) -> Iterator[WatchedLoad | Note]:
        """Yield loads and notes for ever."""
        Task(partial(_prepare, self.selection.nodes))
        engines = " and ".join(source.describe for source in self.sources)
        nodes = ", ".join(map(_described, self.selection.nodes))
        yield from map(Note, self.selection.notes)
        yield Note(f"watching {engines} for {', '.join(self.patterns)}; loading into {nodes}")
        while True:
            notices = self._next()
            began = time.monotonic()
            yield from (self._note(n) for n in notices if not isinstance(n, Heard))
            due = self._due(n for n in notices if isinstance(n, Heard))
            if due or self._retry_at <= began:
                self.busy = True
                loads = self._load(due, began)
                self.busy = False
                yield from loads

    def _next(self) -> list[Notice]:
        """Wait for notices until the next retry is due."""
        pause = max(0.0, self._retry_at - time.monotonic())
        try:
            notices = [self._notices.get(timeout=None if pause == math.inf else pause)]
        except queue.Empty:
            return []
        time.sleep(_TOGETHER_SECONDS)
        while not self._notices.empty():
            notices.append(self._notices.get())
        return notices

    def _note(self, notice: Lost | Back) -> Note:
        if isinstance(notice, Lost):
            return Note(f"{notice.error.message}; waiting for it")
        if self._pending:
            self._retry_at = 0.0
        return Note(f"{notice.engine.endpoint} is back")

    def _due(self, events: Iterable[Heard]) -> dict[str, EngineSource]:
        """Return the names to load; an event that may be a repeat loads nothing again."""
        due: dict[str, EngineSource] = {}
        for heard in events:
            pairs = zip(self.sources, self.listeners, strict=True)
            source, listener = next(pair for pair in pairs if pair[0].engine is heard.engine)
            try:
                targets = _targets(heard)
            except ImgloadError:
                listener.compare_names()
                continue
            for engine_name, target in targets.items():
                name = pod_name(engine_name, self.patterns)
                if name and not (heard.seen and self._targets.get((source, name)) == target):
                    due[name] = source
                    self._targets[source, name] = target
        return due

    def _load(self, due: Mapping[str, EngineSource], began: float) -> list[WatchedLoad]:
        """Load due and pending images; leave out a failure that only repeats in a retry."""
        loads = self._attempts(due, began)
        self._schedule_retry(due, loads)
        before = "" if due else self._failure
        self._failure = next((load.error.message for load in reversed(loads) if load.error), "")
        return [load for load in loads if not (load.error and load.error.message == before)]

    def _attempts(self, due: Mapping[str, EngineSource], began: float) -> list[WatchedLoad]:
        self._newest |= due
        self._pending |= due.keys()
        try:
            if self.selection.renew():
                self._pending |= self._newest.keys()
        except ImgloadError as error:
            return [_watched_load([*due] or sorted(self._pending), began, None, error)]
        loads = []
        pending = [*due, *sorted(self._pending - due.keys())]
        for source in self.sources:
            own = [name for name in pending if self._newest[name] is source]
            names = [name for name in own if name in due or _has(source, name)]
            for load in self._attempt(source, names, began) if names else ():
                loads.append(load)
                if load.error and not isinstance(load.error, RestartFailed):
                    self.selection.forget()
                else:
                    self._pending.difference_update(load.references)
        return loads

    def _schedule_retry(self, due: Collection[str], loads: Sequence[WatchedLoad]) -> None:
        """Retry when a node, cluster or engine failed, with doubling pauses."""
        errors = [load.error for load in loads if load.error]
        resends = any(isinstance(error, LoadFailed) for error in errors)
        if resends or any(isinstance(error, (EngineError, ClusterError)) for error in errors):
            longest = _LONGEST_RESEND if resends else _LONGEST_RETRY
            self._pause = min(2 * self._pause or _SHORTEST_RETRY, longest)
            self._retry_at = time.monotonic() + self._pause
        elif not (due and self._pending):
            self._pause, self._retry_at = 0.0, math.inf

    def _attempt(
        self, source: EngineSource, names: Sequence[str], began: float
    ) -> list[WatchedLoad]:
        """Load images together, or one by one if one of them prevents that."""
        report: Report | None = None
        error: ImgloadError | None = None
        try:
            loader = Loader([source], self.selection.nodes, clusters=self.selection.selected)
            report = loader.load(names, restart=self.restart, on_event=self.on_event)
        except (LoadFailed, RestartFailed) as failure:
            report, error = failure.report, failure
        except ImgloadError as failure:
            if len(names) > 1:
                return [load for name in names for load in self._attempt(source, [name], began)]
            error = failure
        return [_watched_load(names, began, report, error)]


def _described(node: NodeRuntime) -> str:
    state = node.container.state
    return node.name if state == "running" else f"{node.name} ({state})"


def _prepare(nodes: Sequence[NodeRuntime]) -> None:
    """Before the first build, import modules and read the nodes' constant traits."""
    import_module("imgload.loader.execute")
    for node in nodes:
        with suppress(ImgloadError):
            node.survey(NOTHING)


def _targets(heard: Heard) -> dict[str, Digest]:
    """Return the names of an event's image, asking the engine if the event lacks name or ID."""
    name, target = heard.event.name, heard.event.target
    if name and target:
        return {name: target}
    image = heard.engine.find(name or str(target))
    return dict.fromkeys([name] if name else image.names, image.target) if image else {}


def _has(source: EngineSource, name: str) -> bool:
    try:
        return source.find(name, None) is not None
    except ImgloadError:
        return False


def _watched_load(
    names: Sequence[str], began: float, report: Report | None, error: ImgloadError | None
) -> WatchedLoad:
    now = datetime.now().astimezone()
    return WatchedLoad(now, tuple(names), time.monotonic() - began, report, error)


def watch(  # noqa: PLR0913 - options
    patterns: str | Sequence[str],
    *,
    cluster: str | Sequence[str] | None = None,
    nodes: str | Sequence[str] = (),
    address: str | None = None,
    source: str | PathLike[str] | None = None,
    restart: bool = False,
    on_event: Callable[[Event], None] = lambda _: None,
) -> Iterator[WatchedLoad | Note]:
    """Load each image whose name matches, when an engine has built or tagged it.

    Images that existed before are not loaded. If the cluster is created again, its new nodes get
    every image that this watch has loaded, with the next image. The cluster is selected once, at
    the start. Close the iterator to stop.

    Args:
        patterns: names in which ``*`` matches anything: ``app:dev-*``; without a tag, every tag.
        cluster: the cluster's name, or several; None for the kube context's, or the only one.
        nodes: names of the nodes to load; empty for all nodes of the cluster.
        address: the path of containerd's socket on the nodes; None to find it.
        source: ``docker``, ``podman`` or an engine's URL; None for every engine.
        restart: restart the workloads that use a changed image, as for `imgload.load`.
        on_event: called with the events of each load, from several threads.

    Yields:
        a `WatchedLoad` for each load, including failures, and a `Note` when an engine is lost or
        back. No failure ends the watch.

    Raises:
        EngineError: when at the start no engine can be used.
        ClusterError: when at the start the cluster or a node does not exist.
        UsageError: when a pattern, the source or the address is invalid.

    """
    with Watch.open(
        patterns,
        cluster=cluster,
        nodes=nodes,
        address=address,
        source=source,
        restart=restart,
        on_event=on_event,
    ) as opened:
        yield from opened
