"""Hearing of new images from an engine for as long as it takes, over its restarts."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Sequence

import attrs

from imgload.engines.base import Engine, ImageEvent
from imgload.engines.candidate import Candidate
from imgload.engines.probe import probe
from imgload.engines.trouble import timed_out
from imgload.errors import EngineError, ImgloadError
from imgload.oci.digest import Digest

_SHORTEST_PAUSE = 0.2
_LONGEST_PAUSE = 2.0
_SHARE = 20
"""Asking for the names again and again takes at most this fraction of the engine's time."""


@attrs.frozen
class Heard:
    """Something happened to an image; `seen` when it was found by looking, and not told."""

    engine: Engine
    event: ImageEvent
    seen: bool = False


@attrs.frozen
class Lost:
    """An engine no longer answers, or refuses to tell; it is asked again until it does."""

    engine: Engine
    error: ImgloadError


@attrs.frozen
class Back:
    """An engine answers again."""

    engine: Engine


Told = Heard | Lost | Back


@attrs.define
class Listener:
    """Listens to one engine on threads of its own.

    Args:
        engine: whose images.
        tell: called with what is heard, from several threads.
        references: the names of interest, as for `Engine.names`; empty for all.

    """

    engine: Engine
    tell: Callable[[Told], None]
    references: Sequence[str] = ()
    _names: dict[str, Digest] = attrs.field(factory=dict)
    _looking: threading.Lock = attrs.field(factory=threading.Lock)
    _stop: threading.Event = attrs.field(factory=threading.Event)
    _lost: bool = False
    _refuses: bool = False

    def start(self) -> None:
        """Begin to listen: what happens from now on is told.

        Raises:
            EngineError: when the engine does not answer.

        """
        began = time.monotonic()
        self._names = self.engine.names(self.references)
        threading.Thread(target=self._listen, args=(began,), daemon=True).start()
        if not self.engine.tells_every_build:
            threading.Thread(target=self._poll, daemon=True).start()

    def stop(self) -> None:
        """Tell nothing more; the threads end when their connections are next quiet."""
        self._stop.set()

    def _listen(self, contact: float) -> None:
        """Listen again and again, each time from the last contact on."""
        pause = _SHORTEST_PAUSE
        while not self._stop.is_set():
            try:
                for event in self.engine.image_events(time.monotonic() - contact):
                    contact, pause = time.monotonic(), _SHORTEST_PAUSE
                    self._found_again()
                    self._pass_on(event)
            except ImgloadError as error:
                if timed_out(error):
                    contact, pause = time.monotonic(), _SHORTEST_PAUSE
                    self._found_again()
                    continue
                self._lose(error)
                pause = min(2 * pause, _LONGEST_PAUSE)
            self._stop.wait(pause)
            if self._lost and not self._refuses and self._answers():
                self._found_again()

    def _pass_on(self, event: ImageEvent) -> None:
        if self._stop.is_set():
            return
        if event.name or event.target:
            self.tell(Heard(self.engine, event))
        else:
            self._look()

    def _lose(self, error: ImgloadError) -> None:
        """Tell it once; an engine's own words have no cause, a connection's trouble has one."""
        self._refuses = error.__cause__ is None
        if not self._lost and not self._stop.is_set():
            self._lost = True
            self.tell(Lost(self.engine, error))

    def _found_again(self) -> None:
        if self._lost and not self._stop.is_set():
            self._lost = False
            self.tell(Back(self.engine))

    def _answers(self) -> bool:
        at = self.engine.endpoint
        try:
            probe(Candidate(at.kind, at.url, at.origin, explicit=True, tls=at.tls))
        except EngineError:
            return False
        return True

    def _poll(self) -> None:
        """Look again and again: an older Docker is silent about BuildKit's builds."""
        pause = _SHORTEST_PAUSE
        while not self._stop.wait(pause):
            began = time.monotonic()
            self._look()
            pause = max(_SHORTEST_PAUSE, _SHARE * (time.monotonic() - began))

    def _look(self) -> None:
        """Tell what names lead elsewhere than when last looked."""
        with self._looking:
            try:
                found = self.engine.names(self.references)
            except ImgloadError:
                return  # the other thread tells that the engine is lost
            before, self._names = self._names, found
        for name, target in found.items():
            if before.get(name) != target and not self._stop.is_set():
                self.tell(Heard(self.engine, ImageEvent(name, target), seen=True))
