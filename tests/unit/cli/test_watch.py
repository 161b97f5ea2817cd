"""The exit status and the lines of ``imgload watch`` and ``imgload serve``."""

import re
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime

import pytest

from imgload.cli.serve import _show
from imgload.cli.watch import show_watched
from imgload.clusters.nodes.proof import Proof
from imgload.loader.report import ImageResult, NodeResult, Report
from imgload.oci.digest import Digest
from imgload.oci.platform import Platform
from imgload.tools.serve.store import NodePull
from imgload.tools.watch.watch import ClusterSelector, Watch, WatchedLoad
from tests.unit.cli.conftest import Run


class Interrupted(Watch):
    """A watch that the first Ctrl-C ends."""

    def __iter__(self) -> Iterator[WatchedLoad]:
        raise KeyboardInterrupt


@pytest.mark.parametrize(("busy", "status"), [(False, 0), (True, 130)])
def test_watch_exits_with_130_only_when_a_load_is_interrupted(
    run: Run, monkeypatch: pytest.MonkeyPatch, *, busy: bool, status: int
) -> None:
    """Between two loads, Ctrl-C is the normal end of a watch."""

    @contextmanager
    def opened(*_: object, **__: object) -> Iterator[Watch]:
        yield Interrupted([], ClusterSelector([], ()), [], busy=busy)

    monkeypatch.setattr(Watch, "open", opened)
    assert run("watch", "app").status == status


@pytest.mark.parametrize("columns", [80, 120])
def test_long_names_are_shortened_to_the_terminal(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, columns: int
) -> None:
    """The image ID and the result are complete."""
    monkeypatch.setattr(sys.stdout, "isatty", lambda: True)
    monkeypatch.setenv("COLUMNS", str(columns))
    name, image_id = f"registry.example/{'team/' * 20}app:dev", Digest.of(b"app")
    proof = Proof(name=True, image_id=True, diff_ids=True, unpacked=True, cri=True)
    nodes = (NodeResult("kind-worker", "full", proof, 1 << 20),)
    image = ImageResult(name, image_id, "docker", Platform("linux", "amd64"), nodes)
    show_watched(WatchedLoad(datetime.now(UTC), (name,), 1.0, Report((image,))), "text")
    _show(NodePull("kind-worker", name, image_id, 1 << 20, 1.0), "text")
    lines = re.sub(r"\x1b\[[0-9;]*m", "", capsys.readouterr().out).splitlines()
    assert len(lines) == 2
    assert all("app:dev " in line and f" {image_id.short}" in line for line in lines)
    assert max(map(len, lines)) <= columns
