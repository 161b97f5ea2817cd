"""The rounds on one engine: what is done in which order."""

import sys
from collections.abc import Callable, Collection
from pathlib import Path

import attrs

from benchmarks.contestants import Contestant, Imgload, Kind, rival
from benchmarks.floor import floor
from benchmarks.images import Builder, Image
from benchmarks.measure import Failed
from benchmarks.nodes import check, forget
from benchmarks.results import Results, Side
from benchmarks.sites import SITES, WORDS, Site
from tests.lab import Cluster, Lab, LabError

Work = Callable[[Contestant, Builder], None]


@attrs.frozen
class Task:
    """What to measure, on images of `size` bytes, and where the results go."""

    size: int
    cases: Collection[str]
    results: Results


@attrs.frozen
class Bench:
    """One engine with its clusters and both contestants."""

    engine: str
    site: Site
    one: Cluster
    three: Cluster | None
    kind: Kind
    imgload: Imgload
    task: Task

    @classmethod
    def prepare(cls, lab: Lab, engine: str, parent: Path, task: Task) -> "Bench":
        """Bring up what the engine needs."""
        site = SITES[engine]
        one = site.single(lab)
        three = site.triple(lab, engine) if "three" in task.cases else None
        folder = parent / engine
        folder.mkdir()
        imgload = Imgload(one.engine, folder)
        kind = rival(lab, one.engine, one, folder)
        task.results.rivals[engine] = kind.name
        return cls(engine, site, one, three, kind, imgload, task)

    def round(self, number: int) -> None:
        """Measure every case once for each contestant, who take turns in being first."""
        builder = Builder(self.one.engine, self.task.size)
        order: list[Contestant] = [self.kind, self.imgload]
        try:
            builder.anew()
            for contestant in order if number % 2 else reversed(order):
                self._attempt(self._one_node, contestant, builder)
                self._attempt(self._three_nodes, contestant, builder)
        finally:
            self._clean(builder)

    def _attempt(self, work: Work, contestant: Contestant, builder: Builder) -> None:
        try:
            work(contestant, builder)
        except (Failed, LabError) as error:
            self._failed(contestant.name, error)

    def _failed(self, who: str, error: Exception) -> None:
        self.task.results.failures.append(f"{self.site.label}, {who}: {error}")
        _say(f"{self.site.label}, {who}: failed: {error}")

    def _one_node(self, contestant: Contestant, builder: Builder) -> None:
        if not set(self.task.cases) - {"three"}:
            return
        contestant.begin()
        forget(self.one, builder.built)
        self._time("cold", contestant, builder.built[-1], self.one)
        if "rebuild" in self.task.cases:
            self._rebuilds(contestant, builder)
        if "present" in self.task.cases:
            self._time("present", contestant, builder.built[-1], self.one)
        self._end(contestant, builder)

    def _rebuilds(self, contestant: Contestant, builder: Builder) -> None:
        if self.site.remembers and contestant is self.imgload:
            self._time("learning", contestant, builder.rebuild(), self.one)
        self._time("rebuild", contestant, builder.rebuild(), self.one)

    def _end(self, contestant: Contestant, builder: Builder) -> None:
        if contestant is self.imgload:
            if len(tags := builder.tags()) > 1:
                raise Failed(f"tags are left in the engine: {tags}")
            if "rebuild" in self.task.cases:
                self._floor(builder)

    def _floor(self, builder: Builder) -> None:
        seconds = floor(builder, self.one)
        self.task.results.floors[self.engine].append(seconds)
        _say(f"{self.site.label}, {WORDS['rebuild']}: floor {seconds:.2f} s")

    def _three_nodes(self, contestant: Contestant, builder: Builder) -> None:
        if self.three:
            contestant.begin()
            forget(self.three, builder.built)
            self._time("three", contestant, builder.built[-1], self.three)
            forget(self.three, builder.built)

    def _time(self, case: str, who: Contestant, image: Image, cluster: Cluster) -> None:
        sample = who.load(image, cluster)
        check(cluster, image)
        if case in self.task.cases or case == "learning":
            side: Side = "imgload" if who is self.imgload else "kind"
            self.task.results.samples[self.engine, case, side].append(sample)
        told = f" {sample.action}" if sample.action else ""
        usage = sample.usage
        _say(f"{self.site.label}, {WORDS[case]}: {who.name} {usage.seconds:.2f} s{told}")

    def _clean(self, builder: Builder) -> None:
        for cluster in (self.one, self.three):
            if cluster:
                try:
                    forget(cluster, builder.built)
                except (Failed, LabError) as error:
                    self._failed("cleaning up", error)
        builder.clear()


def _say(what: str) -> None:
    print(what, file=sys.stderr, flush=True)
