"""The note of a running server."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from imgload.core.errors import UsageError
from imgload.tools.serve.running import Running, claim, find_running, stop_running

_SERVE = """
import time
from imgload.tools.serve.running import Running, claim
with claim(Running(__import__("os").getpid(), ("app",), ("kind",))):
    print("claimed", flush=True)
    time.sleep(60)
"""


@pytest.fixture(autouse=True)
def folder(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))


def test_a_running_server_is_found_and_stopped() -> None:
    """A killed one is not: the kernel releases its lock."""
    assert find_running() is None
    assert not stop_running()
    with subprocess.Popen([sys.executable, "-c", _SERVE], stdout=subprocess.PIPE) as process:
        assert process.stdout
        assert process.stdout.readline()
        assert find_running() == Running(process.pid, ("app",), ("kind",))
        with pytest.raises(UsageError, match="already runs"), claim(Running(os.getpid())):
            pass
        assert stop_running()
        assert process.wait(10) != 0
    assert find_running() is None


def test_the_note_is_empty_after_the_end() -> None:
    with claim(Running(os.getpid())):
        pass
    assert find_running() is None
