"""The rounds on one engine."""

from collections.abc import Iterator, Mapping, Sequence
from functools import partial
from itertools import count
from pathlib import Path

import attrs

from benchmarks.archives import OCI, ArchiveBuilder
from benchmarks.contestants import Contestant, contestants
from benchmarks.images import Builder, Image
from benchmarks.nodes import forget
from benchmarks.plan import Part, place
from benchmarks.real import REAL, real_archive
from benchmarks.results import Results
from benchmarks.sites import SITES, Site
from benchmarks.turn import Shared, Turn
from tests.lab import Cluster, Engine, Lab

_THREE = {"two", "three"}
_TEN = 10


@attrs.frozen
class Bench:
    """One engine with its clusters and contestants, and the rounds to come by size."""

    engine: str
    site: Site
    one: Cluster
    three: Cluster | None
    contestants: dict[str, Contestant]
    results: Results
    rounds: Mapping[int, Iterator[int]]
    folder: Path

    @classmethod
    def prepare(
        cls, lab: Lab, engine: str, parent: Path, parts: Sequence[Part], results: Results
    ) -> "Bench":
        """Bring up what the engine needs for these parts."""
        site = SITES[engine]
        one = site.single(lab, engine)
        cases = {case for part in parts if engine in part.engines for case in part.cases}
        three = site.triple(lab, engine) if cases & _THREE else None
        folder = parent / engine
        folder.mkdir()
        found = contestants(lab, one.engine, one, folder, archives=bool(site.form))
        results.names[engine] = {who: each.name for who, each in found.items()}
        results.versions[engine] = _versions(one.engine, one)
        rounds = {part.size: count(place(parts, part.size, engine)) for part in parts}
        return cls(engine, site, one, three, found, results, rounds, folder)

    def round(self, part: Part) -> None:
        """Measure every case once for each contestant, who take turns (`order`)."""
        builder = self._builder(part.size * 10**6)
        try:
            images = self._build(builder, part)
            for who in self.order(part):
                self._turn(part, who, images).go()
        finally:
            self._clean(builder)

    def order(self, part: Part) -> list[str]:
        """Return who takes part, in every other round of a size the other way round."""
        order = [who for who in part.contestants_on(self.engine) if who in self.contestants]
        turned = len(order) > 1 and next(self.rounds[part.size]) % 2
        return order[::-1] if turned else order

    def _builder(self, size: int) -> Builder:
        engine, form = self.one.engine, self.site.form
        if form is None:
            return Builder(engine, size)
        return ArchiveBuilder(engine, size, folder=self.folder, form=form)

    def _build(self, builder: Builder, part: Part) -> Shared:
        if not {*part.cases, *part.alone} <= {*REAL, "serve-real"}:
            builder.anew()
        family = builder.family(_TEN) if "ten" in part.cases else []
        deep = builder.deep(self.site.layers) if "layers" in part.cases else []
        return Shared(builder, family, deep, self._real(builder, part))

    def _real(self, builder: Builder, part: Part) -> dict[str, Image]:
        """Return the real images by case; a store of plain layers makes no difference of zstd."""
        packages, form = self.one.engine.paths.cache, self.site.form or OCI
        make = partial(real_archive, packages, self.folder.parent, part.size, form)
        cases = [case for case in REAL if {case, f"serve-{case}"} & set(part.cases)]
        return {
            case: builder.add(make(case))
            for case in cases
            if case != "zstd" or self.site.keeps_compression
        }

    def _turn(self, part: Part, who: str, images: Shared) -> Turn:
        return Turn(
            self.engine,
            part.size,
            part.cases_of(who),
            who,
            self.contestants[who],
            images,
            self.one,
            self.three,
            self.results,
        )

    def _clean(self, builder: Builder) -> None:
        for cluster in (self.one, self.three):
            if cluster:
                with self.results.noting(f"{self.site.label}, cleaning up"):
                    forget(cluster, builder.images)
        builder.clear()


def _versions(engine: Engine, cluster: Cluster) -> dict[str, str]:
    """Versions of the engine, and of the containerd that its nodes run."""
    daemon = "{{.Version}}" if engine.name.startswith("podman") else "{{.Server.Version}}"
    node = cluster.nodes[0].exec("containerd", "--version").split()
    return {
        "engine": engine.cli("version", "--format", daemon).splitlines()[0].strip(),
        "containerd": next(word for word in node if word[:1].isdigit() or word[:2] == "v2"),
    }
