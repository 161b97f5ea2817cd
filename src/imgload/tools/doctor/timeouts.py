"""Questions side by side, none of which may hold up the others for long."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from functools import partial
from typing import TypeVar

from imgload.core.errors import EngineFailed, ImgloadError
from imgload.core.parallel import Task, outcome

T = TypeVar("T")


def answers(calls: Sequence[Callable[[], T]], seconds: float) -> list[T | ImgloadError]:
    """Run all calls at once; return each one's answer, or the error that stands in its place.

    Args:
        calls: to run.
        seconds: for all of them; what takes longer is left behind.

    """
    tasks = [Task(partial(outcome, call)) for call in calls]
    deadline = time.monotonic() + seconds
    for task in tasks:
        task.settle(max(0.0, deadline - time.monotonic()))
    late = EngineFailed(f"no answer within {seconds:.0f} seconds")
    return [task.result() if task.done else late for task in tasks]
