"""What is measured how often: enough of what is small, and no more than fits of what is large."""

from collections.abc import Iterable, Iterator, Sequence

import attrs

from benchmarks.sites import CASES, CONTESTANTS, SITES

RIVAL = "rival"
"""In a part: the contestant that the engine's targets are about."""
_LARGE = 1000
_REPEATED = ("cold", "rebuild", "present", "tag", "three")
_ONCE = ("two", "ten", "layers")
_DUEL = (RIVAL, "imgload")


@attrs.frozen
class Part:
    """Images of one size (MB, 10^6 bytes), and what is measured with them."""

    size: int
    rounds: int
    cases: Sequence[str] = CASES
    contestants: Sequence[str] = CONTESTANTS
    engines: Sequence[str] = tuple(SITES)

    def contestants_on(self, engine: str) -> list[str]:
        """Return who takes part on an engine."""
        return [SITES[engine].rival if who == RIVAL else who for who in self.contestants]


STANDARD = (
    Part(60, 3, _REPEATED),
    Part(60, 1, _ONCE),
    Part(600, 2, ("cold", "rebuild", "present", "three"), _DUEL, ("docker28", "docker", "podman")),
    Part(600, 1, ("cold", "rebuild"), _DUEL, ("docker28-graphdriver",)),
    Part(600, 1, ("cold", "rebuild"), ("archive", "ctr"), ("docker28", "docker")),
    Part(600, 1, ("cold", "rebuild"), ("ctr",), ("podman",)),
    Part(3000, 1, ("cold", "rebuild"), _DUEL, ("docker28", "docker")),
)


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
        parts = STANDARD if asked == (None,) * len(asked) else map(self._part, self._sizes)
        kept = [(part, tuple(name for name in part.engines if name in engines)) for part in parts]
        return [attrs.evolve(part, engines=names) for part, names in kept if names]

    @property
    def _sizes(self) -> Iterable[int]:
        return self.sizes or sorted({part.size for part in STANDARD})

    def _part(self, size: int) -> Part:
        large = size > _LARGE
        return Part(
            size,
            self.rounds or (1 if large else 3),
            self.cases or (("cold", "rebuild") if large else CASES),
            self.contestants or (_DUEL if large else CONTESTANTS),
        )


def schedule(parts: Sequence[Part]) -> Iterator[tuple[Part, int, str]]:
    """Yield part, number of the round, and engine: the first rounds of all parts come first."""
    for number in range(1, max((part.rounds for part in parts), default=0) + 1):
        for part in parts:
            if number <= part.rounds:
                yield from ((part, number, engine) for engine in part.engines)
