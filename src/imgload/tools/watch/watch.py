"""Loading each image the moment an engine has built or tagged it."""

from __future__ import annotations

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
from imgload.core.errors import (
    JSON_VERSION,
    ClusterError,
    EngineError,
    ImgloadError,
    UsageError,
    error_json,
)
from imgload.core.parallel import Task, in_parallel
from imgload.engines.base import Engine
from imgload.engines.discovery.discover import explained
from imgload.loader.events import Event, Note
from imgload.loader.loader import Loader
from imgload.loader.report import LoadFailed, Report
from imgload.loader.session import Connections
from imgload.oci.digest import Digest
from imgload.oci.patterns import engine_filter, meant, parse_patterns
from imgload.oci.reference import require_callback, strings
from imgload.sources.engine import EngineSource
from imgload.tools.watch.listener import Back, Heard, Listener, Lost, Told
from imgload.tools.watch.selection import LastingSelection

Due = dict[str, Digest]
"""Images to load by name, each with what the engine calls its ID."""
Key = tuple[EngineSource, str]
_Named = tuple[Heard, list[tuple[str, Digest]]]
_TOGETHER_SECONDS = 0.03
"""What is heard within so long comes from one build, and is loaded together."""
_LOOKUP_SECONDS = (0.2, 10.0)
_RETRY_SECONDS = (2.0, 30.0)
_RESEND_SECONDS = 600.0
"""The longest pause before a load is tried again that may send all of an image again."""
_MOST_LOOKUPS = 8


@attrs.frozen
class WatchedLoad:
    """What came of one load by a watch.

    Args:
        at: when it ended, with the local time zone.
        references: the images, as people write them.
        seconds: from when the engine was heard to the proof.
        report: what happened on each node; None when it came to no node.
        error: why it failed, or None.

    """

    at: datetime
    references: tuple[str, ...]
    seconds: float
    report: Report | None = None
    error: ImgloadError | None = None

    def to_json(self) -> dict[str, Any]:
        """Return the document of ``--output json``: the report's, with the time."""
        images = self.report.to_json()["images"] if self.report else []
        return {
            "version": JSON_VERSION,
            "time": self.at.isoformat(timespec="milliseconds"),
            "references": list(self.references),
            "seconds": round(self.seconds, 3),
            "images": images,
            "ok": self.error is None,
            "error": error_json(self.error) if self.error else None,
        }


@attrs.define
class _Pause:
    """When to try something again: after longer and longer pauses.

    Args:
        shortest: seconds.
        longest: seconds.

    """

    shortest: float
    longest: float
    _seconds: float = 0.0
    _end: float | None = None

    @property
    def left(self) -> float | None:
        """The seconds until the next try; None when nothing is to be tried."""
        return None if self._end is None else max(0.0, self._end - time.monotonic())

    @property
    def over(self) -> bool:
        """Whether it is time for the next try."""
        return self.left == 0.0

    def extend(self, longest: float | None = None) -> None:
        """Begin a pause, twice as long as the last one."""
        self._seconds = min(2 * self._seconds or self.shortest, longest or self.longest)
        self._end = time.monotonic() + self._seconds

    def cut_short(self) -> None:
        """Let the next try be now."""
        self._end = time.monotonic()

    def end(self) -> None:
        """Forget it: there is nothing to try."""
        self._seconds, self._end = 0.0, None


@attrs.define
class Watch:
    """Listens to engines, and loads what is heard of; iterate over it once.

    Args:
        sources: the engines to listen to.
        selection: where to load.
        patterns: which images.
        on_event: told what happens during a load, from several threads.
        busy: whether an image is being loaded just now.

    """

    sources: Sequence[EngineSource]
    selection: LastingSelection
    patterns: Sequence[str]
    on_event: Callable[[Event], None] = lambda _: None
    busy: bool = False
    _told: queue.SimpleQueue[Told] = attrs.field(factory=queue.SimpleQueue)
    _loaded: dict[Key, Digest | None] = attrs.field(factory=dict)
    _owed: dict[Key, Digest | None] = attrs.field(factory=dict)
    _newest: dict[str, EngineSource] = attrs.field(factory=dict)
    """Where each name was built last."""
    _retry: _Pause = attrs.field(factory=lambda: _Pause(*_RETRY_SECONDS))
    _failure: str = ""
    _unknown: dict[Heard, int] = attrs.field(factory=dict)
    _lookup: _Pause = attrs.field(factory=lambda: _Pause(*_LOOKUP_SECONDS))
    _lost: set[Engine] = attrs.field(factory=set)

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
        """Begin to listen, until the end of the block; arguments and errors as for `watch`."""
        wanted = parse_patterns(strings(patterns, "patterns"))
        require_callback(on_event, "on_event")
        names = strings(nodes, "nodes")
        if not wanted:
            raise UsageError("no image named", hint="name some: imgload watch app 'ghcr.io/me/*'")
        with Connections.open(source) as connections:
            sources = [s for s in connections.sources if isinstance(s, EngineSource)]
            if not sources:
                raise UsageError(f"{source} is no engine", hint="watch an engine: --from docker")
            with explained(connections.found.silent):
                selection = LastingSelection.settle(connections.engines, cluster, names)
            watch = cls(sources, selection, wanted, on_event)
            listeners = watch.listeners()
            try:
                in_parallel([listener.start for listener in listeners])
                yield watch
            finally:
                for listener in listeners:
                    listener.stop()

    def listeners(self) -> list[Listener]:
        """Return what listens to each engine; an engine need not list what cannot be meant."""
        filters = [engine_filter(pattern) for pattern in self.patterns]
        narrow = [each for each in filters if each] if all(filters) else []
        return [Listener(source.engine, self._told.put, narrow) for source in self.sources]

    def __iter__(self) -> Iterator[WatchedLoad | Note]:
        """Yield what happens, for ever."""
        Task(partial(_get_ready, self.selection.nodes))
        yield Note(self._intent)
        while True:
            told = self._next()
            began = time.monotonic()
            yield from (self._news(each) for each in told if not isinstance(each, Heard))
            heard = [each for each in told if isinstance(each, Heard)]
            named, failed = self._named(heard)
            yield from failed
            due = {source: self._due(source, named) for source in self.sources}
            if any(due.values()) or self._retry.over:
                self.busy = True
                results = self._load(due, began)
                self.busy = False
                yield from results

    @property
    def _intent(self) -> str:
        engines = " and ".join(source.describe for source in self.sources)
        patterns = ", ".join(self.patterns)
        nodes = ", ".join(node.name for node in self.selection.nodes)
        return f"watching {engines} for {patterns}; loading into {nodes}"

    def _next(self) -> list[Told]:
        """Return what was told, waiting for it until it is time to try something again."""
        pauses = [left for pause in (self._lookup, self._retry) if (left := pause.left) is not None]
        try:
            told = [self._told.get(timeout=min(pauses, default=None))]
        except queue.Empty:
            return []
        time.sleep(_TOGETHER_SECONDS)
        while not self._told.empty():
            told.append(self._told.get())
        return told

    def _news(self, told: Lost | Back) -> Note:
        if isinstance(told, Lost):
            self._lost.add(told.engine)
            return Note(f"{told.error.message}; waiting for it")
        self._lost.discard(told.engine)
        if self._unknown:
            self._lookup.cut_short()
        if self._owed:
            self._retry.cut_short()
        return Note(f"{told.engine.endpoint} is back")

    def _named(self, heard: Iterable[Heard]) -> tuple[list[_Named], list[WatchedLoad]]:
        """Return the names that events are about, and the lookups that are given up.

        A lookup that fails is repeated, and is not counted while its engine does not answer.
        """
        waiting = self._unknown if self._lookup.over else {}
        self._unknown = {} if waiting else self._unknown
        named: list[_Named] = []
        failed: list[WatchedLoad] = []
        for each in [*waiting, *(h for h in heard if h not in waiting)]:
            tries = waiting.get(each, 0) + (each.engine not in self._lost)
            try:
                named.append((each, _names(each)))
            except ImgloadError as error:
                if tries < _MOST_LOOKUPS:
                    self._unknown[each] = tries
                else:
                    text = each.event.name or str(each.event.target)
                    failed.append(_outcome([text], time.monotonic(), error=error))
        if not self._unknown:
            self._lookup.end()
        elif waiting or self._lookup.left is None:
            self._lookup.extend()
        return named, failed

    def _due(self, source: EngineSource, named: Iterable[_Named]) -> Due:
        """Return the images to load, each once; what was seen may be loaded already."""
        due: Due = {}
        for each, names in named:
            for held, target in names if each.engine is source.engine else ():
                name = meant(held, self.patterns)
                if name and not (each.seen and self._loaded.get((source, name)) == target):
                    due[name] = target
        return due

    def _load(self, due: Mapping[EngineSource, Due], began: float) -> list[WatchedLoad]:
        """Load what is due, and what an earlier load owes.

        A failure that was told already is not told again when nothing new was due.
        """
        is_retry = not any(due.values())
        results = self._attempts(due, began)
        if is_retry and not results:
            self._retry.end()
        told = [
            r for r in results if not (is_retry and r.error and r.error.message == self._failure)
        ]
        self._failure = next((r.error.message for r in reversed(results) if r.error), "")
        return told

    def _attempts(self, due: Mapping[EngineSource, Due], began: float) -> list[WatchedLoad]:
        for source, targets in due.items():
            self._newest |= dict.fromkeys(targets, source)
        for key in [key for key in self._owed if self._is_older(key)]:
            self._loaded[key] = self._owed.pop(key)
        try:
            if self.selection.renew():
                loaded = {k: target for k, target in self._loaded.items() if not self._is_older(k)}
                self._owed = loaded | self._owed
        except ImgloadError as error:
            for source, targets in due.items():
                self._owed |= {(source, name): target for name, target in targets.items()}
            self._retry.extend()
            names = [name for targets in due.values() for name in targets]
            return [_outcome(names or [name for _, name in self._owed], began, error=error)]
        results = []
        for source, targets in due.items():
            found = self._attempt(source, [*targets, *self._owed_of(source, targets)], began)
            self._note(source, targets, found)
            results += found
        return results

    def _is_older(self, key: Key) -> bool:
        """Whether another engine has built an image of that name since."""
        source, name = key
        return self._newest.get(name, source) is not source

    def _owed_of(self, source: EngineSource, due: Due) -> list[str]:
        """Return what else is to be loaded, as far as the engine still has it."""
        owed = [name for each, name in sorted(self._owed, key=str) if each is source]
        return [name for name in owed if name not in due and _holds(source, name)]

    def _attempt(
        self, source: EngineSource, names: Sequence[str], began: float
    ) -> list[WatchedLoad]:
        """Load images together; one by one where one of them keeps the others from it."""
        if not names:
            return []
        try:
            report = Loader([source], self.selection.nodes).load(names, on_event=self.on_event)
        except LoadFailed as error:
            return [_outcome(names, began, error.report, error)]
        except ImgloadError as error:
            if len(names) == 1:
                return [_outcome(names, began, error=error)]
            return [result for name in names for result in self._attempt(source, [name], began)]
        return [_outcome(names, began, report)]

    def _note(self, source: EngineSource, due: Due, results: Sequence[WatchedLoad]) -> None:
        for result in results:
            keys = [(source, name) for name in result.references]
            targets = {key: due.get(key[1], self._owed.get(key)) for key in keys}
            if result.error:
                self._owed.update(targets)
                self.selection.forget()
            else:
                for key in keys:
                    self._owed.pop(key, None)
                self._loaded.update(targets)
        errors = [result.error for result in results if result.error]
        if any(isinstance(error, LoadFailed) for error in errors):
            self._retry.extend(_RESEND_SECONDS)
        elif any(isinstance(error, (EngineError, ClusterError)) for error in errors):
            self._retry.extend()
        elif not self._owed:
            self._retry.end()


def _get_ready(nodes: Sequence[Node]) -> None:
    """Learn before the first build what does not change: of the nodes, and of our own code."""
    import_module("imgload.loader.execute")
    for node in nodes:
        with suppress(ImgloadError):
            node.survey(NOTHING)


def _names(heard: Heard) -> list[tuple[str, Digest]]:
    """Return which names an event is about, asking the engine for what it did not tell.

    Raises:
        EngineError: when the engine does not answer.

    """
    name, target = heard.event.name, heard.event.target
    if name and target:
        return [(name, target)]
    image = heard.engine.find(name or str(target))
    return [(each, image.target) for each in ([name] if name else image.names)] if image else []


def _holds(source: EngineSource, name: str) -> bool:
    try:
        return source.find(name, None) is not None
    except ImgloadError:
        return False


def _outcome(
    references: Sequence[str],
    began: float,
    report: Report | None = None,
    error: ImgloadError | None = None,
) -> WatchedLoad:
    now = datetime.now().astimezone()
    return WatchedLoad(now, tuple(references), time.monotonic() - began, report, error)


def watch(
    patterns: str | Sequence[str],
    *,
    cluster: str | None = None,
    nodes: Sequence[str] = (),
    source: str | PathLike[str] | None = None,
    on_event: Callable[[Event], None] = lambda _: None,
) -> Iterator[WatchedLoad | Note]:
    """Load each image whose name matches, the moment an engine has built or tagged it.

    Images that are there already are not loaded; a cluster that is made anew gets again what this
    watch had loaded, with the next image. Which cluster is meant is settled at the start. Close
    the iterator to stop.

    Args:
        patterns: names with ``*`` for anything, ``app:dev-*``; without a tag every tag is meant.
        cluster: the cluster's name; None for the kube context's, or else the only one.
        nodes: names of the nodes to load; empty for all of the cluster.
        source: ``docker``, ``podman`` or an engine's URL; None listens to every engine.
        on_event: told what happens during a load, from several threads.

    Yields:
        a `WatchedLoad` for each load, also one that failed, and a `Note` for what else the user
        should know: an engine that is gone, or back. No failure ends the watch.

    Raises:
        EngineError: when at the start no engine can be used.
        ClusterError: when at the start the cluster or a node is not there.
        UsageError: when a pattern or the source makes no sense.

    """
    with Watch.open(
        patterns, cluster=cluster, nodes=nodes, source=source, on_event=on_event
    ) as opened:
        yield from opened
