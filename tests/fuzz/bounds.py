"""The limits for one input: processor time, resident memory, and wall time as a backstop."""

from __future__ import annotations

import ctypes
import resource
import signal
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from types import FrameType

SECONDS = 2.0
MEMORY = 80 << 20
_STUCK = 60.0
_STATUS = Path("/proc/self/status")
_CLEAR = Path("/proc/self/clear_refs")


class TooMuchError(AssertionError):
    """An input exceeded the limit of time or memory."""


@contextmanager
def bounded(seconds: float = SECONDS, memory: int = MEMORY) -> Iterator[None]:
    """Fail if the block exceeds the limits; memory includes that of C libraries."""
    before = _resident()
    try:
        with _within(seconds):
            yield
    finally:
        _compare(_peak() - before, memory)


def _compare(grown: int, memory: int) -> None:
    if grown > memory:
        raise TooMuchError(f"took more than {memory >> 20} MiB: {grown >> 20}")


@contextmanager
def _within(seconds: float) -> Iterator[None]:
    """Limit the processor time, which does not depend on the machine's load."""

    def too_long(number: int, _frame: FrameType | None) -> None:
        limit = f"{seconds} s of the processor" if number == signal.SIGPROF else f"{_STUCK} s"
        raise TooMuchError(f"took more than {limit}")

    timers = {signal.SIGPROF: signal.ITIMER_PROF, signal.SIGALRM: signal.ITIMER_REAL}
    limits = {signal.SIGPROF: seconds, signal.SIGALRM: _STUCK}
    handlers = {number: signal.signal(number, too_long) for number in timers}
    for number, timer in timers.items():
        signal.setitimer(timer, limits[number], 0.5)  # repeat, in case it is caught
    try:
        yield
    finally:
        for number, timer in timers.items():
            signal.setitimer(timer, 0)
            signal.signal(number, handlers[number])


def _resident() -> int:
    """Return the resident memory of this process in bytes, and reset its peak."""
    if not _CLEAR.exists():
        return _peak()
    _release_free_memory()
    _CLEAR.write_text("5")
    return _read("VmRSS")


def _release_free_memory() -> None:
    """Return free memory to the kernel, because its reuse would not be measured."""
    with suppress(AttributeError):  # not glibc
        ctypes.CDLL(None).malloc_trim(0)


def _peak() -> int:
    if _CLEAR.exists():
        return _read("VmHWM")
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak << 10


def _read(field: str) -> int:
    line = next(line for line in _STATUS.read_text().splitlines() if line.startswith(field))
    return int(line.split()[1]) << 10
