"""A shell that gets its command later, with the real shell of this machine."""

from __future__ import annotations

import threading
from collections.abc import Iterable, Sequence
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from imgload.clusters.nodes.waiting_shell import WaitingShell
from imgload.core.errors import EngineFailed
from imgload.engines.base import Chunk, ExecResult, OpenInput
from tests.unit.fakes import LocalEngine

WORDS = st.text(st.characters(min_codepoint=1, max_codepoint=126), max_size=30)


class Watched(LocalEngine):
    """Notices the end of a command."""

    def __init__(self, folder: Path) -> None:
        super().__init__(folder)
        self._ended = threading.Event()

    def exec(
        self, container: str, argv: Sequence[str], stdin: Iterable[Chunk] | None = None
    ) -> ExecResult:
        try:
            return super().exec(container, argv, stdin)
        finally:
            self._ended.set()

    def wait_for_end(self) -> None:
        assert self._ended.wait(5)


@pytest.fixture
def engine(tmp_path: Path) -> Watched:
    return Watched(tmp_path)


@given(words=st.lists(WORDS, max_size=5))
def test_a_command_gets_its_words_unchanged(
    tmp_path_factory: pytest.TempPathFactory, words: list[str]
) -> None:
    engine = LocalEngine(tmp_path_factory.getbasetemp())
    result = WaitingShell(engine, "node").run(["printf", r"%s\0", *words], None)
    assert result
    assert result.stdout.decode().split("\0")[:-1] == (words or [""])


def test_a_command_gets_its_input_after_its_words(engine: Watched) -> None:
    content = bytes(range(256)) * 4096
    result = WaitingShell(engine, "node").run(["cat"], OpenInput([content, content]))
    assert result == ExecResult(0, 2 * content, b"")


def test_status_and_errors_are_those_of_the_command(engine: Watched) -> None:
    result = WaitingShell(engine, "node").run(["sh", "-c", "echo why >&2; exit 7"], None)
    assert result == ExecResult(7, b"", b"why\n")


def test_a_shell_that_is_not_used_ends(engine: Watched) -> None:
    WaitingShell(engine, "node").close()
    engine.wait_for_end()


@pytest.mark.parametrize("words", [["true", "x" * 100_000], ["true", "\N{SNOWMAN}"]])
def test_a_shell_does_not_take_every_command(engine: Watched, words: list[str]) -> None:
    assert WaitingShell(engine, "node").run(words, None) is None
    engine.wait_for_end()


def test_a_shell_without_input_takes_no_command(
    engine: Watched, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Watched, "streams_exec", False)
    assert WaitingShell(engine, "node").run(["true"], None) is None
    engine.wait_for_end()


def test_a_shell_that_did_not_start_takes_no_command(
    engine: Watched, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: object) -> ExecResult:
        raise EngineFailed("no shell")

    monkeypatch.setattr(engine, "exec", fail)
    assert WaitingShell(engine, "node").run(["true"], None) is None
