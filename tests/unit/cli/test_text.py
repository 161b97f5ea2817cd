"""The report as text, on stderr."""

import re

import attrs
import pytest

from imgload.cli.text import show_report
from imgload.core.errors import ImportFailed, NodeNotRunning
from imgload.loader.plan import Action
from imgload.loader.proof import Proof
from imgload.loader.report import ImageResult, NodeResult, Report
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
    """Shows a report; nothing of it may be on stdout."""

    capsys: pytest.CaptureFixture[str]

    def __call__(self, made: Report, *, quiet: bool = False) -> list[str]:
        show_report(made, quiet=quiet)
        captured = self.capsys.readouterr()
        assert captured.out == ""
        return re.sub(r"\x1b\[[0-9;]*m", "", captured.err).splitlines()


def test_a_successful_load_is_reported_on_two_lines(shown: Shown) -> None:
    """As in the README."""
    assert shown(report(GOOD)) == [
        f"{NAME} {ID.short}",
        "  ✓ kind-worker: loaded, 98 MiB in 2.6 s; verified by containerd and CRI",
    ]


@pytest.mark.parametrize(
    ("action", "words"),
    [("present", "already there"), ("tagged", "tagged"), ("delta", "loaded"), ("full", "loaded")],
)
def test_each_action_has_its_text(shown: Shown, action: Action, words: str) -> None:
    """Without a size if nothing was sent."""
    [_, line] = shown(report(NodeResult("n", action, PROOF)))
    assert line == f"  ✓ n: {words}; verified by containerd and CRI"


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


def test_a_node_without_crictl_is_not_called_verified_by_cri(shown: Shown) -> None:
    """CRI's word is claimed only where CRI gave it."""
    [_, line] = shown(report(attrs.evolve(GOOD, proof=attrs.evolve(PROOF, cri=None))))
    assert line.endswith("; verified by containerd (no crictl on the node)")


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
