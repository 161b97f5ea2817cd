"""Surveys in, plan out; pure.

The plan is made for each image and each node: kind decides on one list of nodes for all images,
so that one missing image sends every image again.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Literal

import attrs

from imgload.oci.digest import Digest, chain_ids
from imgload.oci.platform import Platform
from imgload.reference import pinned

if TYPE_CHECKING:
    from imgload.nodes.survey import Survey

Action = Literal["present", "tagged", "delta", "full"]
Verify = Literal["cri", "deep"]


@attrs.frozen
class Image:
    """An image to load under one name.

    Args:
        name: as containerd keeps it, and as a pod spec's name is resolved to.
        target: the digest that the source knows it by.
        image_id: digest of the config; None where only the transfer will tell.
        diff_ids: its layers, bottom up.
        platform: what it runs on.
        size: bytes, as the source counts them.
        source: the name of the source, for the report.

    """

    name: str
    target: Digest
    image_id: Digest | None
    diff_ids: tuple[Digest, ...]
    platform: Platform
    size: int
    source: str

    @property
    def pin(self) -> Digest | None:
        """The manifest digest that the name demands, or None."""
        return pinned(self.name)


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


@attrs.frozen
class Step:
    """What is to be done about one image on one node.

    `tag_from` for action ``tagged``: the name that it has, or its own where only CRI lacks it.
    """

    image: Image
    node: str
    action: Action
    proof: Proof | None = None
    tag_from: str = ""


@attrs.frozen
class Plan:
    """All steps."""

    steps: tuple[Step, ...]

    def groups(self) -> list[tuple[tuple[Image, ...], tuple[str, ...]]]:
        """Return which images are to be sent to which nodes, the most nodes at once."""
        lacking: dict[tuple[str, str], list[Image]] = {}
        for step in self.steps:
            if step.action in {"full", "delta"}:
                key = (step.node, f"{step.image.source} {step.image.platform}")
                lacking.setdefault(key, []).append(step.image)
        together: dict[tuple[Image, ...], list[str]] = {}
        for (node, _), images in lacking.items():
            together.setdefault(tuple(images), []).append(node)
        return [(images, tuple(nodes)) for images, nodes in together.items()]


def prove(image: Image, survey: Survey) -> Proof:
    """Compare what a node has with what it should have."""
    image_id = image.image_id
    config = survey.configs.get(image_id) if image_id else None
    chain_id = config.chain_id if config else None
    answer = survey.cri.get(image.name)
    unasked = False if image.name in survey.unseen else None
    target = survey.records.get(image.name)
    return Proof(
        name=target is not None and target == (image.pin or target),
        image_id=image_id is not None and survey.has(image.name, image_id),
        diff_ids=config is not None and config.diff_ids == image.diff_ids,
        unpacked=config is not None and (chain_id is None or chain_id in survey.snapshots),
        cri=answer.image_id == image_id if answer else unasked,
    )


def decide(image: Image, node: str, survey: Survey) -> Step:
    """Decide on one image and one node."""
    proof = prove(image, survey)
    if proof.ok:
        return Step(image, node, "present", proof)
    if proof.awaits_cri:
        return Step(image, node, "tagged", tag_from=image.name)
    others = survey.names_of(image.image_id) if image.image_id else []
    if image.pin:
        others = [name for name in others if survey.records[name] == image.pin]
    if others and proof.diff_ids and proof.unpacked and image.name not in others:
        return Step(image, node, "tagged", tag_from=others[0])
    missing = missing_layers(image.diff_ids, [survey.snapshots])
    return Step(image, node, "delta" if len(missing) < len(image.diff_ids) else "full")


def missing_layers(diff_ids: Sequence[Digest], snapshots: Iterable[frozenset[Digest]]) -> list[int]:
    """Return the places of the layers that at least one node lacks, bottom up.

    What counts is the chain ID: the same layer upon another parent is another snapshot.

    Args:
        diff_ids: the image's layers.
        snapshots: the chain IDs that each node has unpacked.

    """
    chains = chain_ids(tuple(diff_ids))
    there = list(snapshots)
    return [i for i, chain in enumerate(chains) if any(chain not in node for node in there)]


def layers_everywhere(
    diff_ids: Sequence[Digest], snapshots: Iterable[frozenset[Digest]]
) -> frozenset[Digest]:
    """Return the diff IDs that no node lacks at any place where the image has them."""
    missing = {diff_ids[place] for place in missing_layers(diff_ids, snapshots)}
    return frozenset(diff_ids) - missing


def make_plan(images: Sequence[Image], surveys: Mapping[str, Survey]) -> Plan:
    """Decide on every image and every node that could be surveyed."""
    return Plan(tuple(decide(i, node, s) for i in images for node, s in surveys.items()))
