"""The results as Markdown tables."""

from collections.abc import Iterator, Sequence
from statistics import median

from benchmarks.contestants import Sample
from benchmarks.growth import COSTS, lines
from benchmarks.results import Results, middle, seconds
from benchmarks.sites import CONTESTANTS, SITES, words

_MET = {None: "", True: "yes", False: "**no**"}
_DUEL = ("engine", "case", "rival, s", "imgload, s", "ratio", "target", "reached", "action")
_DETAIL = ("case", "with", "rounds", "s", "CPU, s", "peak, MB", "into nodes, MB", "written, MB")
_GROWTH = ("engine", "for each", "case", "with", *COSTS, "s at 0", "points")


def markdown(results: Results) -> str:
    """Everything."""
    parts = [*duels(results), *details(results), *rebuilds(results), *growth(results)]
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
    """Return where the time of a rebuild goes, and the floor; engines are columns."""
    for size in results.sizes():
        every = [(engine, size) for engine in SITES]
        places = [at for at in every if results.floors.get(at) and results.phases.get(at)]
        if places:
            yield from (f"### Where a rebuild's time goes, {size} MB", "")
            heads = ("seconds", *(SITES[engine].label for engine, _ in places))
            columns = [_column(results, place) for place in places]
            names = dict.fromkeys(name for column in columns for name in column)
            rows = [[name, *(column.get(name, "") for column in columns)] for name in names]
            yield from table(heads, rows, text=(0,))


def _column(results: Results, place: tuple[str, int]) -> dict[str, str]:
    profiles, floors = results.phases[place], results.floors[place]
    names = dict.fromkeys(name for profile in profiles for name in profile)
    phases = {name: median(each.get(name, 0.0) for each in profiles) for name in names}
    total = median(sum(profile.values()) for profile in profiles)
    least = median(floor.seconds for floor in floors)
    return {
        **{name: f"{value:.3f}" for name, value in phases.items()},
        "**imgload, all**": f"**{total:.3f}**",
        "floor: the engine's push": f"{median(floor.push for floor in floors):.3f}",
        "floor: ctr import": f"{median(floor.load for floor in floors):.3f}",
        "**imgload / floor**": f"**{total / least:.2f}**" if least else "",
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
