"""Untrusted text reaches the terminal without control characters."""

import re
import sys
from collections.abc import Callable
from datetime import UTC, datetime
from types import SimpleNamespace

import click
import pytest
from hypothesis import given
from hypothesis import strategies as st

from imgload.cli import dropin, registry
from imgload.cli.environment import show_clusters, show_diagnosis
from imgload.cli.images import show_listing, show_pruned
from imgload.cli.output import show_built, show_json, show_report, watching
from imgload.cli.process import sanitize, style
from imgload.cli.watch import show_watched
from imgload.clusters.listing import ClusterInfo, ClusterList, EngineInfo, NodeInfo
from imgload.clusters.nodes.proof import Proof
from imgload.core.errors import NodeError
from imgload.loader.events import BytesSent, NodeDone, Note, SendingEnded, SendingStarted
from imgload.loader.report import ImageResult, NodeResult, Report
from imgload.oci.digest import Digest
from imgload.oci.platform import Platform
from imgload.tools.doctor.finding import Diagnosis, Finding
from imgload.tools.inventory.base import NodeImage
from imgload.tools.inventory.images import ListedImage, Listing
from imgload.tools.inventory.prune import Kept, NodePruned, PruneReport
from imgload.tools.remote_registry.configure import NodeWiring
from imgload.tools.watch.watch import WatchedLoad
from tests.unit.cli.conftest import Run

EVIL = "e\x1b]0;pwned\x07\x1b[2J\x1b[8mvil\x9b1m\u202e\r\x08[red]\x00"
ID = Digest.of(b"app")
PROOF = Proof(name=True, image_id=True, diff_ids=True, unpacked=True, cri=True)
OURS = re.compile(r"\x1b\[[0-9;]*[A-Za-z]|\x1b\[\?25[lh]")
"""What our styles and rich's bars write."""
_OTHERS = ("\x1b[2J", "\x1b[8m", "\x1b]", "\x08", "\x9b")


def harmless(text: str) -> bool:
    """Whether `EVIL` was printed as text only, among styles of our own."""
    assert "vil" in text
    plain = OURS.sub("", text).replace("\n", "").replace("\r", "")
    return plain.isprintable() and not any(code in text for code in _OTHERS)


def _image() -> NodeImage:
    names = (EVIL,)
    return NodeImage(ID, names, loaded_as=names, since=1.0, size=1, own_size=1, in_use=False)


def _report() -> Report:
    good = NodeResult(EVIL, "full", PROOF, 1 << 20, 1.0)
    bad = NodeResult(EVIL, None, error=NodeError(EVIL, hint=EVIL))
    return Report((ImageResult(EVIL, ID, EVIL, Platform("linux", "amd64"), (good, bad)),))


def _clusters() -> None:
    engine = EngineInfo("docker", EVIL, EVIL)
    node = NodeInfo(EVIL, EVIL, EVIL)
    cluster = ClusterInfo(EVIL, "kind", EVIL, current=True, engine=engine, nodes=(node,))
    show_clusters(ClusterList((cluster,), (engine,)))


def _listing() -> None:
    image = ListedImage(EVIL, ID, {EVIL: _image()}, drift=False)
    show_listing(Listing((image,), {EVIL: 1}, {EVIL: NodeError(EVIL)}))


def _pruned() -> None:
    node = NodePruned(EVIL, (_image(),), (Kept(_image(), EVIL),), 1, NodeError(EVIL, hint=EVIL))
    show_pruned(PruneReport((node,), dry_run=True))


def _doctor() -> None:
    show_diagnosis(Diagnosis((Finding("nodes", "problem", EVIL, EVIL),)))


def _registry() -> None:
    wiring = NodeWiring(EVIL, (EVIL,))
    hosting = SimpleNamespace(note=EVIL)
    report: object = SimpleNamespace(
        registry=EVIL, names=(EVIL,), nodes=(wiring,), hosting=hosting, notes=(EVIL,), ok=True
    )
    registry.show_nodes(report)  # type: ignore[arg-type]


def _progress() -> None:
    result = NodeResult(EVIL, "full", PROOF, 1, 1.0)
    with watching(silent=False) as on_event:
        on_event(Note(EVIL))
        on_event(SendingStarted(EVIL, (EVIL,), 1 << 20))
        on_event(Note(EVIL))
        on_event(BytesSent(EVIL, 1))
        on_event(SendingEnded(EVIL))
        on_event(NodeDone(EVIL, result))


def _watch() -> None:
    show_watched(Note(EVIL), "text")
    at = datetime.now(UTC)
    show_watched(WatchedLoad(at, (EVIL,), 1.0, error=NodeError(EVIL, hint=EVIL)), "text")


def _dropin() -> None:
    dropin._Console().warn(EVIL)  # noqa: SLF001


PRINTS: dict[str, Callable[[], None]] = {
    "clusters": _clusters,
    "images": _listing,
    "prune": _pruned,
    "doctor": _doctor,
    "registry": _registry,
    "load": lambda: show_report(_report(), quiet=False),
    "skaffold": lambda: show_built(_report()),
    "progress": _progress,
    "watch": _watch,
    "drop-in": _dropin,
}


@pytest.mark.parametrize("terminal", [False, True])
@pytest.mark.parametrize("what", PRINTS)
def test_no_command_prints_escapes_of_untrusted_text(
    what: str,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
    *,
    terminal: bool,
) -> None:
    """Labels, names, paths, and whatever engines, kubectl and builders say."""
    monkeypatch.setattr(sys.stdout, "isatty", lambda: terminal)
    monkeypatch.setattr(sys.stderr, "isatty", lambda: terminal)
    monkeypatch.setenv("COLUMNS", "300")
    with click.Context(click.Command("x"), color=terminal).scope():
        PRINTS[what]()
    captured = capsys.readouterr()
    assert harmless(captured.out + captured.err)


@given(st.text())
def test_sanitize_keeps_only_text_and_line_ends(text: str) -> None:
    """Other characters become replacement characters, one for one."""
    assert sanitize(text).replace("\n", "").isprintable()
    assert len(sanitize(text)) == len(text)


@given(st.text(), st.text())
def test_sanitize_keeps_the_escapes_of_styles(text: str, styled: str) -> None:
    """No other text can contain them: their marker is random."""
    written = sanitize(f"{text}{style(styled, fg='red')}")
    start, _, rest = written.partition("\x1b[31m")
    assert start == sanitize(text)
    assert rest == f"{sanitize(styled)}\x1b[0m"


@pytest.mark.parametrize("arguments", [("load", f"--{EVIL}"), (EVIL,), ("load", EVIL)])
def test_a_usage_error_prints_no_escapes(run: Run, arguments: tuple[str, ...]) -> None:
    """Arguments of a script are untrusted."""
    outcome = run(*arguments)
    assert outcome.status == 2
    assert harmless(outcome.stderr)


def test_json_output_escapes_names(
    capsys: pytest.CaptureFixture[str],
) -> None:
    """It is ASCII."""
    show_json({"name": EVIL})
    printed = capsys.readouterr().out
    assert printed.isascii()
    assert "\\u001b" in printed


@pytest.mark.parametrize("name", [f"app:{ID.hex}", f"app@{ID}", f"<none:was=app:{ID.hex}>"])
def test_a_digest_in_a_name_is_shortened(
    name: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Skaffold names each build by its image ID; JSON has all digits."""
    monkeypatch.setattr(sys.stdout, "isatty", lambda: True)
    monkeypatch.setenv("COLUMNS", "80")
    listing = Listing((ListedImage(name, ID, {"a": _image()}, drift=False),), {"a": 1}, {})
    show_listing(listing)
    printed = capsys.readouterr().out
    assert ID.hex[:13] not in printed
    assert sum(ID.short in line for line in printed.splitlines()) == 1
    assert listing.to_json()["images"][0]["reference"] == name


def test_a_build_for_skaffold_is_reported_on_one_line(capsys: pytest.CaptureFixture[str]) -> None:
    """Not on one for each of its names and nodes."""
    nodes = tuple(NodeResult(f"n{i}", "full", PROOF, 1 << 20, 1.0) for i in range(3))
    names = ("app:dev", f"app:{ID.hex}", f"docker.io/library/app:{ID.hex}")
    images = [ImageResult(n, ID, "docker", Platform("linux", "amd64"), nodes) for n in names]
    show_built(Report(tuple(images)))
    [line] = capsys.readouterr().err.splitlines()
    assert "3 nodes" in line
    assert ID.hex not in line


def test_completion_scripts_are_not_changed_by_sanitize() -> None:
    """A tab would be."""
    from click.shell_completion import get_completion_class  # noqa: PLC0415

    for shell in ("bash", "zsh", "fish"):
        kind = get_completion_class(shell)
        assert kind is not None
        source = kind(click.Command("x"), {}, "imgload", "_X").source()
        assert sanitize(source) == source
