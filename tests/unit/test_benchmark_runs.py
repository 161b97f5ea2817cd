"""Measurements and runs of the benchmarks, without engines."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import sys
from itertools import count, pairwise
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import attrs
import pytest

from benchmarks import __main__ as program
from benchmarks import contestants
from benchmarks.bench import Bench
from benchmarks.clock import Clock
from benchmarks.contestants import Sample
from benchmarks.measure import Failed, Usage, measure
from benchmarks.plan import STANDARD, Part, place
from benchmarks.results import Key, Results
from benchmarks.run import Run
from benchmarks.sites import SITES
from tests.lab import Cluster, Engine, Lab, Spec
from tests.lab.docker import Docker
from tests.lab.machine import Paths


@pytest.fixture
def podman() -> Engine:
    """The attributes of an engine that a contestant uses before it runs a command."""
    daemon = SimpleNamespace(pid=None)
    return cast("Engine", SimpleNamespace(name="podman", daemon=daemon, environ=dict))


def test_the_disk_is_flushed_before_save_and_not_before_load(
    podman: Engine, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Otherwise the archive would be written to the disk outside the measured time."""
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
def test_a_flush_is_optional(
    *, flush: bool, times: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """By default it precedes the command."""
    flushed: list[bool] = []
    monkeypatch.setattr(os, "sync", lambda: flushed.append(True))
    measure(["true"], os.environ, tmp_path, None, flush=flush)
    assert len(flushed) == times


@pytest.mark.parametrize("left", ["", "127.0.0.1:5/imgload/ab:cd"])
def test_a_tag_that_imgload_leaves_in_the_engine_is_a_failure(
    left: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Tags of an earlier program do not count."""
    tags = ["app:dev", "127.0.0.1:4/imgload/ef:01"]
    engine = cast("Engine", SimpleNamespace(name="docker", cli=lambda *_: "\n".join(tags)))
    imgload = contestants.Imgload(engine, tmp_path)

    def measured(*_: object) -> tuple[Usage, str]:
        tags.append(left)
        return Usage(1, 1, 1, 1), '{"images": []}'

    monkeypatch.setattr(contestants.Contestant, "measure", measured)
    with pytest.raises(Failed, match=left) if left else contextlib.nullcontext():
        imgload.load([], Cluster(Spec(name="c", engine="docker"), engine, []))


@attrs.frozen
class _Bench:
    """An engine whose rounds end as given in `ends`."""

    engine: str
    results: Results
    ends: list[type[BaseException] | None]

    def round(self, part: Part) -> None:
        if end := self.ends.pop(0):
            raise end("oh")
        key = Key(self.engine, part.size, "cold", "kind")
        self.results.samples[key].append(Sample(Usage(1, 1, 1, 1), 1))


@pytest.fixture
def run(tmp_path: Path) -> Run:
    """Three rounds on each of two engines."""
    parts = [Part(1, 3, ("cold",), ("kind", "imgload"), ("docker", "docker28"))]
    return Run(parts, Results(), Clock(float("inf")), tmp_path / "run.json")


def _go(
    run: Run, monkeypatch: pytest.MonkeyPatch, **ends: list[type[BaseException] | None]
) -> None:
    """Execute the run; an engine without `ends` cannot be prepared."""

    def prepare(_lab: Lab, engine: str, *_: object) -> _Bench:
        run.results.names[engine] = {"kind": "kind", "imgload": "imgload"}
        return _Bench(engine, run.results, ends[engine])

    monkeypatch.setattr(Bench, "prepare", prepare)
    run.go(cast("Lab", None), Path())


def test_an_error_fails_only_its_round(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    """Any exception; an engine that cannot be prepared is skipped, too."""
    _go(run, monkeypatch, docker=[None, OSError, None])
    (samples,) = run.results.samples.values()
    assert len(samples) == 2
    assert run.results.failures == [
        "Docker 28, containerd store, preparing: KeyError('docker28')",
        "Docker 20.10, graphdriver, 1 MB, cold (with kind, imgload): OSError('oh')",
    ]


def test_an_interrupted_run_keeps_its_results(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    """It lists the skipped rounds with their contestants."""
    with pytest.raises(KeyboardInterrupt):
        _go(run, monkeypatch, docker=[None, KeyboardInterrupt], docker28=[None])
    assert run.json
    kept = Results.of_json(json.loads(run.json.read_text()))
    assert [len(samples) for samples in kept.samples.values()] == [1, 1]
    assert len(kept.skipped) == 4
    left = "Docker 28, containerd store, 1 MB, cold (with kind, imgload): interrupted"
    assert kept.skipped[-1] == left


def test_an_interrupted_program_prints_its_results(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """With the status of an interrupted program."""

    def interrupted(_options: object, results: Results) -> None:
        results.skipped.append("the rest")
        raise KeyboardInterrupt

    monkeypatch.setattr(sys, "argv", ["benchmarks"])
    monkeypatch.setattr(signal, "signal", lambda *_: None)
    monkeypatch.setattr(program, "_run", interrupted)
    assert program.main() == 130
    assert "- left out: the rest" in capsys.readouterr().out


@pytest.mark.parametrize("size", [60, 600, 3000])
def test_imgload_and_its_rival_alternate_in_going_first(size: int) -> None:
    """From round to round, and from engine to engine for cases with one round."""
    firsts = {engine: _firsts(engine, size) for engine in SITES}
    assert {orders[0] for orders in firsts.values() if orders} == {"imgload", "rival"}
    for orders in firsts.values():
        assert all(before != after for before, after in pairwise(orders))


def _firsts(engine: str, size: int) -> list[str]:
    """Return whether imgload or its rival goes first, in each round of both."""
    rounds = {size: count(place(STANDARD, size, engine))}
    rival = SITES[engine].rival
    sides: dict[str, Any] = dict.fromkeys([rival, "archive", "ctr", "imgload"])
    cluster = cast("Cluster", None)
    bench = Bench(engine, SITES[engine], cluster, None, sides, Results(), rounds, Path())
    orders = [
        bench.order(part) for part in STANDARD if part.size == size and engine in part.engines
    ]
    both = [order for order in orders if {rival, "imgload"} <= set(order)]
    return ["rival" if order.index(rival) < order.index("imgload") else "imgload" for order in both]


def test_an_image_is_built_on_the_labs_disk(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Below a root that is created if needed; content may come in pieces."""
    engine = Docker("docker", Paths(tmp_path / "root", tmp_path / "run"))
    seen: dict[str, bytes] = {}

    def cli(_engine: Engine, *words: str | Path) -> str:
        if words[0] == "build":
            context = cast("Path", words[-1])
            assert context.is_relative_to(tmp_path / "root")
            seen.update({path.name: path.read_bytes() for path in context.glob("layer*/*")})
        return "0"

    monkeypatch.setattr(Engine, "cli", cli)
    engine.build("app:dev", layers=[{"whole": b"ab"}, {"pieces": iter([b"c", b"d"])}])
    assert seen == {"whole": b"ab", "pieces": b"cd"}
    assert not list((tmp_path / "root").iterdir())
