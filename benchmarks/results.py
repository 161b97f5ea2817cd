"""What was measured, and what it says."""

from collections import defaultdict
from collections.abc import Iterator, Sequence
from statistics import median
from typing import Any, Literal

import attrs

from benchmarks.contestants import Sample
from benchmarks.sites import SITES

Side = Literal["kind", "imgload"]


@attrs.frozen
class Row:
    """One case on one engine; the samples are in the order of the rounds."""

    engine: str
    case: str
    kind: Sequence[Sample]
    imgload: Sequence[Sample]
    floors: Sequence[float]

    @property
    def ratio(self) -> float:
        """How many times as fast as the rival imgload is, by the medians."""
        return seconds(self.kind) / seconds(self.imgload)

    @property
    def floor(self) -> float | None:
        """Median seconds of the engines' own programs alone."""
        return median(self.floors) if self.floors else None

    @property
    def target(self) -> float | None:
        """The ratio to reach."""
        return SITES[self.engine].targets.get(self.case)

    @property
    def met(self) -> bool | None:
        """Whether it is reached; None where nothing is asked for."""
        return None if self.target is None else self.ratio >= self.target

    def to_json(self) -> dict[str, Any]:
        """Return the row with all its samples."""
        sides = {side: list(map(_sample_json, getattr(self, side))) for side in ("kind", "imgload")}
        verdict = {"ratio": self.ratio, "target": self.target, "met": self.met}
        return {"engine": self.engine, "case": self.case, **verdict, **sides, "floor": self.floors}


@attrs.define
class Results:
    """All samples of a run, and what failed."""

    samples: defaultdict[tuple[str, str, Side], list[Sample]] = attrs.field(
        factory=lambda: defaultdict(list)
    )
    floors: defaultdict[str, list[float]] = attrs.field(factory=lambda: defaultdict(list))
    rivals: dict[str, str] = attrs.field(factory=dict)
    failures: list[str] = attrs.field(factory=list)

    def rows(self) -> Iterator[Row]:
        """Yield the cases that both sides have been through."""
        for engine, site in SITES.items():
            for case in site.cases:
                measured = "rebuild" if case == "learning" else case
                kind = self.samples.get((engine, measured, "kind"), [])
                imgload = self.samples.get((engine, case, "imgload"), [])
                floors = self.floors.get(engine, []) if case == "rebuild" else []
                if kind and imgload:
                    yield Row(engine, case, kind, imgload, floors)


def seconds(samples: Sequence[Sample]) -> float:
    """Return the median wall time."""
    return median(sample.usage.seconds for sample in samples)


def cpu(samples: Sequence[Sample]) -> float:
    """Return the median CPU time of the command and its children, in seconds."""
    return median(sample.usage.cpu for sample in samples)


def peak(samples: Sequence[Sample]) -> int:
    """Return the largest peak memory, in bytes."""
    return max(sample.usage.peak for sample in samples)


def _sample_json(sample: Sample) -> dict[str, Any]:
    told = {"action": sample.action, "bytes_sent": sample.sent} if sample.action else {}
    return {**attrs.asdict(sample.usage), **told}
