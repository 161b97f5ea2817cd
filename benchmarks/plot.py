"""Wall times as an SVG: a row for each case, a dot for each contestant, on a log scale."""

import math
from collections.abc import Iterator, Sequence
from xml.sax.saxutils import escape

import attrs

from benchmarks.results import Results, middle, seconds
from benchmarks.sites import CONTESTANTS, SITES, words

COLOURS = dict(
    zip(CONTESTANTS, ("#d1603d", "#a777c2", "#4d8fd1", "#2c9c69", "#8a6d1f"), strict=True)
)
_GREY = "#7a7a7a"  # readable on white and on black
_LEFT, _WIDTH, _RIGHT = 250, 440, 70
_TOP, _ROW = 48, 22


@attrs.frozen
class Row:
    """A line of the chart: seconds by contestant, and imgload's ratio; none for a heading."""

    label: str
    dots: dict[str, float]
    ratio: float | None = None


@attrs.frozen
class Scale:
    """Decades, from the one below the least to the one above the most."""

    low: int
    high: int

    @classmethod
    def over(cls, values: Sequence[float]) -> "Scale":
        """Return the scale on which all values are."""
        low = math.floor(math.log10(min(values)))
        return cls(low, max(low + 1, math.ceil(math.log10(max(values)))))

    def place(self, value: float) -> float:
        """Return where a value is, in pixels from the left."""
        return _LEFT + _WIDTH * (math.log10(value) - self.low) / (self.high - self.low)


def rows(results: Results, size: int) -> Iterator[Row]:
    """Yield the rows of all engines, each with its heading."""
    ratios = {(duel.engine, duel.case): duel.ratio for duel in results.duels(size)}
    for engine, site in SITES.items():
        cases = results.cases(engine, size)
        if cases:
            yield Row(site.label, {})
        for case in cases:
            dots = {who: results.of(engine, size, case, who) for who in CONTESTANTS}
            medians = {who: middle(found, seconds) for who, found in dots.items() if found}
            yield Row(words(case), medians, ratios.get((engine, case)))


def svg(results: Results, size: int) -> str:
    """Return the chart for images of a size in MB."""
    shown = list(rows(results, size))
    scale = Scale.over([value for row in shown for value in row.dots.values()])
    bottom = _TOP + _ROW * len(shown)
    width, height = _LEFT + _WIDTH + _RIGHT, bottom + 2 * _ROW
    look = f'role="img" font-family="sans-serif" font-size="12" fill="{_GREY}"'
    lines = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" {look}>',
        f"<title>Seconds to load an image of {size} MB</title>",
        *_legend(),
        *_axis(scale, bottom, size),
        *(mark for place, row in enumerate(shown) for mark in _marks(row, scale, place)),
    ]
    return "\n".join([*lines, "</svg>", ""])


def _legend() -> Iterator[str]:
    for place, (who, colour) in enumerate(COLOURS.items()):
        x = _LEFT + 110 * place
        yield f'<circle cx="{x}" cy="16" r="5" fill="{colour}"/>'
        yield f'<text x="{x + 10}" y="20">{who}</text>'


def _axis(scale: Scale, bottom: int, size: int) -> Iterator[str]:
    for power in range(scale.low, scale.high + 1):
        x = scale.place(10.0**power)
        yield f'<path d="M{x:.1f} {_TOP - 12}V{bottom}" stroke="{_GREY}" stroke-opacity=".4"/>'
        yield f'<text x="{x:.1f}" y="{bottom + 16}" text-anchor="middle">{10.0**power:g} s</text>'
    note = f"wall time, {size} MB, log scale; right: how many times as fast imgload is"
    yield f'<text x="{_LEFT}" y="{bottom + 34}">{note}</text>'


def _marks(row: Row, scale: Scale, place: int) -> Iterator[str]:
    y = _TOP + _ROW * place
    if not row.dots:
        yield f'<text x="4" y="{y + 4}" font-weight="bold">{escape(row.label)}</text>'
        return
    yield f'<text x="{_LEFT - 16}" y="{y + 4}" text-anchor="end">{escape(row.label)}</text>'
    places = [scale.place(value) for value in row.dots.values()]
    yield f'<path d="M{min(places):.1f} {y}H{max(places):.1f}" stroke="{_GREY}"/>'
    for who, value in row.dots.items():
        dot = f'cx="{scale.place(value):.1f}" cy="{y}" r="5" fill="{COLOURS[who]}"'
        yield f"<circle {dot}><title>{who}: {value:.2f} s</title></circle>"
    if row.ratio is not None:
        yield f'<text x="{_LEFT + _WIDTH + 12}" y="{y + 4}">{row.ratio:.1f} x</text>'
