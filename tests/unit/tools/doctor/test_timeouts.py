"""Calls that may fail or hang."""

from __future__ import annotations

import threading

from imgload.core.errors import EngineFailed, EngineUnreachable
from imgload.tools.doctor.timeouts import call_each


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
