"""How a node knows what imgload loaded: a label on the image's config in the content store.

A label on the image's record would be gone as soon as the name moves to the next build, which is
when it is needed: what is left then is CRI's record by the image ID. The config stays as long as
the image does, whatever it is called, and ``ctr content ls``, which is read anyway, shows its
labels.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence

from imgload.clusters.nodes.containerd import CTR
from imgload.oci.digest import Digest

_KEY = "imgload.loaded/"
_MARK = re.compile(rf"{re.escape(_KEY)}([^=,\s]{{1,1000}})=(\d{{1,11}}(?:\.\d{{1,3}})?)(?=,|\s|$)")


def mark_commands(loaded: Sequence[tuple[str, Digest]], now: float) -> list[Sequence[str]]:
    """Return the commands that mark images as loaded by imgload.

    One that fails changes nothing but that `imgload.prune` leaves the image alone.

    Args:
        loaded: names, each with the image ID it was loaded with.
        now: the time, in seconds since 1970.

    """
    return [
        (*CTR, "content", "label", str(config), f"{_KEY}{name}={now:.3f}")
        for name, config in loaded
    ]


def parse_marks(labels: str) -> Mapping[str, float]:
    """Return the names that an image was loaded under, and when, out of its config's labels."""
    return {name: float(seconds) for name, seconds in _MARK.findall(labels)}
