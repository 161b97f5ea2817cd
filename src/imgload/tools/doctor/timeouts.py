"""Calls in parallel, with one time limit for all."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from functools import partial
from typing import TypeVar

from imgload.core.errors import EngineFailed, ImgloadError
from imgload.core.parallel import Task, result_or_error

S = TypeVar("S")
T = TypeVar("T")


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
