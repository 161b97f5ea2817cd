"""Questions that may not be answered."""

from __future__ import annotations

import threading

from imgload.core.errors import EngineFailed, EngineUnreachable
from imgload.tools.doctor.timeouts import answers


def test_each_has_an_answer_or_an_error_in_time() -> None:
    """What fails or hangs keeps nobody else from answering."""
    never, error = threading.Event(), EngineUnreachable("gone")

    def fail() -> bool:
        raise error

    good, bad, late = answers([lambda: True, fail, never.wait], 0.2)
    never.set()
    assert (good, bad) == (True, error)
    assert isinstance(late, EngineFailed)
    assert "no answer within" in late.message
