"""The time that a run may take."""

import contextlib
import time
from collections.abc import Iterator

import attrs

from benchmarks.plan import Part


@attrs.define
class Clock:
    """Seconds that a run may take, and that rounds took for their weight, by engine and size."""

    limit: float
    _rates: dict[str, dict[int, float]] = attrs.field(factory=dict)
    _started: float = attrs.field(factory=time.monotonic)

    @property
    def elapsed(self) -> float:
        """Seconds since the beginning."""
        return time.monotonic() - self._started

    def allows(self, part: Part, engine: str) -> bool:
        """Whether one more such round will fit, as far as can be foreseen."""
        return self.elapsed + self.expected(part, engine) < self.limit

    def expected(self, part: Part, engine: str) -> float:
        """Seconds that a round will take, by the quickest of the nearest size so far."""
        rates = self._rates.get(engine, {})
        size = max((size for size in rates if size <= part.size), default=None)
        return 0.0 if size is None else rates[size] * part.weight

    def took(self, part: Part, engine: str, seconds: float) -> None:
        """Note how long a round took."""
        rates = self._rates.setdefault(engine, {})
        rate = seconds / part.weight
        rates[part.size] = min(rate, rates.get(part.size, rate))

    @contextlib.contextmanager
    def timing(self, part: Part, engine: str) -> Iterator[None]:
        """Note how long a round takes."""
        begun = self.elapsed
        yield
        self.took(part, engine, self.elapsed - begun)
