"""Reports on stdout, progress on stderr, and a bar for each node on a terminal."""

import io
import re
import sys
import threading
import time
from collections.abc import Callable

import attrs
import pytest

from imgload.cli.output import show_report, watching
from imgload.clusters.nodes.proof import Proof
from imgload.core.errors import ImportFailed, NodeNotRunning
from imgload.loader.events import (
    BytesSent,
    Event,
    ImageFound,
    NodeDone,
    Note,
    SendingEnded,
    SendingStarted,
)
from imgload.loader.report import Action, ImageResult, NodeResult, Report
from imgload.oci.digest import Digest
from imgload.oci.platform import Platform

ID, OLD = Digest.of(b"config"), Digest.of(b"old")
PROOF = Proof(name=True, image_id=True, diff_ids=True, unpacked=True, cri=True)
GOOD = NodeResult("kind-worker", "full", PROOF, 98 << 20, 2.64)
BAD = NodeResult("kind-worker2", None, error=NodeNotRunning("it is paused", hint="unpause it"))
NAME = "docker.io/library/app:dev"


def report(*nodes: NodeResult, name: str = NAME, dry_run: bool = False) -> Report:
    return Report((ImageResult(name, ID, "docker", Platform("linux", "amd64"), nodes),), dry_run)


@pytest.fixture
def shown(capsys: pytest.CaptureFixture[str]) -> "Shown":
    """Give a function that returns the lines a report is shown as."""
    return Shown(capsys)


@attrs.frozen
class Shown:
    """Shows a report: results are on stdout, notes and the failures of `--quiet` on stderr."""

    capsys: pytest.CaptureFixture[str]

    def __call__(self, made: Report, *, quiet: bool = False) -> list[str]:
        show_report(made, quiet=quiet)
        captured = self.capsys.readouterr()
        assert captured.out == "" or not quiet
        assert quiet or all(line.startswith("note: ") for line in captured.err.splitlines())
        return re.sub(r"\x1b\[[0-9;]*m", "", captured.out + captured.err).splitlines()


def test_a_successful_load_is_reported_on_two_lines(shown: Shown) -> None:
    """As in the README."""
    assert shown(report(GOOD)) == [
        f"{NAME} {ID.short}",
        "  ✓ kind-worker: loaded, 98 MiB in 2.6 s; verified",
    ]


@pytest.mark.parametrize(
    ("action", "words"),
    [("present", "already there"), ("tagged", "tagged"), ("delta", "loaded"), ("full", "loaded")],
)
def test_each_action_has_its_text(shown: Shown, action: Action, words: str) -> None:
    """Without a size if nothing was sent."""
    [_, line] = shown(report(NodeResult("n", action, PROOF)))
    assert line == f"  ✓ n: {words}; verified"


@pytest.mark.parametrize(
    ("action", "words"),
    [
        ("present", "already there"),
        ("tagged", "would be tagged"),
        ("delta", "would be sent in part"),
        ("full", "would be sent"),
    ],
)
def test_a_dry_run_claims_no_verification(shown: Shown, action: Action, words: str) -> None:
    """It prints no check mark."""
    [_, line] = shown(report(NodeResult("n", action), dry_run=True))
    assert line == f"  - n: {words}"


@pytest.mark.parametrize(
    ("size", "amount"), [(0, ""), (18, " (less than 64 KiB)"), (3 << 20, " (3 MiB)")]
)
def test_a_dry_run_prints_the_missing_bytes(shown: Shown, size: int, amount: str) -> None:
    """But no few bytes: the archive around them, which is larger, has no size yet."""
    [_, line] = shown(report(NodeResult("n", "full", bytes_missing=size), dry_run=True))
    assert line == f"  - n: would be sent{amount}"


def test_a_node_without_crictl_is_not_called_verified_by_cri(shown: Shown) -> None:
    """CRI's word is claimed only where CRI gave it."""
    [_, line] = shown(report(attrs.evolve(GOOD, proof=attrs.evolve(PROOF, cri=None))))
    assert line.endswith("; verified without CRI")


@pytest.mark.parametrize(
    "proof", [None, attrs.evolve(PROOF, unpacked=False), attrs.evolve(PROOF, cri=False)]
)
def test_an_unverified_node_is_not_called_verified(shown: Shown, proof: Proof | None) -> None:
    """Even if it has no error."""
    made = report(attrs.evolve(GOOD, proof=proof))
    assert not made.ok
    [_, line] = shown(made)
    assert "✓" not in line
    assert "; verified" not in line


def test_the_replaced_image_is_reported(shown: Shown) -> None:
    """Running pods keep the old image."""
    [_, line] = shown(report(attrs.evolve(GOOD, replaced=OLD)))
    assert f", replaced {OLD.short}; verified" in line


def test_a_failure_has_a_message_and_a_hint(shown: Shown) -> None:
    """The other nodes are listed as well."""
    assert shown(report(GOOD, BAD))[2:] == [
        "  ✗ kind-worker2: it is paused",
        "      try: unpause it",
    ]


def test_a_failure_without_a_hint_has_no_try_line(shown: Shown) -> None:
    """`try:` with nothing behind it helps nobody."""
    lines = shown(report(attrs.evolve(GOOD, error=ImportFailed("no"))))
    assert lines[1:] == ["  ✗ kind-worker: no"]


def test_a_dry_run_reports_failures(shown: Shown) -> None:
    """What could not be asked is not planned."""
    assert "  ✗ kind-worker2: it is paused" in shown(report(BAD, dry_run=True))


def test_quiet_reports_failures_only(shown: Shown) -> None:
    """With the images that they belong to."""
    assert shown(report(GOOD, BAD), quiet=True) == [
        f"{NAME} {ID.short}",
        "  ✗ kind-worker2: it is paused",
        "      try: unpause it",
    ]
    assert shown(report(GOOD), quiet=True) == []


def test_a_latest_tag_is_warned_about(shown: Shown) -> None:
    """The commonest surprise: loaded, and ErrImagePull (kind's known issues)."""
    latest = "docker.io/library/app:latest"
    [note] = [line for line in shown(report(GOOD, name=latest)) if line.startswith("note: ")]
    assert latest in note
    assert "IfNotPresent" in note
    assert shown(report(GOOD, name=latest), quiet=True) == []


@pytest.mark.parametrize("name", [NAME, "docker.io/library/latest:dev", f"app@{ID}"])
def test_other_tags_are_not_warned_about(shown: Shown, name: str) -> None:
    """Only the tag counts."""
    assert not [line for line in shown(report(GOOD, name=name)) if "note" in line]


def test_an_image_without_an_id_is_reported_by_its_name(shown: Shown) -> None:
    """The transfer broke before the ID was known."""
    [image] = report(BAD).images
    unknown = attrs.evolve(image, image_id=None)
    assert shown(Report((unknown,)))[0] == NAME


@pytest.mark.parametrize(
    ("said", "line"),
    [
        ("it is paused", "  ✗ kind-worker: it is paused"),
        ("kind-worker is paused", "  ✗ kind-worker is paused"),
        ("kind-worker: a shell in it failed", "  ✗ kind-worker: a shell in it failed"),
        ("kind-worker2 is paused", "  ✗ kind-worker: kind-worker2 is paused"),
    ],
)
def test_the_line_of_a_failure_names_the_node_once(shown: Shown, said: str, line: str) -> None:
    """Many errors start with its name."""
    failed = NodeResult("kind-worker", None, error=NodeNotRunning(said))
    assert line in shown(report(failed))


Captured = pytest.CaptureFixture[str]


def load_of(node: str, *, ok: bool = True) -> list[Event]:
    """Return the events of a load into one node."""
    error = None if ok else ImportFailed("no")
    return [
        SendingStarted(node, ("app:dev", f"db:{ID.hex}"), 3 << 20),
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
        f"note: it is slow\nsending app:dev, db:{ID.short}… (3 MiB) to kind-worker\n",
    )


def test_silent_progress_prints_nothing(capsys: Captured) -> None:
    """For --quiet and --output json."""
    with watching(silent=True) as on_event:
        for event in [FOUND, Note("it is slow"), *load_of("kind-worker")]:
            on_event(event)
    assert capsys.readouterr() == ("", "")


class Terminal(io.StringIO):
    """A terminal that records its output."""

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
    """Below the names of the images. It shows the phase, and the outcome at the end."""
    terminal = to_terminal()
    with watching(silent=False) as on_event:
        for event in load_of("worker-a"):
            on_event(event)
            time.sleep(0.15)  # it is drawn ten times a second
        for event in load_of("worker-b", ok=False):
            on_event(event)
    drawn = terminal.drawn
    phases = re.findall(r"worker-a (\w+)", drawn)
    assert list(dict.fromkeys(phases)) == [
        "saving",
        "transferring",
        "unpacking",
        "verifying",
        "done",
    ]
    assert "worker-b failed" in drawn
    assert "3 MiB of 3 MiB" in drawn
    lines = [line.rstrip() for line in re.split(r"[\r\n]+", drawn) if line]
    assert lines[0] == f"app:dev, db:{ID.short}…"
    assert lines[1].startswith("worker-a saving ")


@pytest.mark.parametrize("columns", [60, 80])
def test_progress_fits_into_the_terminal(
    to_terminal: MakeTerminal, monkeypatch: pytest.MonkeyPatch, columns: int
) -> None:
    monkeypatch.setenv("COLUMNS", str(columns))
    terminal, node = to_terminal(), f"{'long-' * 20}worker"
    with watching(silent=False) as on_event:
        for event in (SendingStarted(node, ("team/" * 20,), 3 << 30), *load_of(node)):
            on_event(event)
    lines = [line for line in re.split(r"[\r\n]+", terminal.drawn) if line]
    assert any("worker done" in line for line in lines)
    assert max(map(len, lines)) <= columns


@pytest.mark.parametrize("variables", [{"TERM": "dumb"}, {"CI": "true"}])
def test_progress_is_plain_lines_on_a_dumb_terminal_and_in_ci(
    to_terminal: MakeTerminal, monkeypatch: pytest.MonkeyPatch, variables: dict[str, str]
) -> None:
    terminal = to_terminal()
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    with watching(silent=False) as on_event:
        for event in load_of("worker-a"):
            on_event(event)
    assert terminal.getvalue() == f"sending app:dev, db:{ID.short}… (3 MiB) to worker-a\n"


def test_progress_never_exceeds_its_total(to_terminal: MakeTerminal) -> None:
    """The size of a transfer is an estimate: 128 bytes of layers come in a tar of 10 KiB."""
    terminal = to_terminal()
    with watching(silent=False) as on_event:
        on_event(SendingStarted("worker-a", ("app:dev",), 128))
        for _ in range(10):
            on_event(BytesSent("worker-a", 1 << 10))
        on_event(SendingEnded("worker-a"))
    amounts = re.findall(r"(\d+) (K?i?B) of (\d+) (K?i?B)", terminal.drawn)
    assert amounts
    assert all((sent, unit) == (total, of) for sent, unit, total, of in amounts)


@pytest.mark.parametrize("columns", [60, 80, 200])
def test_long_names_are_shortened_to_the_terminal_but_digests_are_not(
    shown: Shown, monkeypatch: pytest.MonkeyPatch, columns: int
) -> None:
    """In a pipe, names are complete, for grep."""
    name, node = f"registry.example/{'team/' * 20}app:dev", f"{'long-' * 20}worker"
    made = report(attrs.evolve(GOOD, node=node), name=name)
    assert shown(made)[0] == f"{name} {ID.short}"
    monkeypatch.setattr(sys.stdout, "isatty", lambda: True)
    monkeypatch.setenv("COLUMNS", str(columns))
    title, line = shown(made)
    assert title.endswith(f"app:dev {ID.short}")
    assert len(title) <= columns
    assert len(line) <= columns
    assert line.endswith("worker: loaded, 98 MiB in 2.6 s; verified")


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
    last = terminal.drawn.rpartition("worker-a done")
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
    assert [node for node in nodes if f"{node} done" not in drawn] == []
