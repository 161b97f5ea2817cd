"""A contestant's turn: the cases of a round, one after the other."""

import contextlib
import sys
import time
from collections.abc import Collection, Iterator, Mapping, Sequence

import attrs

from benchmarks.contestants import Contestant, Imgload, Sample
from benchmarks.floor import Floor, cold_floor, rebuild_floor
from benchmarks.images import Builder, Image
from benchmarks.nodes import check, forget
from benchmarks.phases import profile
from benchmarks.results import Key, Results
from benchmarks.sites import LIMITS, ONE_NODE, SERVE, SITES, layers_case, words
from tests.lab import Cluster
from tests.lab.pods import Pod

_PROGRAM = "/bin/busybox"
"""On every node."""


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
        works = self._one_node, self._real, self._family, self._layers, self._several_nodes
        for work in (*works, self._serve):
            with self.results.noting(f"{SITES[self.engine].label}, {self.who}"):
                work()

    def _one_node(self) -> None:
        if not set(self.cases) & set(ONE_NODE):
            return
        self.time("cold", [self.images.builder.newest], self._cleared(self.one))
        if "rebuild" in self.cases:
            self._rebuilds()
        if "present" in self.cases:
            self.time("present", [self.images.builder.newest], self.one)
        if "tag" in self.cases:
            with self.images.builder.renamed() as image:
                self.time("tag", [image], self.one)
        if self._is_imgload:
            self._floors()

    def _rebuilds(self) -> None:
        builder = self.images.builder
        if SITES[self.engine].remembers and self._is_imgload:
            self.time("learning", [builder.rebuild()], self.one)
        self.time("rebuild", [builder.rebuild()], self.one)

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
            if case not in self.cases:
                continue
            self.time(case, [image], self._cleared(self.one))
            if self._is_imgload and case in LIMITS:
                self._cold_floor(case, image)

    def _family(self) -> None:
        if "ten" in self.cases:
            self.time("ten", self.images.family, self._cleared(self.one))

    def _layers(self) -> None:
        for image in self.images.deep:
            case = layers_case(len(image.diff_ids))
            self.time(case, [image], self._cleared(self.one))

    def _several_nodes(self) -> None:
        for case, count in ("two", 2), ("three", 3):
            if self.three and case in self.cases:
                part = attrs.evolve(self.three, nodes=self._cleared(self.three).nodes[:count])
                self.time(case, [self.images.builder.newest], part)

    def _serve(self) -> None:
        """Go through the cases that end with the start of a container, in a pod that runs."""
        cases = set(self.cases) & set(SERVE)
        if not cases or not self.contestant.can_start:
            return
        (node,) = self.one.nodes
        pod = Pod.run(node)
        try:
            if cases != {"serve-real"}:
                with self._ready() as turn:
                    turn.starts(cases, pod)
            if "serve-real" in cases:
                with self._ready() as turn:
                    turn.time("serve-real", [self.images.real["real"]], self.one, pod)
        finally:
            pod.remove()

    @contextlib.contextmanager
    def _ready(self) -> Iterator["Turn"]:
        with self.contestant.ready(self._cleared(self.one)) as contestant:
            yield attrs.evolve(self, contestant=contestant)

    def starts(self, cases: Collection[str], pod: Pod) -> None:
        """Start containers of the newest build, and of one more."""
        self.time("serve-cold", [self.images.builder.newest], self.one, pod)
        if "serve-rebuild" in cases:
            if SITES[self.engine].remembers:  # as in `_rebuilds`, but not timed
                self.contestant.load([self.images.builder.rebuild()], self.one)
            self.time("serve-rebuild", [self.images.builder.rebuild()], self.one, pod)

    def _cleared(self, cluster: Cluster) -> Cluster:
        """Return a cluster as if nothing had been loaded ever."""
        self.contestant.begin()
        forget(cluster, self.images.builder.images)
        return cluster

    def time(
        self, case: str, images: Sequence[Image], cluster: Cluster, pod: Pod | None = None
    ) -> None:
        """Load images, and then start a container if there is a pod; add the sample."""
        for image in images:
            image.warm()
        sample = self.contestant.load(images, cluster)
        if pod:
            (image,) = images
            sample = sample.then(_started(pod, image))
        for image in images:
            check(cluster, image)
        if case in self.cases or case not in (*ONE_NODE, *SERVE):
            self.results.samples[Key(self.engine, self.size, case, self.who)].append(sample)
        _say(f"{self._label(case)}: {self.who} {_told(sample)}")

    def _label(self, case: str) -> str:
        return f"{SITES[self.engine].label}, {self.size} MB, {words(case)}"

    @property
    def _is_imgload(self) -> bool:
        return isinstance(self.contestant, Imgload)


def _started(pod: Pod, image: Image) -> float:
    """Start a container as the kubelet does; return the seconds, and stop it.

    It runs the node's busybox, since an image may have no program.
    """
    began = time.monotonic()
    container = pod.start(image.name, _PROGRAM)
    seconds = time.monotonic() - began
    pod.remove_container(container)
    return seconds


def _told(sample: Sample) -> str:
    return f"{sample.usage.seconds:.2f} s, {sample.sent / 1e6:.2f} MB {sample.action or ''}"


def _say(what: str) -> None:
    print(what, file=sys.stderr, flush=True)
