"""The labels by which a node records the images that imgload loaded."""

import time
from pathlib import Path

import pytest

from imgload.clusters.nodes.containerd import label_commands, parse_labels
from imgload.clusters.nodes.node import Node
from imgload.oci.digest import Digest
from tests.unit.fakes import RUNNING, LocalEngine

NAME = "docker.io/library/app:dev"
FIRST, SECOND = Digest.of(b"first"), Digest.of(b"second")


def marked(folder: Path, loaded: list[tuple[str, Digest]], ctr: str = "") -> list[str]:
    """Return what ctr was called with."""
    log = folder / "log"
    engine = LocalEngine(folder, {"ctr": f'echo "$*" >>{log}\n{ctr}'})
    Node("kind-worker", engine, RUNNING).label(loaded)
    return log.read_text().splitlines()


def test_mark_labels_each_config_with_name_and_time(tmp_path: Path) -> None:
    """Through a real shell; parse_marks reads the labels back."""
    loaded = [(NAME, FIRST), ("ghcr.io/me/db@sha256:" + "0" * 64, SECOND)]
    calls = [line.split() for line in marked(tmp_path, loaded)]
    assert [call[:5] for call in calls] == [
        ["-n", "k8s.io", "content", "label", str(config)] for _, config in loaded
    ]
    for (name, _), call in zip(loaded, calls, strict=True):
        assert parse_labels(call[5]) == {name: pytest.approx(time.time(), abs=30)}


def test_a_label_that_fails_does_not_stop_the_others(tmp_path: Path) -> None:
    """The config of an image that was not imported does not exist."""
    loaded = [(NAME, FIRST), (NAME, SECOND)]
    assert len(marked(tmp_path, loaded, "exit 1")) == 2


def test_no_images_need_no_command() -> None:
    """For example where the image ID is unknown before the transfer."""
    assert label_commands([], 1.0) == []


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
def test_parse_marks_ignores_other_labels(labels: str, expected: dict[str, float]) -> None:
    """They surround imgload's, in any order."""
    assert parse_labels(labels) == expected
