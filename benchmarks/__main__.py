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

from benchmarks.clock import Clock
from benchmarks.machine import describe
from benchmarks.page import write_docs
from benchmarks.plan import RIVAL, Wish
from benchmarks.results import Results
from benchmarks.run import Run
from benchmarks.sites import CASES, CONTESTANTS, SITES
from benchmarks.table import markdown
from tests.lab import Lab


def main() -> int:
    """Measure and print; 1 only if something failed, 130 when interrupted."""
    options = _parser().parse_args()
    signal.signal(signal.SIGTERM, _interrupt)
    results = _read(options.read) if options.read else Results(machine=describe())
    interrupted = not options.read and not _measured(options, results)
    print(markdown(results))
    if options.write_docs and results.samples:
        write_docs(results)
    return 130 if interrupted else int(bool(results.failures))


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    choices = {"engines": [*SITES], "cases": CASES, "contestants": (*CONTESTANTS, RIVAL)}
    for name, known in choices.items():
        listed = f"of: {' '.join(known)} [default: all]"
        parser.add_argument(f"--{name}", nargs="+", choices=known, metavar="NAME", help=listed)
    size = "of the images, in MB (10^6 bytes) [default: 60 600 3000]"
    parser.add_argument("--size", type=_positive, nargs="+", metavar="MB", help=size)
    parser.add_argument("--rounds", type=_positive, metavar="N", help="[default: by size]")
    minutes = "begin no round that is not expected to end by then, by the quickest one so far"
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


def _measured(options: argparse.Namespace, results: Results) -> bool:
    """Measure, and return whether nobody interrupted it; the results are kept in any case."""
    try:
        with contextlib.redirect_stdout(sys.stderr), results.noting("the lab"):
            _run(options, results)
    except KeyboardInterrupt:
        return False
    return True


def _run(options: argparse.Namespace, results: Results) -> None:
    wish = Wish(options.engines, options.cases, options.contestants, options.rounds, options.size)
    clock = Clock(60 * options.minutes if options.minutes else float("inf"))
    with (
        Lab.open() as lab,  # the default folder may be memory, which is no disk and soon full
        tempfile.TemporaryDirectory(prefix="bench-", dir=lab.paths.folder()) as folder,
    ):
        Run(wish.parts(), results, clock, options.json).go(lab, Path(folder))


def _interrupt(_number: int, _frame: FrameType | None) -> NoReturn:
    raise KeyboardInterrupt


if __name__ == "__main__":
    sys.exit(main())
