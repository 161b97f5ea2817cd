"""Receive the image events of an engine, across its restarts."""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Callable, Sequence

import attrs

from imgload.core.errors import EngineFailed, ImgloadError
from imgload.engines.base import ImageEvent, ImageStore
from imgload.oci.digest import Digest

_SHORTEST_PAUSE = 0.2
_LONGEST_PAUSE = 2.0
_LONGEST_SSH_PAUSE = 15.0
"""Each attempt may be a login, and servers ban clients that fail too often."""
_SHARE = 20
"""Polling names takes at most 1/20 of the time."""
_OPENING_SECONDS = 10.0
_FAILURES = 2
"""Failures in a row to read the names before it is reported: a restart causes one."""
_SECOND = 10**9
_RECENT = 64


@attrs.frozen
class Heard:
    """An image event; `seen` when it may repeat an earlier one."""

    engine: ImageStore
    event: ImageEvent
    seen: bool = False


@attrs.frozen
class Lost:
    """An engine no longer answers, or refuses to report events; the listener keeps trying."""

    engine: ImageStore
    error: ImgloadError


@attrs.frozen
class Back:
    """An engine answers again."""

    engine: ImageStore


Notice = Heard | Lost | Back


@attrs.define(eq=False, repr=False)
class Listener:
    """Listens to one engine on threads of its own, and calls `notify` on them.

    When the event stream was interrupted, the listener asks for the events since the last one, and
    for all names: engines keep a limited number of events (Docker 256, of all kinds, in memory),
    but lists of names are complete. Times are the engine's own, so that neither a suspended
    machine nor a changed clock matters.

    Args:
        engine: to listen to.
        notify: called with each notice, from several threads.
        references: the names of interest, as for `ImageStore.names`; empty for all.

    """

    engine: ImageStore
    notify: Callable[[Notice], None]
    references: Sequence[str] = ()
    _names: dict[str, Digest] = attrs.field(factory=dict)
    _since: int | None = None
    _recent: deque[ImageEvent] = attrs.field(factory=lambda: deque(maxlen=_RECENT))
    _stop: threading.Event = attrs.field(factory=threading.Event)
    _tried: threading.Event = attrs.field(factory=threading.Event)
    _missed: threading.Event = attrs.field(factory=threading.Event)
    _is_open: bool = False
    _lost: bool = False
    _refuses: bool = False

    def start(self) -> None:
        """Start to report events from now on; EngineError if the engine does not answer."""
        threading.Thread(target=self._listen, daemon=True).start()
        self._tried.wait(_OPENING_SECONDS)
        self._tried.set()
        try:
            self._names = self.engine.names(self.references)
        except BaseException:
            self.stop()
            raise
        threading.Thread(target=self._poll_names, daemon=True).start()

    def stop(self) -> None:
        """Report nothing more; the threads end when their connections are next quiet."""
        self._stop.set()
        self._missed.set()

    def compare_names(self) -> None:
        """Have the changed names reported, because an event was missing or incomplete."""
        self._missed.set()

    def _listen(self) -> None:
        pause = _SHORTEST_PAUSE
        is_ssh = self.engine.endpoint.url.startswith("ssh://")
        longest = _LONGEST_SSH_PAUSE if is_ssh else _LONGEST_PAUSE
        while not self._stop.is_set():
            began, self._is_open = time.monotonic(), False
            try:
                self._follow()
            except Exception as error:  # noqa: BLE001 - the thread must go on
                self._report_failure(error)
            self._tried.set()
            if self._is_open and time.monotonic() - began > _LONGEST_PAUSE:
                pause = _SHORTEST_PAUSE
            self._stop.wait(pause)
            pause = min(2 * pause, longest)

    def _follow(self) -> None:
        """Report the events until the stream ends, or the engine is quiet for too long."""
        opened_at: int | None = None
        for event in self.engine.image_events(self._since):
            if self._stop.is_set():
                return
            if isinstance(event, ImageEvent):
                self._report(event, opened_at)
                continue
            opened_at = None if event.at is None else event.at + _SECOND
            self._is_open = True
            self._since = self._since or opened_at
            self._report_return()
            if self._tried.is_set():
                self.compare_names()
            self._tried.set()
            if opened_at and self._since and opened_at < self._since:
                self._since = event.at  # the engine's clock went back, and Podman filters by it
                return

    def _report(self, event: ImageEvent, opened_at: int | None) -> None:
        if event.at is not None:
            if event in self._recent:
                return
            self._recent.append(event)
            self._since = event.at
        if not event.name and event.target is None:
            self.compare_names()
            return
        if event.name and event.target:
            self._names[event.name] = event.target
        before = event.at is not None and opened_at is not None and event.at <= opened_at
        self.notify(Heard(self.engine, event, seen=before))

    def _report_failure(self, error: Exception, *, answers: bool = False) -> None:
        """Report a failure once; an engine that `answers`, but not with events, is polled."""
        self._refuses = answers or (isinstance(error, EngineFailed) and error.__cause__ is None)
        if not self._lost and not self._stop.is_set():
            self._lost = True
            if not isinstance(error, ImgloadError):
                error = EngineFailed(f"{self.engine.endpoint}: listening to it failed: {error!r}")
            self.notify(Lost(self.engine, error))
        if self._refuses:
            self.compare_names()

    def _report_return(self) -> None:
        if self._lost and not self._stop.is_set():
            self._lost = False
            self.notify(Back(self.engine))

    def _poll_names(self) -> None:
        """Report changed names when events are missing, or all the time if builds are no events."""
        reports_every_build = self.engine.reports_every_build
        pause, failures = _SHORTEST_PAUSE, 0
        while not self._stop.is_set():
            self._missed.wait(None if reports_every_build else pause)
            self._missed.clear()
            if self._stop.is_set() or (self._lost and not self._refuses):
                continue  # `_follow` asks for them when the engine is back
            began = time.monotonic()
            try:
                names = self.engine.names(self.references)
                before, self._names = self._names, dict(names)
                for name, target in names.items():
                    if before.get(name) != target and not self._stop.is_set():
                        self.notify(Heard(self.engine, ImageEvent(name, target), seen=True))
            except Exception as error:  # noqa: BLE001 - the thread must go on
                failures += 1
                if failures == _FAILURES:
                    self._report_failure(error, answers=True)
                self._missed.set()
                self._stop.wait(pause)
                pause = min(2 * pause, _LONGEST_SSH_PAUSE)
            else:
                if failures >= _FAILURES:
                    self._report_return()
                failures = 0
                share = 0 if reports_every_build else _SHARE * (time.monotonic() - began)
                pause = max(_SHORTEST_PAUSE, share)
