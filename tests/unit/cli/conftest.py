"""The command, run in this process as the console script runs it."""

import signal
import sys
from collections.abc import Callable, Iterator

import attrs
import pytest

from imgload.cli.app import main
from imgload.core import trace


@attrs.frozen
class Outcome:
    """How a command ended."""

    status: int
    stdout: str
    stderr: str


Run = Callable[..., Outcome]


@pytest.fixture
def run(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> Iterator[Callable[..., Outcome]]:
    """Give a function that runs `imgload` with the arguments given."""
    monkeypatch.setattr(trace, "_write", None)  # which --verbose sets
    before = {n: signal.getsignal(n) for n in (signal.SIGTERM, signal.SIGINT, signal.SIGTTOU)}

    def run_it(*arguments: str) -> Outcome:
        monkeypatch.setattr(sys, "argv", ["imgload", *arguments])
        with pytest.raises(SystemExit) as ended:
            main()
        assert isinstance(ended.value.code, int)
        return Outcome(ended.value.code, *capsys.readouterr())

    yield run_it
    for number, handler in before.items():
        signal.signal(number, handler)
