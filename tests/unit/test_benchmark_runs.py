"""How the benchmarks go about their measuring; no engine takes part."""

from __future__ import annotations

import os
from types import SimpleNamespace
from typing import TYPE_CHECKING, cast

import pytest

from benchmarks import contestants
from benchmarks.measure import Usage, measure
from tests.lab import Cluster, Engine, Spec

if TYPE_CHECKING:
    from pathlib import Path


@pytest.fixture
def podman() -> Engine:
    """As much of an engine as a contestant asks before it runs a command."""
    daemon = SimpleNamespace(pid=None)
    return cast("Engine", SimpleNamespace(name="podman", daemon=daemon, environ=dict))


def test_an_archive_is_flushed_within_its_time(
    podman: Engine, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What `save` wrote is not brought to the disk for nothing before kind reads it."""
    flushes: list[bool] = []

    def measured(*_args: object, flush: bool) -> tuple[Usage, str]:
        flushes.append(flush)
        return Usage(1, 1, 1, 1), ""

    monkeypatch.setattr(contestants, "measure", measured)
    cluster = Cluster(Spec(name="c", engine="podman"), podman, [])
    archive = contestants.Archive(podman, tmp_path, "1", tmp_path / "kind")
    assert archive.feed(["app:dev"], cluster).seconds == 2
    assert flushes == [True, False]


@pytest.mark.parametrize(("flush", "times"), [(True, 1), (False, 0)])
def test_a_flush_can_be_left_out(
    *, flush: bool, times: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It comes before the command otherwise."""
    flushed: list[bool] = []
    monkeypatch.setattr(os, "sync", lambda: flushed.append(True))
    measure(["true"], os.environ, tmp_path, None, flush=flush)
    assert len(flushed) == times
