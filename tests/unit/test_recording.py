"""The lines on the screen after a recorded run, whose progress bars erase themselves."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from docs.recording import run_in_terminal, screen_lines


@pytest.mark.parametrize(
    ("output", "lines"),
    [
        ("one\r\ntwo\r\n", ["one", "two"]),
        ("bar 1\r\x1b[2Kbar 2\r\x1b[2Kdone\n", ["done"]),
        ("a\nbar\nbar\n\x1b[2A\x1b[2Kb\n\x1b[2K", ["a", "b"]),
        ("\x1b[?25l\x1b[32mgreen\x1b[0m\x1b[?25h\n", ["\x1b[32mgreen\x1b[0m"]),
        ("", []),
    ],
)
def test_screen_lines_are_those_at_the_end(output: str, lines: list[str]) -> None:
    assert screen_lines(output) == lines


def test_a_command_runs_in_a_terminal(tmp_path: Path) -> None:
    code = "import sys; print(sys.stdout.isatty() and sys.stderr.isatty())"
    output = run_in_terminal(f"{sys.executable} -c '{code}'", tmp_path, {})
    assert screen_lines(output) == ["True"]
