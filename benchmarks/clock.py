"""The time that a run may take."""

import contextlib
import time
from collections.abc import Iterator

import attrs

from benchmarks.plan import Part


@attrs.define
class Clock:
    """Seconds that a run may take, and that the last round of each kind took."""

    limit: float
    _took: dict[tuple[int, str], float] = attrs.field(factory=dict)
    _started: float = attrs.field(factory=time.monotonic)

    @property
    def elapsed(self) -> float:
        """Seconds since the beginning."""
        return time.monotonic() - self._started

    def allows(self, part: Part, engine: str) -> bool:
        """Whether one more such round will fit; the first is only asked to begin in time."""
        return self.elapsed + self._took.get((id(part), engine), 0.0) < self.limit

    @contextlib.contextmanager
    def timing(self, part: Part, engine: str) -> Iterator[None]:
        """Note how long a round takes."""
        begun = self.elapsed
        yield
        self._took[id(part), engine] = self.elapsed - begun
