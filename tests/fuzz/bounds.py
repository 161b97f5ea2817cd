"""What one input may cost: processor time, wall time as a backstop, and resident memory."""

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
    """An input took more time or memory than any input may."""


@contextmanager
def bounded(seconds: float = SECONDS, memory: int = MEMORY) -> Iterator[None]:
    """Fail where the block takes more; memory is counted by the kernel, so C libraries' too."""
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
    """Processor time, which does not depend on what else the machine does."""

    def too_long(number: int, _frame: FrameType | None) -> None:
        what = f"{seconds} s of the processor" if number == signal.SIGPROF else f"{_STUCK} s"
        raise TooMuchError(f"took more than {what}")

    timers = {signal.SIGPROF: signal.ITIMER_PROF, signal.SIGALRM: signal.ITIMER_REAL}
    limits = {signal.SIGPROF: seconds, signal.SIGALRM: _STUCK}
    handlers = {number: signal.signal(number, too_long) for number in timers}
    for number, timer in timers.items():
        signal.setitimer(timer, limits[number], 0.5)  # again, should it be swallowed
    try:
        yield
    finally:
        for number, timer in timers.items():
            signal.setitimer(timer, 0)
            signal.signal(number, handlers[number])


def _resident() -> int:
    """Return the bytes that this process holds, and have the peak counted from here."""
    if not _CLEAR.exists():
        return _peak()
    _give_back()
    _CLEAR.write_text("5")
    return _read("VmRSS")


def _give_back() -> None:
    """Have what is free go back to the kernel, or it would be taken again without being seen."""
    with suppress(AttributeError):  # not glibc
        ctypes.CDLL(None).malloc_trim(0)


def _peak() -> int:
    if _CLEAR.exists():
        return _read("VmHWM")
    most = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return most if sys.platform == "darwin" else most << 10


def _read(field: str) -> int:
    line = next(line for line in _STATUS.read_text().splitlines() if line.startswith(field))
    return int(line.split()[1]) << 10
