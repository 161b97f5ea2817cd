"""Chooses between save and push by cost; pure.

Docker's containerd image store pushes stored blobs unchanged, eight times as fast as it saves.
Podman and Docker's graphdriver store compress pushed layers, which is slower than a save; but they
save whole images only.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from typing import Literal

import attrs

from imgload.engines.base import PushStyle
from imgload.oci.digest import Digest

TransportOption = Literal["auto", "archive", "delta"]

_CUT_OFF = "the engine cannot push to this process (does it run in a VM?): sending whole images"
_NO_PUSH = "the engine cannot push an image without a name: sending it whole"
_REMOTE = "an engine on another machine cannot push to this one: sending whole images"
_UNKNOWN = "the image ID is not known before the image is saved: sending it whole"
_NOTED_BYTES = 16 << 20


@attrs.frozen
class Facts:
    """The facts that decide how one image is sent.

    Args:
        style: how the source pushes; None if it cannot push the image.
        cut_off: whether the engine is known not to reach our loopback.
        identified: whether the image ID is known, and the manifest if one is stored.
        diff_ids: the image's layers, bottom up.
        missing: indexes of the layers that a node lacks.
        sizes: bytes of the layers, bottom up; empty if unknown.
        known_layers: diff IDs of the layers that the engine has pushed before.
        local: whether the source's engine is on this machine.

    """

    style: PushStyle | None
    cut_off: bool
    identified: bool
    diff_ids: Sequence[Digest]
    missing: Collection[int]
    sizes: Sequence[int]
    known_layers: Collection[Digest]
    local: bool = True

    @property
    def pushable(self) -> bool:
        """Whether the engine can push the image, and imgload can check its ID."""
        return self.style is not None and self.identified and not self.cut_off


@attrs.frozen
class Choice:
    """Push or save, and a note for the user; empty for none."""

    push: bool
    note: str = ""


def choose(option: TransportOption, facts: Facts) -> Choice:
    """Choose for one image."""
    if option == "archive" or not facts.pushable:
        return Choice(push=False, note=_why_no_push(option, facts))
    if option == "auto" and facts.style != "stored":
        sizes = facts.sizes if len(facts.sizes) == len(facts.diff_ids) else ()
        mostly_missing = bool(sizes) and sum(sizes[i] for i in facts.missing) > sum(sizes) / 2
        if mostly_missing or len(facts.missing) == len(facts.diff_ids):
            return Choice(push=False)
    return Choice(push=True, note=_compression_note(facts))


def _why_no_push(option: TransportOption, facts: Facts) -> str:
    if option == "archive":
        return ""
    if facts.style and facts.cut_off:
        return _CUT_OFF
    if option == "auto":
        return ""
    if not facts.local:
        return _REMOTE
    return _UNKNOWN if facts.style else _NO_PUSH


def _compression_note(facts: Facts) -> str:
    """Announce the layers that Docker must compress once, before it asks for their digests."""
    if facts.style != "remembering" or len(facts.sizes) != len(facts.diff_ids):
        return ""
    pairs = enumerate(zip(facts.diff_ids, facts.sizes, strict=True))
    first = len(facts.missing) == len(facts.diff_ids)
    expected = () if first else facts.missing
    new = sum(s for i, (d, s) in pairs if d not in facts.known_layers and i not in expected)
    if new < _NOTED_BYTES:
        return ""
    return (
        f"Docker compresses {new >> 20} MiB of {'' if first else 'unchanged '}layers, this once;"
        " from the next build on only what changed moves"
    )
