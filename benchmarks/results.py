"""What was measured, as values and as JSON."""

import contextlib
import json
import sys
import traceback
from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from statistics import median
from typing import Any, NamedTuple

import attrs

from benchmarks.contestants import Sample
from benchmarks.floor import Floor
from benchmarks.measure import Failed, Usage
from benchmarks.sites import SITES, TARGET_SIZE, order
from tests.lab import LabError

_KEPT = ("machine", "versions", "names", "failures", "skipped")
Phases = dict[str, float]
"""Seconds of each phase of a load, in the order in which they come."""
Place = tuple[str, int]
"""An engine, and a size in MB."""
Case = tuple[str, int, str]
"""An engine, a size in MB, and a case."""


class Key(NamedTuple):
    """Which load it was; `size` in MB (10^6 bytes)."""

    engine: str
    size: int
    case: str
    who: str


@attrs.define
class Results:
    """All samples of a run, the floors by case, the profiles of rebuilds, and what failed."""

    samples: defaultdict[Key, list[Sample]] = attrs.field(factory=lambda: defaultdict(list))
    floors: defaultdict[Case, list[Floor]] = attrs.field(factory=lambda: defaultdict(list))
    phases: defaultdict[Place, list[Phases]] = attrs.field(factory=lambda: defaultdict(list))
    names: dict[str, dict[str, str]] = attrs.field(factory=dict)
    versions: dict[str, dict[str, str]] = attrs.field(factory=dict)
    machine: dict[str, Any] = attrs.field(factory=dict)
    failures: list[str] = attrs.field(factory=list)
    skipped: list[str] = attrs.field(factory=list)

    def fail(self, who: str, error: Exception) -> None:
        """Note what failed."""
        expected = isinstance(error, Failed | LabError)
        told = str(error) if expected else repr(error)
        self.failures.append(f"{who}: {told}")
        print(f"{who}: failed: {told}", file=sys.stderr, flush=True)
        if not expected:
            traceback.print_exception(error)

    @contextlib.contextmanager
    def noting(self, who: str) -> Iterator[None]:
        """Note an error instead of raising it, so that it costs the run nothing else."""
        try:
            yield
        except Exception as error:  # noqa: BLE001 - what was measured so far is worth more
            self.fail(who, error)

    def sizes(self) -> list[int]:
        """Return the sizes of the images, in MB."""
        return sorted({key.size for key in self.samples})

    def cases(self, engine: str, size: int) -> list[str]:
        """Return what was measured there, in the order of the tables."""
        found = {key.case for key in self.samples if key[:2] == (engine, size)}
        return sorted(found, key=order)

    def of(self, engine: str, size: int, case: str, who: str) -> Sequence[Sample]:
        """Return the samples, in the order of the rounds."""
        return self.samples.get(Key(engine, size, case, who), [])

    def duels(self, size: int) -> Iterator["Duel"]:
        """Yield the cases that imgload and its rival have both been through."""
        for engine, site in SITES.items():
            for case in self.cases(engine, size):
                measured = "rebuild" if case == "learning" else case
                rival = self.of(engine, size, measured, site.rival)
                imgload = self.of(engine, size, case, "imgload")
                if rival and imgload:
                    yield Duel(engine, size, case, rival, imgload)

    def to_json(self) -> dict[str, Any]:
        """Return everything."""
        rows = [
            {**key._asdict(), "samples": [attrs.asdict(sample) for sample in samples]}
            for key, samples in self.samples.items()
        ]
        floors = [
            {"engine": engine, "size": size, "case": case, "floors": list(map(attrs.asdict, found))}
            for (engine, size, case), found in self.floors.items()
        ]
        profiles = [
            {"engine": engine, "size": size, "phases": phases}
            for (engine, size), phases in self.phases.items()
        ]
        kept = {name: getattr(self, name) for name in _KEPT}
        return {**kept, "rows": rows, "floors": floors, "profiles": profiles}

    @classmethod
    def of_json(cls, document: dict[str, Any]) -> "Results":
        """Return what `to_json` was made of."""
        results = cls(**{name: document[name] for name in _KEPT})
        for row in document["rows"]:
            key = Key(**{name: row[name] for name in Key._fields})
            results.samples[key] = [_sample(**sample) for sample in row["samples"]]
        for row in document["floors"]:
            case = (row["engine"], row["size"], row["case"])
            results.floors[case] = [Floor(**floor) for floor in row["floors"]]
        for row in document["profiles"]:
            results.phases[row["engine"], row["size"]] = row["phases"]
        return results

    def write(self, path: Path) -> None:
        """Write a file as a whole, with one line for each row."""
        document = self.to_json()
        parts = [f"{json.dumps(name)}: {_lines(value)}" for name, value in document.items()]
        path.write_text("{\n" + ",\n".join(parts) + "\n}\n", encoding="utf-8")


@attrs.frozen
class Duel:
    """One case on one engine; the samples are in the order of the rounds."""

    engine: str
    size: int
    case: str
    rival: Sequence[Sample]
    imgload: Sequence[Sample]

    @property
    def ratio(self) -> float:
        """How many times as fast as the rival imgload is, by the medians."""
        return middle(self.rival, seconds) / middle(self.imgload, seconds)

    @property
    def target(self) -> float | None:
        """The ratio to reach."""
        targets = SITES[self.engine].targets if self.size == TARGET_SIZE else {}
        return targets.get(self.case)

    @property
    def met(self) -> bool | None:
        """Whether it is reached; None where nothing is asked for."""
        return None if self.target is None else self.ratio >= self.target


def middle(samples: Sequence[Sample], cost: Callable[[Sample], float]) -> float:
    """Return the median of a cost."""
    return median(map(cost, samples))


def seconds(sample: Sample) -> float:
    """Return the wall time."""
    return sample.usage.seconds


def _sample(usage: dict[str, Any], **rest: Any) -> Sample:
    return Sample(Usage(**usage), **rest)


def _lines(value: Any) -> str:
    if isinstance(value, list) and value:
        return "[\n" + ",\n".join(json.dumps(each) for each in value) + "\n]"
    return json.dumps(value)
