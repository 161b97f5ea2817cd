"""`python -m benchmarks`: imgload beside the real kind, on the lab's engines and nodes."""

import argparse
import contextlib
import json
import signal
import sys
import tempfile
from pathlib import Path
from types import FrameType
from typing import NoReturn

from benchmarks.bench import Bench
from benchmarks.clock import Clock
from benchmarks.machine import describe
from benchmarks.page import write_docs
from benchmarks.plan import Wish, schedule
from benchmarks.results import Results
from benchmarks.sites import CASES, CONTESTANTS, SITES
from benchmarks.table import markdown
from tests.lab import Lab


def main() -> int:
    """Measure and print; 1 only if something did not load, 130 when interrupted."""
    options = _parser().parse_args()
    signal.signal(signal.SIGTERM, _interrupt)
    try:
        with contextlib.redirect_stdout(sys.stderr):
            results = _read(options.read) if options.read else _run(options)
    except KeyboardInterrupt:
        return 130
    print(markdown(results))
    if options.write_docs and results.samples:
        write_docs(results)
    return 1 if results.failures else 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    choices = {"engines": [*SITES], "cases": CASES, "contestants": CONTESTANTS}
    for name, known in choices.items():
        listed = f"of: {' '.join(known)} [default: all]"
        parser.add_argument(f"--{name}", nargs="+", choices=known, metavar="NAME", help=listed)
    size = "of the images, in MB (10^6 bytes) [default: 60 600 3000]"
    parser.add_argument("--size", type=_positive, nargs="+", metavar="MB", help=size)
    parser.add_argument("--rounds", type=_positive, metavar="N", help="[default: by size]")
    minutes = "begin no round that would not end by then, by the last one like it"
    parser.add_argument("--minutes", type=_positive, metavar="N", help=minutes)
    json_help = "write every sample to a file, after every round"
    parser.add_argument("--json", type=Path, metavar="FILE", help=json_help)
    parser.add_argument(
        "--read", type=Path, metavar="FILE", help="show such a file; measure nothing"
    )
    docs_help = "write docs/benchmarks.md, .svg and .json"
    parser.add_argument("--write-docs", action="store_true", help=docs_help)
    return parser


def _positive(text: str) -> int:
    number = int(text)
    if number < 1:
        raise argparse.ArgumentTypeError(f"{text} is less than 1")
    return number


def _read(path: Path) -> Results:
    return Results.of_json(json.loads(path.read_text(encoding="utf-8")))


def _run(options: argparse.Namespace) -> Results:
    wish = Wish(options.engines, options.cases, options.contestants, options.rounds, options.size)
    parts = wish.parts()
    results = Results(machine=describe())
    clock = Clock(60 * options.minutes if options.minutes else float("inf"))
    with Lab.open() as lab, tempfile.TemporaryDirectory(prefix="bench-") as folder:
        names = dict.fromkeys(engine for part in parts for engine in part.engines)
        benches = {n: Bench.prepare(lab, n, Path(folder), parts, results) for n in names}
        for part, number, engine in schedule(parts):
            what = ", ".join([*part.cases, *part.alone])
            label = f"{SITES[engine].label}, {part.size} MB, round {number} of {what}"
            if not clock.allows(part, engine):
                results.skipped.append(label)
                continue
            print(f"== {label}", flush=True)
            with clock.timing(part, engine):
                benches[engine].round(part)
            results.machine["minutes"] = round(clock.elapsed / 60, 1)
            if options.json:
                results.write(options.json)
    return results


def _interrupt(_number: int, _frame: FrameType | None) -> NoReturn:
    raise KeyboardInterrupt


if __name__ == "__main__":
    sys.exit(main())
