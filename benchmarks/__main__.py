"""`python -m benchmarks`: imgload beside the real kind, on the lab's engines and nodes."""

import argparse
import contextlib
import json
import os
import platform
import signal
import sys
import tempfile
from pathlib import Path
from types import FrameType
from typing import Any, NoReturn

from benchmarks.bench import Bench, Task
from benchmarks.results import Results
from benchmarks.sites import CASES, SITES
from benchmarks.table import markdown
from tests.lab import Lab


def main() -> int:
    """Measure and print; 1 only if something did not load, 130 when interrupted."""
    options = _parser().parse_args()
    signal.signal(signal.SIGTERM, _interrupt)
    try:
        with contextlib.redirect_stdout(sys.stderr):
            results = _run(options)
    except KeyboardInterrupt:
        return 130
    print(markdown(results))
    if options.json:
        text = json.dumps(_document(options, results), indent=2)
        options.json.write_text(text + "\n", encoding="utf-8")
    return 1 if results.failures else 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    for name, choices in ("--engines", [*SITES]), ("--cases", [*CASES]):
        listed = f"of: {' '.join(choices)} [default: all]"
        parser.add_argument(
            name, nargs="+", choices=choices, default=choices, metavar="NAME", help=listed
        )
    parser.add_argument("--rounds", type=_positive, default=3, help="[default: 3]")
    size = "of the image, in MB (10^6 bytes) [default: 600]"
    parser.add_argument("--size", type=_positive, default=600, metavar="MB", help=size)
    parser.add_argument("--json", type=Path, metavar="FILE", help="write every sample to a file")
    return parser


def _positive(text: str) -> int:
    number = int(text)
    if number < 1:
        raise argparse.ArgumentTypeError(f"{text} is less than 1")
    return number


def _run(options: argparse.Namespace) -> Results:
    results = Results()
    with Lab.open() as lab, tempfile.TemporaryDirectory(prefix="bench-") as folder:
        task = Task(options.size * 10**6, options.cases, results)
        benches = [Bench.prepare(lab, name, Path(folder), task) for name in options.engines]
        for number in range(1, options.rounds + 1):
            for bench in benches:
                print(f"== round {number}: {bench.site.label}")
                bench.round(number)
    return results


def _document(options: argparse.Namespace, results: Results) -> dict[str, Any]:
    machine = {"system": platform.platform(), "cpus": os.cpu_count()}
    return {
        "machine": {**machine, "python": platform.python_version()},
        "size": options.size * 10**6,
        "rounds": options.rounds,
        "rivals": results.rivals,
        "rows": [row.to_json() for row in results.rows()],
        "failures": results.failures,
    }


def _interrupt(_number: int, _frame: FrameType | None) -> NoReturn:
    raise KeyboardInterrupt


if __name__ == "__main__":
    sys.exit(main())
