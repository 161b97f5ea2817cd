"""The results in Markdown."""

from collections.abc import Iterator, Sequence

from benchmarks.contestants import Sample
from benchmarks.results import Results, Row, cpu, peak, seconds
from benchmarks.sites import SITES, WORDS

_HEADS = (
    "case",
    "kind, s",
    "imgload, s",
    "ratio",
    "target",
    "met",
    "floor, s",
    "CPU kind, s",
    "CPU imgload, s",
    "peak kind, MiB",
    "peak imgload, MiB",
    "sent, bytes",
    "done",
)
_MET = {None: "", True: "yes", False: "**no**"}


def markdown(results: Results) -> str:
    """One table for each engine, and what failed."""
    rows = list(results.rows())
    lines: list[str] = []
    for engine, site in SITES.items():
        if own := [row for row in rows if row.engine == engine]:
            lines += [f"### {site.label}", "", f"Against `{results.rivals[engine]}`.", ""]
            lines += [*_table(own), ""]
    lines += [f"- failed: {_one_line(failure)}" for failure in results.failures]
    return "\n".join(lines)


def _table(rows: Sequence[Row]) -> Iterator[str]:
    yield _line(_HEADS)
    yield _line(["---", *("--:" for _ in _HEADS[1:-1]), "---"])
    yield from (_line(_cells(row)) for row in rows)


def _line(cells: Sequence[str]) -> str:
    return f"| {' | '.join(cells)} |"


def _cells(row: Row) -> list[str]:
    return [
        WORDS[row.case],
        f"{seconds(row.kind):.2f}",
        f"{seconds(row.imgload):.2f}",
        f"{row.ratio:.2f} x",
        f"{row.target:g} x" if row.target else "",
        _MET[row.met],
        _floor(row),
        f"{cpu(row.kind):.2f}",
        f"{cpu(row.imgload):.2f}",
        f"{peak(row.kind) / (1 << 20):.0f}",
        f"{peak(row.imgload) / (1 << 20):.0f}",
        f"{max(sample.sent or 0 for sample in row.imgload):,}",
        ", ".join(sorted(_actions(row.imgload))),
    ]


def _floor(row: Row) -> str:
    if row.floor is None:
        return ""
    return f"{row.floor:.2f} (imgload {seconds(row.imgload) / row.floor:.2f} x)"


def _actions(samples: Sequence[Sample]) -> set[str]:
    return {sample.action for sample in samples if sample.action}


def _one_line(text: str) -> str:
    return " / ".join(line.strip() for line in text.splitlines() if line.strip())
