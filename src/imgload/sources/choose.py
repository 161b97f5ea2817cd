"""Which transport is the cheapest for what is missing; pure.

The rates are those of the engines: Docker's containerd image store pushes its blobs as they are,
eight times as fast as it saves. Podman and Docker's graphdriver store compress what they push, and
are slower then than at a save; but they save whole images only.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from typing import Literal

import attrs

from imgload.engines.base import PushStyle
from imgload.oci.digest import Digest

TransportOption = Literal["auto", "archive", "delta"]

_MOSTLY = 0.5
_CUT_OFF = "the engine cannot push to this process (does it run in a VM?): sending whole images"
_NO_PUSH = "the engine cannot push an image without a name: sending it whole"
_REMOTE = "an engine on another machine cannot push to this one: sending whole images"
_UNKNOWN = "the image ID is not known before the image is saved: sending it whole"
_WORTH_TELLING = 16 << 20


@attrs.frozen
class Facts:
    """What is known before an image is sent.

    Args:
        style: how the source's engine pushes; None when it is no engine.
        cut_off: whether the engine is known not to reach our loopback.
        identified: whether the image ID is known, and the manifest where one is stored.
        diff_ids: the image's layers, bottom up.
        missing: the places of those that a node lacks.
        sizes: bytes of the layers, bottom up; empty when not known.
        learnt: diff IDs of the layers that the engine has pushed before.
        local: whether the source's engine is on this machine.

    """

    style: PushStyle | None
    cut_off: bool
    identified: bool
    diff_ids: Sequence[Digest]
    missing: Collection[int]
    sizes: Sequence[int]
    learnt: Collection[Digest]
    local: bool = True

    @property
    def pushable(self) -> bool:
        """Whether the image can be pushed to us, and checked against its ID."""
        return self.style is not None and self.identified and not self.cut_off


@attrs.frozen
class Choice:
    """The transport, and what the user should be told about it, if anything."""

    push: bool
    note: str = ""


def choose(option: TransportOption, facts: Facts) -> Choice:
    """Choose for one image."""
    if option == "archive" or not facts.pushable:
        return Choice(push=False, note=_why_not(option, facts))
    if option == "delta" or facts.style == "stored":
        return Choice(push=True, note=_price(facts))
    if len(facts.missing) == len(facts.diff_ids) or _mostly_missing(facts):
        return Choice(push=False)
    return Choice(push=True, note=_price(facts))


def _why_not(option: TransportOption, facts: Facts) -> str:
    if option == "archive":
        return ""
    if facts.style and facts.cut_off:
        return _CUT_OFF
    if option == "auto":
        return ""
    if not facts.local:
        return _REMOTE
    return _UNKNOWN if facts.style else _NO_PUSH


def _mostly_missing(facts: Facts) -> bool:
    if len(facts.sizes) != len(facts.diff_ids):
        return False
    missing = sum(facts.sizes[i] for i in facts.missing)
    return missing > _MOSTLY * sum(facts.sizes)


def _price(facts: Facts) -> str:
    """Announce the layers that Docker compresses once, before it can tell us that it has them."""
    if facts.style != "remembering" or len(facts.sizes) != len(facts.diff_ids):
        return ""
    pairs = enumerate(zip(facts.diff_ids, facts.sizes, strict=True))
    first = len(facts.missing) == len(facts.diff_ids)
    asked = () if first else facts.missing
    new = sum(s for i, (d, s) in pairs if d not in facts.learnt and i not in asked)
    if new < _WORTH_TELLING:
        return ""
    return (
        f"Docker compresses {new >> 20} MiB of {'' if first else 'unchanged '}layers, this once;"
        " from the next build on only what changed moves"
    )
