"""Calls in parallel, on daemon threads."""

import sys
import threading
import time
from functools import partial

import pytest

from imgload.core.errors import EngineFailed, EngineUnreachable, NodeError
from imgload.core.parallel import MAX_PARALLEL, Task, call_each, in_parallel, result_or_error


def test_in_parallel_returns_results_in_order() -> None:
    """Each waits for all the others: one after another they would wait forever."""
    barrier = threading.Barrier(5, timeout=5)

    def call(number: int) -> int:
        barrier.wait()
        return number

    assert in_parallel([lambda n=n: call(n) for n in range(5)]) == [0, 1, 2, 3, 4]  # type: ignore[misc]


def test_in_parallel_accepts_no_calls() -> None:
    """A cluster without nodes."""
    assert in_parallel([]) == []


def test_one_call_needs_no_thread() -> None:
    """The commonest case is the cheapest."""
    assert in_parallel([threading.current_thread]) == [threading.current_thread()]


def test_the_first_error_in_order_is_raised_when_all_have_ended() -> None:
    """One failing node does not stop the rest (kind stops, k3d #900 hangs)."""
    ended = []

    def fail_soon() -> None:
        raise ValueError("second")

    def fail_late() -> None:
        time.sleep(0.1)
        raise ValueError("first")

    def end_last() -> None:
        time.sleep(0.2)
        ended.append(True)

    with pytest.raises(ValueError, match="first"):
        in_parallel([fail_late, fail_soon, end_last])
    assert ended == [True]


def test_an_error_of_one_call_alone_is_raised() -> None:
    """As of several."""
    with pytest.raises(ZeroDivisionError):
        in_parallel([lambda: 1 // 0])


def test_a_value_that_is_an_error_is_not_raised() -> None:
    """What is returned is returned."""
    error = ValueError("a value")
    assert Task(lambda: error).result() is error
    assert in_parallel([lambda: error, lambda: error]) == [error, error]


def test_none_is_a_value() -> None:
    """Sources answer None where they lack an image."""
    assert in_parallel([lambda: None, lambda: None]) == [None, None]


def test_a_task_raises_the_error_of_its_call() -> None:
    """With its own traceback."""
    with pytest.raises(ZeroDivisionError):
        Task(lambda: 1 // 0).result()


def test_a_task_raises_system_exit() -> None:
    """An on_event that calls sys.exit is no IndexError."""
    with pytest.raises(SystemExit):
        Task(lambda: sys.exit(3)).result()


def test_settle_has_a_time_limit() -> None:
    """An import that does not end must not hold up Ctrl-C."""
    release = threading.Event()
    task = Task(release.wait)
    start = time.monotonic()
    task.wait_at_most(0.05)
    assert time.monotonic() - start < 1
    release.set()
    assert task.result() is True


def test_outcome_returns_only_imgload_errors() -> None:
    """A failing node is reported with the others; a programming error is raised."""
    error = NodeError("kind-worker is paused")

    def fail() -> int:
        raise error

    assert result_or_error(fail) is error
    assert result_or_error(lambda: 3) == 3
    with pytest.raises(ZeroDivisionError):
        result_or_error(lambda: 1 // 0)


def test_in_parallel_limits_the_number_of_threads() -> None:
    """Each is an exec: an engine would be asked for a thousand at the same moment."""
    guard, running, most = threading.Lock(), [0], [0]

    def call(number: int) -> int:
        with guard:
            running[0] += 1
            most[0] = max(most[0], running[0])
        time.sleep(0.002)
        with guard:
            running[0] -= 1
        return number

    assert in_parallel([partial(call, n) for n in range(1000)]) == [*range(1000)]
    assert 1 < most[0] <= MAX_PARALLEL


def test_call_each_returns_a_result_or_an_error_in_time() -> None:
    """A call that fails or hangs does not affect the others."""
    never, error = threading.Event(), EngineUnreachable("gone")

    def fail() -> bool:
        raise error

    calls = [lambda: True, fail, never.wait]
    (_, good), (_, bad), (item, late) = call_each(lambda call: call(), calls, 0.2)
    never.set()
    assert (good, bad, item) == (True, error, calls[2])
    assert isinstance(late, EngineFailed)
    assert "no answer within" in late.message
