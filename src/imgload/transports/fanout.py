"""Feeds one stream to several readers, in bounded memory; a failed reader stops no other."""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager

import attrs

from imgload.core.errors import ImgloadError
from imgload.engines.base import Chunk

_DEPTH = 4
"""Chunks that wait for one reader."""


class StreamAborted(ImgloadError):
    """The stream was cut off; the reader must discard the incomplete content."""


@attrs.define
class Feed:
    """One reader's end of the stream: iterate over it; call `leave` to stop reading."""

    _waiting: deque[Chunk] = attrs.field(factory=deque)
    _changed: threading.Condition = attrs.field(factory=threading.Condition)
    _complete: bool = False
    _aborted: bool = False
    left: bool = False

    def __iter__(self) -> Iterator[Chunk]:
        while (chunk := self._next()) is not None:
            yield chunk

    def _next(self) -> Chunk | None:
        with self._changing():
            self._changed.wait_for(lambda: self._waiting or self._complete or self._aborted)
            if self._aborted:
                raise StreamAborted("the stream was cut off at its source")
            return self._waiting.popleft() if self._waiting else None

    @contextmanager
    def _changing(self) -> Iterator[None]:
        with self._changed:
            yield
            self._changed.notify_all()

    def put(self, chunk: Chunk) -> None:
        """Add a chunk; wait while the reader is behind."""
        with self._changing():
            while len(self._waiting) >= _DEPTH and not self.left:
                self._changed.wait(0.2)
            if chunk and not self.left:
                self._waiting.append(chunk)

    def complete(self) -> None:
        """End the stream after the last chunk."""
        with self._changing():
            self._complete = True

    def abort(self) -> None:
        """Raise StreamAborted in the reader."""
        with self._changing():
            self._aborted = True

    def leave(self) -> None:
        """Stop reading; the other readers continue."""
        with self._changing():
            self.left = True
            self._waiting.clear()
