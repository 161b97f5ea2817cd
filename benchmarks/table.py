"""The results as Markdown tables."""

from collections.abc import Iterator, Sequence
from itertools import product
from statistics import median

from benchmarks.contestants import Sample
from benchmarks.growth import COSTS, lines
from benchmarks.results import Results, middle, seconds
from benchmarks.sites import (
    CONTESTANTS,
    LIMITS,
    SERVE,
    SERVE_LIMIT,
    SITES,
    TARGET_SIZE,
    words,
)

_MET = {None: "", True: "yes", False: "**no**"}
_ALL = "**imgload, all**"
_DUEL = ("engine", "case", "rival, s", "imgload, s", "ratio", "target", "reached", "action")
_OF_FLOOR = ("imgload, s", "imgload / floor", "at most", "reached")
_DETAIL = ("case", "with", "rounds", "s", "CPU, s", "peak, MB", "into nodes, MB", "written, MB")
_FLOORS = ("engine", "case", "push or save, s", "ctr, s", "floor, s", *_OF_FLOOR)
_SERVES = ("engine", "case", "load, s", "serve, s", "serve / load", "at most", "reached")
_GROWTH = ("engine", "for each", "case", "with", *COSTS, "s at 0", "points")


def markdown(results: Results) -> str:
    """Everything."""
    parts = [*duels(results), *serves(results), *floors(results), *details(results)]
    parts += [*rebuilds(results), *growth(results)]
    return "\n".join([*parts, *remarks(results)])


def duels(results: Results) -> Iterator[str]:
    """Return imgload and the rival that its targets are about, one table for each size."""
    for size in results.sizes():
        rows = [
            [
                SITES[duel.engine].label,
                words(duel.case),
                f"{middle(duel.rival, seconds):.2f}",
                f"{middle(duel.imgload, seconds):.2f}",
                f"{duel.ratio:.2f} x",
                f"{duel.target:g} x" if duel.target else "",
                _MET[duel.met],
                ", ".join(sorted({sample.action or "" for sample in duel.imgload})),
            ]
            for duel in results.duels(size)
        ]
        if rows:
            yield from (f"### imgload and its rival, {size} MB", "")
            yield from table(_DUEL, rows, text=(0, 1, 7))


def serves(results: Results) -> Iterator[str]:
    """Return imgload serve and load, both with a container's start, one table for each size."""
    for size in results.sizes():
        rows = []
        for engine, case in product(SITES, SERVE):
            load, serve = (results.of(engine, size, case, who) for who in ("imgload", "serve"))
            if load and serve:
                taken, least = middle(serve, seconds), middle(load, seconds)
                limit = SERVE_LIMIT if size == TARGET_SIZE else None
                rows.append(
                    [
                        SITES[engine].label,
                        words(case),
                        f"{least:.2f}",
                        f"{taken:.2f}",
                        f"{taken / least:.2f} x",
                        f"{limit:g} x" if limit else "",
                        _MET[None if limit is None else taken <= limit * least],
                    ]
                )
        if rows:
            yield from (f"### imgload serve and load, {size} MB", "")
            yield from table(_SERVES, rows, text=(0, 1))


def floors(results: Results) -> Iterator[str]:
    """Return imgload and the least that its loads can cost, one table for each size."""
    for size in results.sizes():
        rows = [
            row
            for engine in SITES
            for case in LIMITS
            for row in _floor(results, engine, size, case)
        ]
        if rows:
            yield from (f"### imgload and its floor, {size} MB", "")
            yield from table(_FLOORS, rows, text=(0, 1))


def _floor(results: Results, engine: str, size: int, case: str) -> Iterator[list[str]]:
    found = results.floors.get((engine, size, case))
    samples = results.of(engine, size, case, "imgload")
    if not found or not samples:
        return
    least, taken = median(floor.seconds for floor in found), middle(samples, seconds)
    push = median(floor.push for floor in found)
    limit = LIMITS[case] if size == TARGET_SIZE else None
    yield [
        SITES[engine].label,
        words(case),
        f"{push:.3f}" if push else "",
        f"{median(floor.load for floor in found):.3f}",
        f"{least:.3f}",
        f"{taken:.3f}",
        f"{taken / least:.2f} x",
        f"{limit:g} x" if limit else "",
        _MET[None if limit is None else taken <= limit * least],
    ]


def details(results: Results) -> Iterator[str]:
    """Return every contestant with all costs, one table for each engine and size."""
    for engine, site in SITES.items():
        for size in results.sizes():
            if cases := results.cases(engine, size):
                yield from (f"### {site.label}, {size} MB", "")
                rows = (row for case in cases for row in _costs(results, engine, size, case))
                yield from table(_DETAIL, list(rows), text=(0, 1))


def _costs(results: Results, engine: str, size: int, case: str) -> Iterator[list[str]]:
    for who in CONTESTANTS:
        if samples := results.of(engine, size, case, who):
            yield [words(case), who, str(len(samples)), *_cells(samples)]


def _cells(samples: Sequence[Sample]) -> Iterator[str]:
    yield f"{middle(samples, seconds):.2f}"
    yield f"{middle(samples, lambda sample: sample.usage.cpu):.2f}"
    yield f"{max(sample.usage.peak for sample in samples) / 1e6:.0f}"
    yield f"{max(sample.sent for sample in samples) / 1e6:.3f}"
    written = [sample.usage.written for sample in samples if sample.usage.written is not None]
    yield f"{median(written) / 1e6:.1f}" if written else ""


def rebuilds(results: Results) -> Iterator[str]:
    """Return where the time of a rebuild goes; engines are columns."""
    for size in results.sizes():
        every = [(engine, size) for engine in SITES]
        places = [at for at in every if results.phases.get(at)]
        if places:
            yield from (f"### Where a rebuild's time goes, {size} MB", "")
            heads = ("seconds", *(SITES[engine].label for engine, _ in places))
            columns = [_column(results, place) for place in places]
            names = dict.fromkeys(name for column in columns for name in column if name != _ALL)
            rows = [
                [name, *(column.get(name, "") for column in columns)] for name in (*names, _ALL)
            ]
            yield from table(heads, rows, text=(0,))


def _column(results: Results, place: tuple[str, int]) -> dict[str, str]:
    profiles = results.phases[place]
    names = dict.fromkeys(name for profile in profiles for name in profile)
    phases = {name: median(each.get(name, 0.0) for each in profiles) for name in names}
    total = median(sum(profile.values()) for profile in profiles)
    return {
        **{name: f"{value:.3f}" for name, value in phases.items()},
        _ALL: f"**{total:.3f}**",
    }


def growth(results: Results) -> Iterator[str]:
    """Return what one more unit costs."""
    rows = [
        [
            SITES[line.engine].label,
            line.unit,
            line.case,
            line.who,
            *("" if slope is None else f"{slope:.3f}" for slope in line.slopes),
            f"{line.start:.2f}",
            ", ".join(f"{x:g}" for x in line.xs),
        ]
        for line in lines(results)
    ]
    if rows:
        yield from ("### How costs grow", "")
        yield from table(_GROWTH, rows, text=(0, 1, 2, 3))


def remarks(results: Results) -> Iterator[str]:
    """Return what failed, and what was left out."""
    for failure in results.failures:
        yield f"- failed: {' / '.join(filter(None, map(str.strip, failure.splitlines())))}"
    for part in results.skipped:
        yield f"- left out: {part}"


def table(heads: Sequence[str], rows: Sequence[Sequence[str]], text: Sequence[int]) -> list[str]:
    """Return a table; columns are numbers unless they are named as text."""
    rule = ["---" if place in text else "--:" for place in range(len(heads))]
    return [*(f"| {' | '.join(cells)} |" for cells in (heads, rule, *rows)), ""]
