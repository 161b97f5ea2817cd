"""Run calls in parallel, on daemon threads: Ctrl-C must not wait for them."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Sequence
from functools import partial
from typing import Generic, TypeVar

from imgload.core.errors import EngineFailed, ImgloadError

S = TypeVar("S")
T = TypeVar("T")
MAX_PARALLEL = 64
"""Calls in parallel: enough for the nodes of any local cluster, and not a thousand execs."""
_POLL_SECONDS = 0.2


class Task(Generic[T]):
    """A call on a thread of its own."""

    _value: T

    def __init__(self, call: Callable[[], T]) -> None:
        self._call = call
        self._error: BaseException | None = None
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()

    def _run(self) -> None:
        try:
            self._value = self._call()
        except BaseException as error:  # noqa: BLE001 - raised again by result()
            self._error = error

    def wait_at_most(self, seconds: float) -> None:
        self._thread.join(seconds)

    @property
    def done(self) -> bool:
        return not self._thread.is_alive()

    def wait(self) -> None:
        """Wait for the call to end; a signal interrupts the wait."""
        while self._thread.is_alive():
            self._thread.join(_POLL_SECONDS)

    def result(self) -> T:
        """Wait for the call to end, and return its value or raise its error."""
        self.wait()
        if self._error is not None:
            raise self._error
        return self._value


def result_or_error(call: Callable[[], T]) -> T | ImgloadError:
    """Return the result of a call, or the ImgloadError that it raises."""
    try:
        return call()
    except ImgloadError as error:
        return error


def in_parallel(calls: Sequence[Callable[[], T]]) -> list[T]:
    """Return the results in order, or raise the first error in order once all calls have ended."""
    if len(calls) == 1:
        return [calls[0]()]
    tasks: list[Task[T]] = []
    for call in calls:
        if len(tasks) >= MAX_PARALLEL:
            tasks[-MAX_PARALLEL].wait()
        tasks.append(Task(call))
    for task in tasks:
        task.wait()
    return [task.result() for task in tasks]


def call_each(
    function: Callable[[S], T], items: Sequence[S], seconds: float
) -> list[tuple[S, T | ImgloadError]]:
    """Call a function with each item in parallel; return each item with the result or the error.

    A call that is still running after `seconds` yields EngineFailed; its thread is abandoned.
    """
    tasks = [Task(partial(result_or_error, partial(function, item))) for item in items]
    deadline = time.monotonic() + seconds
    for task in tasks:
        task.wait_at_most(max(0.0, deadline - time.monotonic()))
    late = EngineFailed(f"no answer within {seconds:.0f} seconds")
    results = [task.result() if task.done else late for task in tasks]
    return list(zip(items, results, strict=True))
