"""How a node remembers what imgload loaded."""

import time
from pathlib import Path

import pytest

from imgload.clusters.nodes.containerd import mark_commands, parse_marks
from imgload.clusters.nodes.node import Node
from imgload.oci.digest import Digest
from tests.unit.fakes import RUNNING, LocalEngine

NAME = "docker.io/library/app:dev"
FIRST, SECOND = Digest.of(b"first"), Digest.of(b"second")


def marked(folder: Path, loaded: list[tuple[str, Digest]], ctr: str = "") -> list[str]:
    """Return what ctr was called with."""
    log = folder / "log"
    engine = LocalEngine(folder, {"ctr": f'echo "$*" >>{log}\n{ctr}'})
    Node("kind-worker", engine, RUNNING).mark(loaded)
    return log.read_text().splitlines()


def test_each_config_gets_a_label_with_its_name_and_the_time(tmp_path: Path) -> None:
    """Through a real shell; what is written is what is read."""
    loaded = [(NAME, FIRST), ("ghcr.io/me/db@sha256:" + "0" * 64, SECOND)]
    calls = [line.split() for line in marked(tmp_path, loaded)]
    assert [call[:5] for call in calls] == [
        ["-n", "k8s.io", "content", "label", str(config)] for _, config in loaded
    ]
    for (name, _), call in zip(loaded, calls, strict=True):
        assert parse_marks(call[5]) == {name: pytest.approx(time.time(), abs=30)}


def test_one_that_fails_stops_nothing(tmp_path: Path) -> None:
    """The image that was not imported is not there to be marked."""
    loaded = [(NAME, FIRST), (NAME, SECOND)]
    assert len(marked(tmp_path, loaded, "exit 1")) == 2


def test_nothing_loaded_is_no_command() -> None:
    """As where the image ID is not known before the transfer."""
    assert mark_commands([], 1.0) == []


@pytest.mark.parametrize(
    ("labels", "expected"),
    [
        ("-", {}),
        ("a=b,imgload.loaded/x=1700000000,c=d", {"x": 1.7e9}),
        ("imgload.loaded/x=12.345,imgload.loaded/y:1=13", {"x": 12.345, "y:1": 13.0}),
        ("imgload.loaded/x=soon", {}),
        ("imgload.loaded/=1", {}),
        (f"imgload.loaded/x={'9' * 40}", {}),
    ],
)
def test_only_what_is_written_like_a_mark_is_one(labels: str, expected: dict[str, float]) -> None:
    """Other labels stand around it, in any order."""
    assert parse_marks(labels) == expected
