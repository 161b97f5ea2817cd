"""A run: every engine is prepared, and then the rounds come, whatever happens to one of them."""

from collections.abc import Iterator, Sequence
from pathlib import Path

import attrs

from benchmarks.bench import Bench
from benchmarks.clock import Clock
from benchmarks.plan import Part, schedule
from benchmarks.results import Results
from benchmarks.sites import SITES
from tests.lab import Lab


@attrs.frozen
class Run:
    """What is to be measured, for how long, and where the samples go."""

    parts: Sequence[Part]
    results: Results
    clock: Clock
    json: Path | None = None

    def go(self, lab: Lab, folder: Path) -> None:
        """Do all rounds for which there is time; an error costs only what it hits."""
        benches = dict(self._prepared(lab, folder))
        rounds = [(part, engine) for part, _, engine in schedule(self.parts) if engine in benches]
        for place, (part, engine) in enumerate(rounds):
            try:
                self._round(part, benches[engine])
            except KeyboardInterrupt:
                self._skip("interrupted", rounds[place:])
                raise
            finally:
                self._write()

    def _prepared(self, lab: Lab, folder: Path) -> Iterator[tuple[str, Bench]]:
        for engine in dict.fromkeys(engine for part in self.parts for engine in part.engines):
            with self.results.noting(f"{SITES[engine].label}, preparing"):
                yield engine, Bench.prepare(lab, engine, folder, self.parts, self.results)

    def _round(self, part: Part, bench: Bench) -> None:
        if not self.clock.allows(part, bench.engine):
            self._skip("no time", [(part, bench.engine)])
            return
        label = self._label(part, bench.engine)
        print(f"== {label}", flush=True)
        with self.results.noting(label), self.clock.timing(part, bench.engine):
            bench.round(part)

    def _skip(self, why: str, rounds: Sequence[tuple[Part, str]]) -> None:
        self.results.skipped += [f"{self._label(part, engine)}: {why}" for part, engine in rounds]

    def _write(self) -> None:
        self.results.machine["minutes"] = round(self.clock.elapsed / 60, 1)
        if self.json:
            self.results.write(self.json)

    def _label(self, part: Part, engine: str) -> str:
        there = self.results.names[engine]
        who = ", ".join(name for name in part.contestants_on(engine) if name in there)
        what = ", ".join([*part.cases, *part.alone])
        return f"{SITES[engine].label}, {part.size} MB, {what} (with {who})"
