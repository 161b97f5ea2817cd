"""What is measured how often: enough of what is small, and no more than fits of what is large."""

from collections.abc import Iterable, Iterator, Sequence

import attrs

from benchmarks.real import REAL
from benchmarks.sites import (
    ARCHIVE_CASES,
    ARCHIVES,
    CASES,
    CONTESTANTS,
    ENGINES,
    ONE_NODE,
    SERVE,
    SITES,
)

RIVAL = "rival"
"""In a part: the contestant that the engine's targets are about."""
_LARGE = 1000
_DUEL = (RIVAL, "imgload")
_WITH_TARGETS = tuple(name for name in ENGINES if SITES[name].targets)


@attrs.frozen
class Part:
    """What is measured with images of one size.

    Args:
        size: of the images, in MB (10^6 bytes).
        rounds: how often.
        cases: what every contestant goes through.
        contestants: who takes part.
        engines: on which engines.
        alone: what only imgload goes through besides.

    """

    size: int
    rounds: int
    cases: Sequence[str] = CASES
    contestants: Sequence[str] = CONTESTANTS
    engines: Sequence[str] = ENGINES
    alone: Sequence[str] = ()

    @property
    def large(self) -> bool:
        """Whether a round takes minutes."""
        return self.size > _LARGE

    @property
    def weight(self) -> int:
        """About what it takes, in any unit."""
        return self.size * (len(self.cases) * len(self.contestants) + len(self.alone))

    def contestants_on(self, engine: str) -> list[str]:
        """Return who takes part on an engine."""
        return [SITES[engine].rival if who == RIVAL else who for who in self.contestants]

    def cases_of(self, who: str) -> list[str]:
        """Return what a contestant goes through."""
        return [*self.cases, *(self.alone if who == "imgload" else ())]


STANDARD = (
    Part(60, 1, (*ONE_NODE, "three")),
    Part(60, 1, (*ONE_NODE, "three"), _DUEL, _WITH_TARGETS),
    Part(60, 1, ("two", "ten", "layers"), _DUEL, _WITH_TARGETS),
    Part(600, 1, ("cold", "rebuild", "present", "three"), _DUEL, _WITH_TARGETS),
    Part(600, 1, ("cold", "rebuild", "present"), _DUEL, _WITH_TARGETS),
    Part(600, 1, ("cold", "rebuild"), _DUEL, ("docker28-graphdriver",)),
    Part(600, 1, REAL, _DUEL, _WITH_TARGETS),
    Part(600, 1, ("cold", "three", *REAL), _DUEL, ARCHIVES),
    Part(600, 1, ("cold", "rebuild"), ("ctr",), _WITH_TARGETS),
    *[Part(600, 1, SERVE, ("imgload", "serve"), _WITH_TARGETS)] * 2,
    Part(3000, 1, ("cold",), _DUEL, ("docker28",), alone=("rebuild",)),
    Part(3000, 1, ("cold",), _DUEL, ("docker",)),
)
"""About 50 minutes on two cores; kind's rebuild is its cold load again."""


@attrs.frozen
class Wish:
    """What a user asks for; None where the standard is meant."""

    engines: Sequence[str] | None = None
    cases: Sequence[str] | None = None
    contestants: Sequence[str] | None = None
    rounds: int | None = None
    sizes: Sequence[int] | None = None

    def parts(self) -> list[Part]:
        """Return the standard on these engines, or what is asked for in its place."""
        engines = self.engines or tuple(SITES)
        asked = (self.cases, self.contestants, self.rounds, self.sizes)
        parts = STANDARD if asked == (None,) * len(asked) else self._parts()
        kept = [(part, tuple(name for name in part.engines if name in engines)) for part in parts]
        return [attrs.evolve(part, engines=names) for part, names in kept if names]

    @property
    def _sizes(self) -> Iterable[int]:
        return self.sizes or sorted({part.size for part in STANDARD})

    def _parts(self) -> Iterator[Part]:
        for size in self._sizes:
            part = Part(size, 3)
            if part.large:
                part = Part(size, 1, ("cold", "rebuild"), _DUEL)
            rounds, cases = self.rounds or part.rounds, self.cases or part.cases
            part = Part(size, rounds, cases, self.contestants or part.contestants)
            yield part
            if cases := [case for case in cases if case in ARCHIVE_CASES]:
                yield attrs.evolve(part, cases=cases, engines=ARCHIVES)


def place(parts: Sequence[Part], size: int, engine: str) -> int:
    """Return how many other engines come before this one with images of a size."""
    engines = dict.fromkeys(name for part in parts if part.size == size for name in part.engines)
    return [*engines, engine].index(engine)


def schedule(parts: Sequence[Part]) -> Iterator[tuple[Part, int, str]]:
    """Yield part, number of the round, and engine: first rounds first, and what is large last."""
    rounds = [(part, number) for part in parts for number in range(1, part.rounds + 1)]
    for part, number in sorted(rounds, key=lambda pair: (pair[0].large, pair[1])):
        yield from ((part, number, engine) for engine in part.engines)
