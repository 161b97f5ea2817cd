"""The loop: mutate, drive, keep what leads somewhere new, and save what fails."""

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
"""Inputs that are mutated further, at most."""
_SMALL = 256 << 10

_DETAIL = re.compile(r"[0-9]+|'.*'|\".*\"")
_ERROR = re.compile(r"[\w.]*(Error|Exception)\b")

Drive = Callable[[bytes], frozenset[str]]


@attrs.frozen
class Finding:
    """An input that did what none may, and how."""

    data: bytes = attrs.field(repr=False)
    error: str

    @property
    def name(self) -> str:
        """A file name for the input."""
        return f"found-{hashlib.sha256(self.data).hexdigest()[:12]}"

    @property
    def place(self) -> str:
        """What sets it apart: where it was raised, by which of imgload's lines, and what."""
        lines = [line.strip() for line in self.error.strip().splitlines()]
        places = [line for line in lines if line.startswith("File")]
        ours = [line for line in places if "/imgload/" in line]
        said = next((line for line in lines if _ERROR.match(line)), "")
        raised = ours[:1] if "TooMuchError" in said else places[-1:] + ours[-1:]
        return f"{' '.join(raised)} {_DETAIL.sub('', said):.50}"


@attrs.define
class Fuzzer:
    """One run; `inputs`, `outcomes` and `findings` tell what happened so far.

    Args:
        drive: takes an input; returns what became of it, or raises.
        random: makes the run repeatable, as far as time allows.
        corpus: the inputs to start from; grows by those that lead to something new.

    """

    drive: Drive
    random: Random
    corpus: list[bytes]
    inputs: int = 0
    outcomes: Counter[str] = attrs.field(factory=Counter)
    findings: dict[str, Finding] = attrs.field(factory=dict)
    new: list[bytes] = attrs.field(factory=list)

    def run(self, seconds: float) -> Iterator[Finding]:
        """Yield each new kind of finding, the seeds' own first, until the time is up."""
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
        except Exception:  # noqa: BLE001 - that is what is looked for
            said = traceback.format_exc().encode("ascii", "backslashreplace").decode()
            finding = Finding(data, said)
            if finding.place not in self.findings:
                self.findings[finding.place] = finding
                yield finding
            return
        self._learn(data, outcomes)

    def _learn(self, data: bytes, outcomes: frozenset[str]) -> None:
        not_in_cri = outcomes - self.outcomes.keys()
        self.outcomes.update(outcomes)
        if not_in_cri and len(self.corpus) < _KEPT and len(plain(data)) < _SMALL:
            self.corpus.append(data)
            self.new.append(data)


def seeds(folder: Path = SEEDS) -> list[bytes]:
    """Return the inputs that are kept, in an order that is always the same."""
    return [path.read_bytes() for path in sorted(folder.iterdir())]


def keep(folder: Path, inputs: list[bytes]) -> int:
    """Keep inputs as small files; return how many."""
    for data in inputs:
        small = min(data, compressed(plain(data)), key=len)
        (folder / f"grown-{hashlib.sha256(small).hexdigest()[:12]}").write_bytes(small)
    return len(inputs)
