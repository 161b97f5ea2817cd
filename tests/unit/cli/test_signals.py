"""SIGINT, SIGTERM, and the exit of the parent."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from imgload.cli.app import handle_signals

CHILD = """
import sys, time
from pathlib import Path
from imgload.cli.app import handle_signals
from imgload.cli.skaffold import exit_with_parent
handle_signals()
exit_with_parent()
told = Path(sys.argv[1])
try:
    told.write_text("started")
    time.sleep(600)
except KeyboardInterrupt:
    time.sleep(0.3)
    told.write_text("cleaned")
"""


def test_a_second_signal_does_not_interrupt_the_cleanup(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Skaffold forwards the Ctrl-C of a terminal a second time."""
    handlers: dict[int, Callable[[int, None], None]] = {}
    monkeypatch.setattr(signal, "signal", handlers.__setitem__)
    handle_signals()
    with pytest.raises(KeyboardInterrupt):
        handlers[signal.SIGINT](signal.SIGINT, None)
    handlers[signal.SIGINT](signal.SIGINT, None)
    now = time.monotonic() + 2
    monkeypatch.setattr(time, "monotonic", lambda: now)
    with pytest.raises(KeyboardInterrupt):
        handlers[signal.SIGTERM](signal.SIGTERM, None)


@pytest.mark.parametrize(
    "stop",
    [
        ["INT"],
        ["INT", "INT", "TERM"],
        ["TERM", "INT"],
    ],
)
def test_each_signal_ends_the_process_after_its_cleanup(tmp_path: Path, stop: list[str]) -> None:
    """Even if SIGINT was ignored from the start, as in the background of a script."""
    told = tmp_path / "told"
    ignoring = ["sh", "-c", "trap '' INT; exec \"$@\"", "sh"]
    process = subprocess.Popen([*ignoring, sys.executable, "-c", CHILD, str(told)])
    _until(told, "started")
    for name in stop:
        process.send_signal(signal.Signals[f"SIG{name}"])
        time.sleep(0.05)
    assert process.wait(5) == 0
    assert told.read_text() == "cleaned"


def test_the_exit_of_the_parent_acts_like_a_signal(tmp_path: Path) -> None:
    """Skaffold sends SIGINT only to the shell, which may not forward it before it is killed."""
    told = tmp_path / "told"
    words = [sys.executable, "-c", CHILD, str(told)]
    shell = subprocess.Popen(["sh", "-c", '"$@"; true', "sh", *words])
    _until(told, "started")
    os.kill(shell.pid, signal.SIGKILL)
    shell.wait()
    _until(told, "cleaned")


def _until(path: Path, text: str) -> None:
    deadline = time.monotonic() + 10
    while not path.exists() or path.read_text() != text:
        assert time.monotonic() < deadline, f"{path} does not say {text}"
        time.sleep(0.02)
