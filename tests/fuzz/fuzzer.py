"""The loop of the fuzzer: mutate inputs, run them, and keep new outcomes and findings."""

from __future__ import annotations

import hashlib
import re
import time
import traceback
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from random import Random

import attrs

from tests.fuzz.members import compressed, plain
from tests.fuzz.mutate import Mutator

SEEDS = Path(__file__).parent / "seeds"
_KEPT = 2000
"""Maximum number of inputs that are mutated further."""
_SMALL = 256 << 10

_DETAIL = re.compile(r"[0-9]+|'.*'|\".*\"")
_ERROR = re.compile(r"[\w.]*(Error|Exception)\b")

Drive = Callable[[bytes], frozenset[str]]


@attrs.frozen
class Finding:
    """An input with an unexpected failure."""

    data: bytes = attrs.field(repr=False)
    error: str

    @property
    def name(self) -> str:
        """A file name for the input."""
        return f"found-{hashlib.sha256(self.data).hexdigest()[:12]}"

    @property
    def kind(self) -> str:
        """A key for its kind: the raising line, imgload's line, and the error."""
        lines = [line.strip() for line in self.error.strip().splitlines()]
        frames = [line for line in lines if line.startswith("File")]
        ours = [line for line in frames if "/imgload/" in line]
        message = next((line for line in lines if _ERROR.match(line)), "")
        raised = ours[:1] if "TooMuchError" in message else frames[-1:] + ours[-1:]
        return f"{' '.join(raised)} {_DETAIL.sub('', message):.50}"


@attrs.define
class Fuzzer:
    """One run, with its `inputs`, `outcomes` and `findings` so far.

    Args:
        drive: runs an input, and returns its outcomes or raises.
        random: makes the run repeatable, as far as time permits.
        corpus: the initial inputs; inputs with new outcomes are added.

    """

    drive: Drive
    random: Random
    corpus: list[bytes]
    inputs: int = 0
    outcomes: Counter[str] = attrs.field(factory=Counter)
    findings: dict[str, Finding] = attrs.field(factory=dict)
    new: list[bytes] = attrs.field(factory=list)

    def run(self, seconds: float) -> Iterator[Finding]:
        """Yield each new kind of finding until the time is up, starting with the seeds."""
        end = time.monotonic() + seconds
        mutate = Mutator(self.random)
        for data in tuple(self.corpus):
            yield from self._try(data)
        while time.monotonic() < end:
            yield from self._try(mutate(self.random.choice(self.corpus), self.corpus))

    def _try(self, data: bytes) -> Iterator[Finding]:
        self.inputs += 1
        try:
            outcomes = self.drive(data)
        except Exception:  # noqa: BLE001 - any exception is a finding
            error = traceback.format_exc().encode("ascii", "backslashreplace").decode()
            finding = Finding(data, error)
            if finding.kind not in self.findings:
                self.findings[finding.kind] = finding
                yield finding
            return
        self._learn(data, outcomes)

    def _learn(self, data: bytes, outcomes: frozenset[str]) -> None:
        new = outcomes - self.outcomes.keys()
        self.outcomes.update(outcomes)
        if new and len(self.corpus) < _KEPT and len(plain(data)) < _SMALL:
            self.corpus.append(data)
            self.new.append(data)


def seeds(folder: Path = SEEDS) -> list[bytes]:
    """Return the seeds, always in the same order."""
    return [path.read_bytes() for path in sorted(folder.iterdir())]


def keep(folder: Path, inputs: list[bytes]) -> int:
    """Write inputs as small files; return their number."""
    for data in inputs:
        small = min(data, compressed(plain(data)), key=len)
        (folder / f"grown-{hashlib.sha256(small).hexdigest()[:12]}").write_bytes(small)
    return len(inputs)
