"""Where imgload's own time goes in a rebuild."""

import json
import sys
from collections.abc import Sequence

from benchmarks import marks
from benchmarks.contestants import Imgload
from benchmarks.images import Builder
from benchmarks.nodes import check
from tests.lab import Cluster

START = "start Python and imgload"


def profile(imgload: Imgload, builder: Builder, cluster: Cluster) -> dict[str, float]:
    """Seconds by phase of the load of one more rebuild."""
    image = builder.rebuild()
    report = imgload.folder / "marks.json"
    arguments = imgload.arguments([image], cluster)
    usage, _ = imgload.measure(sys.executable, "-P", marks.__file__, report, *arguments)
    check(cluster, image)
    started = json.loads((imgload.folder / "usage.json").read_text())["started"]
    return phases(started, json.loads(report.read_text()), started + usage.seconds)


def phases(start: float, seen: Sequence[tuple[str, float]], end: float) -> dict[str, float]:
    """Sum up how long each phase lasts: until the next one begins, or the process ends.

    Args:
        start: when the process was started, in seconds on any clock.
        seen: phases, and when each begins.
        end: when the process has ended.

    """
    found: dict[str, float] = {}
    begins = [(START, start), *seen]
    for (phase, begun), (_, over) in zip(begins, [*begins[1:], ("", end)], strict=True):
        found[phase] = found.get(phase, 0.0) + over - begun
    return found
