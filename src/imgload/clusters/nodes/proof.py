"""Compares an image with the values read back from a node."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Literal, Protocol

import attrs

from imgload.oci.digest import Digest
from imgload.oci.reference import pinned

if TYPE_CHECKING:
    from imgload.clusters.nodes.survey import Survey
    from imgload.oci.document import ImageConfig


@attrs.frozen
class Proof:
    """The checks of one image on one node.

    Without crictl, `cri` is False if containerd's labels show that CRI does not have the image, and
    else None. `content` is whether every stored blob has its digest; None if none was hashed.
    `files` is whether the unpacked files are those of the layers; None if they were not compared.
    `absent` are the diff IDs of layers that the content store lacks; None if that is unknown.
    Containers need only their snapshots, so that is a failure only if `needs_layers`. `runtime` is
    the name of the runtime that was asked. `pinned` is whether the name is pinned, for CRI as well
    if there is crictl; None if that was not requested.
    """

    name: bool
    image_id: bool
    diff_ids: bool
    unpacked: bool
    cri: bool | None
    content: bool | None = None
    files: bool | None = None
    absent: frozenset[Digest] | None = None
    needs_layers: bool = False
    runtime: str = "containerd"
    pinned: bool | None = None

    @property
    def layers(self) -> Literal["complete", "partial"] | None:
        """Whether the content store has all layers, as ``ctr images check`` reports it."""
        if self.absent is None:
            return None
        return "partial" if self.absent else "complete"

    @property
    def partial_reason(self) -> str:
        """Why the content is partial; otherwise empty."""
        count = len(self.absent or ())
        layers = f"{count} layers are" if count > 1 else "a layer is"
        return f"{layers} unpacked, but not in the content store" if count else ""

    @property
    def ok(self) -> bool:
        """Whether every check passed."""
        return not self.missing()

    @property
    def cri_pending(self) -> bool:
        """Whether only CRI does not know the image, or its pin, yet."""
        return not self.ok and not attrs.evolve(self, cri=None, pinned=None).missing()

    def to_json(self) -> dict[str, Any]:
        """Return the checks; `content`, `files` and `pinned` only if they were requested."""
        names = ["name", "image_id", "diff_ids", "unpacked", "cri"]
        names += [
            name for name in ("content", "files", "pinned") if getattr(self, name) is not None
        ]
        return {name: getattr(self, name) for name in names}

    def missing(self) -> list[str]:
        """Describe the failed checks."""
        checks = {
            "its name": self.name,
            "its image ID": self.image_id,
            "its layers' diff IDs": self.diff_ids,
            "its unpacked snapshot": self.unpacked,
            "CRI's confirmation": self.cri is not False,
            "undamaged content": self.content is not False,
            "its files": self.files is not False,
            "its layers in the content store": self.layers == "complete" or not self.needs_layers,
            "its pin": self.pinned is not False,
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


def prove(
    image: Expected, survey: Survey, *, needs_layers: bool = False, needs_pin: bool = False
) -> Proof:
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
        absent=_absent_layers(target, config, survey) if target and config else None,
        needs_layers=needs_layers,
        runtime=survey.traits.runtime,
        pinned=_is_pinned(image.name, survey) if needs_pin else None,
    )


def _is_pinned(name: str, survey: Survey) -> bool:
    answer = survey.cri.get(name)
    return name in survey.pinned and (answer is None or answer.pinned)


def _absent_layers(target: Digest, config: ImageConfig, survey: Survey) -> frozenset[Digest] | None:
    content = survey.content
    for manifest in content.manifests_under(target):
        if content.configs[manifest] == config.digest:
            stored = content.stored_layers(manifest, config.diff_ids)
            return None if stored is None else frozenset(config.diff_ids) - stored
    return None
