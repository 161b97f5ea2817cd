"""`python -m tests.fuzz --minutes N`: run the fuzzer; exit with 1 if there are findings.

`python -m tests.fuzz FILE...` runs only these inputs, to reproduce a finding.
"""

import argparse
import secrets
import sys
import tempfile
import time
from pathlib import Path
from random import Random

from tests.fuzz.fuzzer import SEEDS, Fuzzer, keep, seeds
from tests.fuzz.target import Target

_MEMORY = Path("/dev/shm")


def main() -> int:
    """Run for the requested time, or run the given inputs."""
    options = _parser().parse_args()
    number = secrets.randbits(32) if options.seed is None else options.seed
    random = Random(number)
    with tempfile.TemporaryDirectory(dir=_MEMORY if _MEMORY.is_dir() else None) as folder:
        target = Target(Path(folder), random)
        if options.inputs:
            return _try(target, options.inputs)
        print(f"seed {number}, {len(seeds())} initial inputs", flush=True)  # noqa: T201
        fuzzer = Fuzzer(target, random, seeds())
        _run(fuzzer, 60 * options.minutes, options.found)
    _print_summary(fuzzer, options.minutes)
    if options.keep:
        print(f"kept {keep(SEEDS, fuzzer.new)} in {SEEDS}")  # noqa: T201
    return 1 if fuzzer.findings else 0


def _try(target: Target, paths: list[Path]) -> int:
    """Run inputs once; the first finding ends the program with its error."""
    for path in paths:
        for outcome in sorted(target(path.read_bytes())):
            print(f"{path}: {outcome}")  # noqa: T201
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m tests.fuzz", description=__doc__)
    parser.add_argument(
        "inputs", nargs="*", type=Path, metavar="FILE", help="run only these inputs"
    )
    parser.add_argument("--minutes", type=float, default=1)
    parser.add_argument("--seed", type=int, help="seed that repeats a run")
    parser.add_argument("--found", type=Path, default=Path("findings"), help="folder for findings")
    parser.add_argument(
        "--keep", action="store_true", help="add inputs with new outcomes to seeds/"
    )
    return parser


def _run(fuzzer: Fuzzer, seconds: float, folder: Path) -> None:
    start = time.monotonic()
    for finding in fuzzer.run(seconds):
        folder.mkdir(parents=True, exist_ok=True)
        (folder / finding.name).write_bytes(finding.data)
        after = time.monotonic() - start
        print(f"-- {finding.name} after {after:.0f} s\n{finding.error}", flush=True)  # noqa: T201


def _print_summary(fuzzer: Fuzzer, minutes: float) -> None:
    for outcome, count in sorted(fuzzer.outcomes.items()):
        print(f"{count:9} {outcome:.150}")  # noqa: T201
    kinds = f"{len(fuzzer.outcomes)} outcomes, {len(fuzzer.findings)} findings"
    print(f"{fuzzer.inputs} inputs in {minutes:g} minutes: {kinds}")  # noqa: T201


if __name__ == "__main__":
    sys.exit(main())
