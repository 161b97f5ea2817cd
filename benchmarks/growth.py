"""How costs grow with size, layers and nodes: lines through the medians, by least squares."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from statistics import linear_regression

import attrs

from benchmarks.contestants import Sample
from benchmarks.results import Results, middle
from benchmarks.sites import SITES, layers_in

Cost = Callable[[Sample], float | None]
Points = Sequence[tuple[float, Sequence[Sample]]]
"""How much there was of what grows, and the samples."""
Found = Iterator[tuple[float, Sequence[Sample]]]
Of = Callable[[str, str], Found]

COSTS: Mapping[str, Cost] = {
    "s": lambda sample: sample.usage.seconds,
    "CPU s": lambda sample: sample.usage.cpu,
    "peak MB": lambda sample: sample.usage.peak / 1e6,
    "into nodes MB": lambda sample: sample.sent / 1e6,
    "written MB": lambda sample: (
        None if sample.usage.written is None else sample.usage.written / 1e6
    ),
}
UNITS = {"100 MB": 100, "10 layers": 10, "node": 1}
"""How many are one step of a line."""
_FEWEST = 2
_IN_COLD = 8  # layers
_ONE_NODE = "cold"
_NODES = {_ONE_NODE: 1, "two": 2, "three": 3}


@attrs.frozen
class Line:
    """What one more step costs; None for a cost that is not known everywhere.

    Args:
        engine: which engine.
        unit: what there is more of, of `UNITS`.
        case: what was done.
        who: which contestant.
        xs: where was measured.
        slopes: cost for each step, in the order of `COSTS`.
        start: seconds of the line where there is nothing.

    """

    engine: str
    unit: str
    case: str
    who: str
    xs: tuple[float, ...]
    slopes: tuple[float | None, ...]
    start: float


def lines(results: Results) -> Iterator[Line]:
    """Yield all lines for which there are two points, for imgload and for its rival."""
    for engine, site in SITES.items():
        for unit, case, points_of in _kinds(results):
            for who in (site.rival, "imgload"):
                points = [(x, found) for x, found in points_of(engine, who) if found]
                if len({x for x, _ in points}) >= _FEWEST:
                    yield fit(engine, unit, case, who, points)


def fit(engine: str, unit: str, case: str, who: str, points: Points) -> Line:
    """Return the line through the medians of some points."""
    scaled = [(x / UNITS[unit], samples) for x, samples in points]
    slopes = tuple(_line(scaled, cost)[0] for cost in COSTS.values())
    start = _line(points, COSTS["s"])[1] or 0.0
    return Line(engine, unit, case, who, tuple(x for x, _ in points), slopes, start)


def _line(points: Points, cost: Cost) -> tuple[float | None, float | None]:
    known = [(x, [each for each in samples if cost(each) is not None]) for x, samples in points]
    if not all(samples for _, samples in known):
        return None, None
    medians = [middle(samples, lambda sample: cost(sample) or 0.0) for _, samples in known]
    return tuple(linear_regression([x for x, _ in known], medians))  # type: ignore[return-value]


def _kinds(results: Results) -> Iterator[tuple[str, str, Of]]:
    """Yield unit, case, and the points of an engine and a contestant; one size for each line."""
    for case in ("cold", "rebuild"):
        yield "100 MB", case, partial(_sizes, results, case)
    for unit, points_of in ("10 layers", _layers), ("node", _nodes):
        for size in results.sizes():
            yield unit, f"cold, {size} MB", partial(points_of, results, size)


def _sizes(results: Results, case: str, engine: str, who: str) -> Found:
    for size in results.sizes():
        yield size, results.of(engine, size, case, who)


def _layers(results: Results, size: int, engine: str, who: str) -> Found:
    deep = [case for case in results.cases(engine, size) if layers_in(case)]
    for case in ("cold", *deep):
        yield layers_in(case) or _IN_COLD, results.of(engine, size, case, who)


def _nodes(results: Results, size: int, engine: str, who: str) -> Found:
    if results.of(engine, size, "two", who):
        for case, count in _NODES.items():
            yield count, results.of(engine, size, case, who)
