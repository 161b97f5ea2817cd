"""Compares an image with the values read back from a node."""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

import attrs

from imgload.oci.digest import Digest
from imgload.oci.reference import pinned

if TYPE_CHECKING:
    from imgload.clusters.nodes.survey import Survey


@attrs.frozen
class Proof:
    """The checks of one image on one node.

    Without crictl, `cri` is False if containerd's labels show that CRI does not have the image, and
    else None. `content` is whether every stored blob has its digest; None if none was hashed.
    """

    name: bool
    image_id: bool
    diff_ids: bool
    unpacked: bool
    cri: bool | None
    content: bool | None = None

    @property
    def ok(self) -> bool:
        """Whether every check passed."""
        return not self.missing()

    @property
    def cri_pending(self) -> bool:
        """Whether only CRI does not know the image yet."""
        return self.cri is False and not attrs.evolve(self, cri=None).missing()

    def missing(self) -> list[str]:
        """Describe the failed checks."""
        checks = {
            "its name": self.name,
            "its image ID": self.image_id,
            "its layers' diff IDs": self.diff_ids,
            "its unpacked snapshot": self.unpacked,
            "CRI's confirmation": self.cri is not False,
            "undamaged content": self.content is not False,
        }
        return [text for text, passed in checks.items() if not passed]


class Expected(Protocol):
    """An image that a node should have under a name."""

    @property
    def name(self) -> str: ...

    @property
    def image_id(self) -> Digest | None: ...

    @property
    def diff_ids(self) -> tuple[Digest, ...]: ...


@attrs.frozen
class ExpectedImage:
    """An expected image without a source."""

    name: str
    image_id: Digest | None
    diff_ids: tuple[Digest, ...]


def prove(image: Expected, survey: Survey) -> Proof:
    """Compare an expected image with the survey of a node."""
    image_id = image.image_id
    config = survey.configs.get(image_id) if image_id else None
    chain_id = config.chain_id if config else None
    answer = survey.cri.get(image.name)
    by_labels = False if image.name in survey.not_in_cri else None
    target = survey.records.get(image.name)
    return Proof(
        name=target is not None and target == (pinned(image.name) or target),
        image_id=image_id is not None and survey.has(image.name, image_id),
        diff_ids=config is not None and config.diff_ids == image.diff_ids,
        unpacked=config is not None and (chain_id is None or chain_id in survey.snapshots),
        cri=answer.image_id == image_id if answer else by_labels,
    )
