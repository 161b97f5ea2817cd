"""Progress: plain lines without a terminal, a bar for each node on one."""

import io
import re
import sys
import threading
from collections.abc import Callable

import pytest

from imgload.cli.progress import watching
from imgload.core.errors import ImportFailed
from imgload.loader.events import (
    BytesSent,
    Event,
    ImageFound,
    NodeDone,
    Note,
    SendingEnded,
    SendingStarted,
)
from imgload.loader.proof import Proof
from imgload.loader.report import NodeResult
from imgload.oci.digest import Digest

PROOF = Proof(name=True, image_id=True, diff_ids=True, unpacked=True, cri=True)
ID = Digest.of(b"app")
Captured = pytest.CaptureFixture[str]


def load_of(node: str, *, ok: bool = True) -> list[Event]:
    """Return what is told of a load into one node."""
    error = None if ok else ImportFailed("no")
    return [
        SendingStarted(node, ("app:dev", "db:dev"), 3 << 20),
        *[BytesSent(node, 1 << 20)] * 3,
        SendingEnded(node),
        NodeDone("app:dev", NodeResult(node, "full", PROOF, error=error)),
    ]


FOUND = ImageFound("app:dev", ID, "docker", 3 << 20)


def test_progress_without_a_terminal_is_plain_lines(capsys: Captured) -> None:
    """One at the start of a transfer, one for each note, none for each chunk."""
    with watching(silent=False) as on_event:
        for event in [FOUND, Note("it is slow"), *load_of("kind-worker")]:
            on_event(event)
    assert capsys.readouterr() == (
        "",
        "note: it is slow\nsending app:dev, db:dev (3 MiB) to kind-worker\n",
    )


def test_silent_progress_prints_nothing(capsys: Captured) -> None:
    """For --quiet and --output json."""
    with watching(silent=True) as on_event:
        for event in [FOUND, Note("it is slow"), *load_of("kind-worker")]:
            on_event(event)
    assert capsys.readouterr() == ("", "")


class Terminal(io.StringIO):
    """Says that it is one, and keeps what is drawn on it."""

    def isatty(self) -> bool:
        return True

    @property
    def drawn(self) -> str:
        return re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", self.getvalue())


MakeTerminal = Callable[[], Terminal]


@pytest.fixture
def to_terminal(monkeypatch: pytest.MonkeyPatch) -> MakeTerminal:
    """Give a function that makes stderr a terminal."""
    monkeypatch.setenv("TERM", "xterm-256color")
    monkeypatch.setenv("COLUMNS", "120")
    for variable in ("NO_COLOR", "FORCE_COLOR", "TTY_COMPATIBLE", "TTY_INTERACTIVE"):
        monkeypatch.delenv(variable, raising=False)

    def make() -> Terminal:
        terminal = Terminal()
        monkeypatch.setattr(sys, "stderr", terminal)
        return terminal

    return make


def test_progress_on_a_terminal_is_a_bar_for_each_node(to_terminal: MakeTerminal) -> None:
    """It shows the outcome at the end."""
    terminal = to_terminal()
    with watching(silent=False) as on_event:
        for event in [FOUND, *load_of("worker-a"), *load_of("worker-b", ok=False)]:
            on_event(event)
    drawn = terminal.drawn
    assert "worker-a  done" in drawn
    assert "worker-b  failed" in drawn
    assert "3.0/3.0 MiB" in drawn


@pytest.mark.parametrize("before", [[], load_of("worker-a")])
def test_progress_prints_notes_verbatim(to_terminal: MakeTerminal, before: list[Event]) -> None:
    """Beside bars as well; [brackets] are no markup."""
    terminal = to_terminal()
    with watching(silent=False) as on_event:
        for event in [*before, Note("see [red]app[/red] [1]")]:
            on_event(event)
    assert "note: see [red]app[/red] [1]" in terminal.drawn


def test_a_tagged_node_has_no_bar(to_terminal: MakeTerminal) -> None:
    """There is nothing to watch."""
    terminal = to_terminal()
    with watching(silent=False) as on_event:
        on_event(NodeDone("app:dev", NodeResult("worker-a", "tagged", PROOF)))
    assert terminal.drawn == ""


def test_a_tagged_node_beside_a_loaded_one_has_no_bar(to_terminal: MakeTerminal) -> None:
    """It has no bar, and needs none."""
    terminal = to_terminal()
    with watching(silent=False) as on_event:
        for event in load_of("worker-a"):
            on_event(event)
        on_event(NodeDone("app:dev", NodeResult("worker-b", "tagged", PROOF)))
    assert "worker-b" not in terminal.drawn


def test_a_second_transfer_restarts_the_bar(to_terminal: MakeTerminal) -> None:
    """After a failed delta, the full load has the only bar of the node."""
    terminal = to_terminal()
    with watching(silent=False) as on_event:
        for event in [*load_of("worker-a")[:-1], *load_of("worker-a")]:
            on_event(event)
    last = terminal.drawn.rpartition("worker-a  done")
    assert last[1]
    assert last[0].rpartition("\r")[2].count("worker-a") == 0


def test_an_interruption_stops_the_bars(to_terminal: MakeTerminal) -> None:
    """No thread draws over the output that follows Ctrl-C."""
    terminal = to_terminal()
    before = set(threading.enumerate())
    drawing: set[threading.Thread] = set()

    def interrupted() -> None:
        with watching(silent=False) as on_event:
            on_event(load_of("worker-a")[0])
            drawing.update(set(threading.enumerate()) - before)
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        interrupted()
    [thread] = drawing
    thread.join(2)
    assert not thread.is_alive()
    assert "worker-a" in terminal.drawn


def test_progress_accepts_events_from_several_threads(to_terminal: MakeTerminal) -> None:
    """The import of each node has its own."""
    terminal = to_terminal()
    nodes = [f"worker-{i}" for i in range(8)]
    with watching(silent=False) as on_event:
        feeders = [threading.Thread(target=lambda n=n: [*map(on_event, load_of(n))]) for n in nodes]
        for feeder in feeders:
            feeder.start()
        for feeder in feeders:
            feeder.join()
    drawn = terminal.drawn
    assert [node for node in nodes if f"{node}  done" not in drawn] == []
