"""Comparing an image with what was read back of a node."""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

import attrs

from imgload.oci.digest import Digest
from imgload.oci.reference import pinned

if TYPE_CHECKING:
    from imgload.clusters.nodes.survey import Survey


@attrs.frozen
class Proof:
    """What was read back of a node about one image.

    `cri` is None where there is no crictl to ask, unless containerd's labels say that CRI does not
    have the image: then it is False. `content` is whether what the node keeps of the image is what
    its digests say, read again; None where that was not asked.
    """

    name: bool
    image_id: bool
    diff_ids: bool
    unpacked: bool
    cri: bool | None
    content: bool | None = None

    @property
    def ok(self) -> bool:
        """Whether nothing is missing."""
        return not self.missing()

    @property
    def awaits_cri(self) -> bool:
        """Whether all is on the node, and CRI has not heard of it."""
        return self.cri is False and not attrs.evolve(self, cri=None).missing()

    def missing(self) -> list[str]:
        """Return what is missing, in words."""
        said = {
            "its name": self.name,
            "its image ID": self.image_id,
            "its layers' diff IDs": self.diff_ids,
            "its unpacked snapshot": self.unpacked,
            "CRI's confirmation": self.cri is not False,
            "undamaged content": self.content is not False,
        }
        return [what for what, there in said.items() if not there]


class Expected(Protocol):
    """An image that a node should have under a name."""

    @property
    def name(self) -> str:
        """The name, in full."""

    @property
    def image_id(self) -> Digest | None:
        """The digest of the config."""

    @property
    def diff_ids(self) -> tuple[Digest, ...]:
        """The layers, bottom up."""


@attrs.frozen
class ExpectedImage:
    """An expected image without a source."""

    name: str
    image_id: Digest | None
    diff_ids: tuple[Digest, ...]


def prove(image: Expected, survey: Survey) -> Proof:
    """Compare what a node has with what it should have."""
    image_id = image.image_id
    config = survey.configs.get(image_id) if image_id else None
    chain_id = config.chain_id if config else None
    answer = survey.cri.get(image.name)
    unasked = False if image.name in survey.unseen else None
    target = survey.records.get(image.name)
    return Proof(
        name=target is not None and target == (pinned(image.name) or target),
        image_id=image_id is not None and survey.has(image.name, image_id),
        diff_ids=config is not None and config.diff_ids == image.diff_ids,
        unpacked=config is not None and (chain_id is None or chain_id in survey.snapshots),
        cri=answer.image_id == image_id if answer else unasked,
    )
