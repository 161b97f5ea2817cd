"""A contestant's turn: the cases of a round, one after the other."""

import sys
from collections.abc import Mapping, Sequence

import attrs

from benchmarks.contestants import Contestant, Imgload, Sample
from benchmarks.floor import Floor, cold_floor, rebuild_floor
from benchmarks.images import Builder, Image
from benchmarks.nodes import check, forget
from benchmarks.phases import profile
from benchmarks.results import Key, Results
from benchmarks.sites import LIMITS, ONE_NODE, SITES, layers_case, words
from tests.lab import Cluster


@attrs.frozen
class Shared:
    """The images that every contestant loads in a round."""

    builder: Builder
    family: Sequence[Image]
    deep: Sequence[Image]
    real: Mapping[str, Image]


@attrs.frozen
class Turn:
    """One contestant with one round's images on an engine's clusters; `size` in MB."""

    engine: str
    size: int
    cases: Sequence[str]
    who: str
    contestant: Contestant
    images: Shared
    one: Cluster
    three: Cluster | None
    results: Results

    def go(self) -> None:
        """Go through the cases; one that fails ends only those that build on it."""
        for work in self._one_node, self._real, self._family, self._layers, self._several_nodes:
            with self.results.noting(f"{SITES[self.engine].label}, {self.who}"):
                work()

    def _one_node(self) -> None:
        if not set(self.cases) & set(ONE_NODE):
            return
        self._time("cold", [self.images.builder.newest], self._cleared(self.one))
        if "rebuild" in self.cases:
            self._rebuilds()
        if "present" in self.cases:
            self._time("present", [self.images.builder.newest], self.one)
        if "tag" in self.cases:
            with self.images.builder.renamed() as image:
                self._time("tag", [image], self.one)
        if self._is_imgload:
            self._floors()

    def _rebuilds(self) -> None:
        builder = self.images.builder
        if SITES[self.engine].remembers and self._is_imgload:
            self._time("learning", [builder.rebuild()], self.one)
        self._time("rebuild", [builder.rebuild()], self.one)

    def _floors(self) -> None:
        builder = self.images.builder
        if "rebuild" in self.cases:
            least = rebuild_floor(builder, self.one)
            self.results.phases[self.engine, self.size].append(self._profile())
            self._add_floor("rebuild", least)
        if "cold" in self.cases:
            self._cold_floor("cold", builder.newest)

    def _profile(self) -> dict[str, float]:
        assert isinstance(self.contestant, Imgload)
        return profile(self.contestant, self.images.builder, self.one)

    def _cold_floor(self, case: str, image: Image) -> None:
        cluster, pushes = self._cleared(self.one), SITES[self.engine].pushes
        self._add_floor(case, cold_floor(self.contestant.engine, image, cluster, pushes=pushes))

    def _add_floor(self, case: str, least: Floor) -> None:
        self.results.floors[self.engine, self.size, case].append(least)
        _say(f"{self._label(case)}: floor {least.push:.2f} and {least.load:.2f} s")

    def _real(self) -> None:
        for case, image in self.images.real.items():
            self._time(case, [image], self._cleared(self.one))
            if self._is_imgload and case in LIMITS:
                self._cold_floor(case, image)

    def _family(self) -> None:
        if "ten" in self.cases:
            self._time("ten", self.images.family, self._cleared(self.one))

    def _layers(self) -> None:
        for image in self.images.deep:
            case = layers_case(len(image.diff_ids))
            self._time(case, [image], self._cleared(self.one))

    def _several_nodes(self) -> None:
        for case, count in ("two", 2), ("three", 3):
            if self.three and case in self.cases:
                part = attrs.evolve(self.three, nodes=self._cleared(self.three).nodes[:count])
                self._time(case, [self.images.builder.newest], part)

    def _cleared(self, cluster: Cluster) -> Cluster:
        """Return a cluster as if nothing had been loaded ever."""
        self.contestant.begin()
        forget(cluster, self.images.builder.images)
        return cluster

    def _time(self, case: str, images: Sequence[Image], cluster: Cluster) -> None:
        for image in images:
            image.warm()
        sample = self.contestant.load(images, cluster)
        for image in images:
            check(cluster, image)
        if case in self.cases or case not in ONE_NODE:
            self.results.samples[Key(self.engine, self.size, case, self.who)].append(sample)
        _say(f"{self._label(case)}: {self.who} {_told(sample)}")

    def _label(self, case: str) -> str:
        return f"{SITES[self.engine].label}, {self.size} MB, {words(case)}"

    @property
    def _is_imgload(self) -> bool:
        return isinstance(self.contestant, Imgload)


def _told(sample: Sample) -> str:
    return f"{sample.usage.seconds:.2f} s, {sample.sent / 1e6:.2f} MB {sample.action or ''}"


def _say(what: str) -> None:
    print(what, file=sys.stderr, flush=True)
