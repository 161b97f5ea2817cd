"""Plans a step for each image and node; pure.

kind plans for all images together, so that one missing image has it send every image again.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Literal

import attrs

from imgload.clusters.nodes.proof import Proof, prove
from imgload.loader.report import Action
from imgload.oci.digest import Digest, chain_ids
from imgload.sources.base import Image

if TYPE_CHECKING:
    from imgload.clusters.nodes.containerd import ContentStore
    from imgload.clusters.nodes.survey import Survey

Verify = Literal["cri", "deep", "files", "contents"]


@attrs.frozen
class Step:
    """The planned action for one image on one node.

    Args:
        image: the image, under one name.
        node: the node's name.
        action: ``delta`` if the node has some of its layers, ``full`` if it has none.
        proof: the values read from the node, for action ``present``.
        tag_from: for action ``tagged``, the image's name on the node; its own name if only CRI
            lacks it.
        missing: diff IDs of the layers that the node lacks. A node has a layer if it has its chain
            ID: the same layer on another parent is another snapshot. If the content must be
            complete, it must have a blob of it, too.

    """

    image: Image
    node: str
    action: Action
    proof: Proof | None = None
    tag_from: str = ""
    missing: frozenset[Digest] = frozenset()

    @property
    def unavailable(self) -> frozenset[Digest]:
        """The missing layers that the source does not have either."""
        return self.missing.intersection(self.image.absent_layers)


@attrs.frozen
class Plan:
    """All steps."""

    steps: tuple[Step, ...]

    def groups(self) -> list[tuple[tuple[Image, ...], tuple[str, ...]]]:
        """Return the images to send, and the nodes that get them; nodes share a transfer."""
        by_node: dict[tuple[str, str], list[Image]] = {}
        for step in self.steps:
            if step.action in {"full", "delta"}:
                key = (step.node, f"{step.image.source} {step.image.platform}")
                by_node.setdefault(key, []).append(step.image)
        groups: dict[tuple[Image, ...], list[str]] = {}
        for (node, _), images in by_node.items():
            groups.setdefault(tuple(images), []).append(node)
        return [(images, tuple(nodes)) for images, nodes in groups.items()]


def decide(
    image: Image, node: str, survey: Survey, *, keep_manifest: bool = False, complete: bool = False
) -> Step:
    """Plan the step for one image and one node."""
    proof = prove(image, survey, needs_layers=complete)
    manifest = image.manifest_digest or (image.manifest.digest if image.manifest else None)
    if keep_manifest and manifest and survey.records.get(image.name) not in {manifest, image.pin}:
        return send_step(image, node, survey, keep_manifest=True, complete=complete)
    if proof.ok:
        return Step(image, node, "present", proof)
    if proof.cri_pending:
        return Step(image, node, "tagged", tag_from=image.name)
    others = survey.names_of(image.image_id) if image.image_id else []
    if image.pin:
        others = [name for name in others if survey.records[name] == image.pin]
    if others and proof.diff_ids and proof.unpacked and image.name not in others:
        named = prove(attrs.evolve(image, name=others[0]), survey)
        if named.layers == "complete" or not complete:
            return Step(image, node, "tagged", tag_from=others[0])
    return send_step(image, node, survey, keep_manifest=keep_manifest, complete=complete)


def send_step(
    image: Image, node: str, survey: Survey, *, keep_manifest: bool = False, complete: bool = False
) -> Step:
    """Plan to send the layers that a node lacks."""
    missing = not_unpacked(image.diff_ids, survey)
    if complete:
        stored = stored_layers(image, survey.content, keep_manifest=keep_manifest)
        missing |= frozenset(image.diff_ids) - stored
    action: Action = "delta" if missing < set(image.diff_ids) else "full"
    return Step(image, node, action, missing=missing)


def not_unpacked(diff_ids: tuple[Digest, ...], survey: Survey) -> frozenset[Digest]:
    """Return the layers of an image of which a node lacks a snapshot, by diff ID."""
    chains = zip(chain_ids(diff_ids), diff_ids, strict=True)
    return frozenset(layer for chain, layer in chains if chain not in survey.snapshots)


def stored_layers(
    image: Image, content: ContentStore, *, keep_manifest: bool = False
) -> frozenset[Digest]:
    """Return the diff IDs of layers that a node stores in a form that the manifest may name."""
    if keep_manifest or image.required_digests:
        forms, blobs = set[Digest](), image.blobs if image.manifest else ()
    else:
        forms, blobs = {*content.forms_of(image.diff_ids).values(), *content.blobs}, image.blobs
    pairs = zip(image.diff_ids, blobs, strict=False)
    return frozenset(d for d, blob in pairs if d in forms or blob in content.blobs)


def make_plan(
    images: Sequence[Image],
    surveys: Mapping[str, Survey],
    *,
    keep_manifest: bool = False,
    complete: bool = False,
) -> Plan:
    """Plan a step for every image and every surveyed node.

    With `keep_manifest`, an image whose name has another manifest on a node is not present; with
    `complete`, an image whose layers are not all in the content store.
    """
    steps = (
        decide(image, node, survey, keep_manifest=keep_manifest, complete=complete)
        for image in images
        for node, survey in surveys.items()
    )
    return Plan(tuple(steps))
