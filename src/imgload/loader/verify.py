"""Verifies images on nodes without changing anything."""

from __future__ import annotations

import shlex
from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import partial
from typing import TYPE_CHECKING

import attrs

from imgload.clusters.nodes.base import NodeRuntime, remove_leftovers
from imgload.clusters.nodes.proof import Proof, prove
from imgload.clusters.nodes.survey import Survey
from imgload.core.errors import ImgloadError, NodeUnusable, NotVerified
from imgload.core.parallel import in_parallel
from imgload.loader.events import Event, NodeDone, Note
from imgload.loader.report import ImageResult, NodeResult, Report
from imgload.oci.digest import Digest
from imgload.sources.base import Image

if TYPE_CHECKING:
    from imgload.loader.files import FileCheck


@attrs.frozen
class Verification:
    """Verifies images by the surveys of nodes, which are by name, as are `errors`.

    `errors` say why other nodes could not be surveyed. `options` are those of the command that
    loads a missing image; the value of a flag is empty. `check` compares the files, too.
    """

    nodes: Sequence[NodeRuntime]
    surveys: Mapping[str, Survey]
    errors: Mapping[str, ImgloadError]
    on_event: Callable[[Event], None]
    options: Mapping[str, str | None]
    deep: bool = False
    complete: bool = False
    check: FileCheck | None = None

    def report(self, images: Sequence[Image]) -> Report:
        """Verify each image on each node."""
        pairs = [(image, node) for image in images for node in self.nodes]
        verified = in_parallel([partial(self._result, *pair) for pair in pairs])
        results = dict(zip(pairs, verified, strict=True))
        if self.check:
            remove_leftovers(node for node in self.nodes if node.name in self.surveys)
            by_name = {node.name: node for node in self.nodes}
            checked = [(image, result) for (image, _), result in results.items()]
            for image, result in self.check.run(checked):
                results[image, by_name[result.node]] = result
        for (image, _), result in results.items():
            self.on_event(NodeDone(image.name, result))
        return Report(
            tuple(
                ImageResult(
                    image.name,
                    image.image_id,
                    image.source,
                    image.platform,
                    tuple(results[image, node] for node in self.nodes),
                )
                for image in images
            )
        )

    def _result(self, image: Image, node: NodeRuntime) -> NodeResult:
        if error := image.error or self.errors.get(node.name):
            return NodeResult(node.name, None, error=error)
        survey = self.surveys[node.name]
        proof = prove(image, survey, needs_layers=self.complete)
        if proof.ok:
            for note in node.kubelet_notes(survey.traits, image.name, image.image_id):
                self.on_event(Note(note))
            result = NodeResult(node.name, "present", proof)
            if not self.deep:
                return result
            from imgload.loader.checksums import verify_blobs  # noqa: PLC0415 - start-up

            return verify_blobs(node, image.name, result)
        if proof.cri_pending:
            try:
                node.require_cri(survey, image.name)
            except NodeUnusable as error:
                return NodeResult(node.name, None, proof, error=error)
        message = f"{node.name} {_difference(image, survey, proof)}"
        refusal = NotVerified(
            message, hint=self._load_command(image, node), node=node.name, image=image.name
        )
        return NodeResult(node.name, None, proof, error=refusal)

    def _load_command(self, image: Image, node: NodeRuntime) -> str:
        text = image.query or (image.name if self.options["--tag"] is None else "")
        words = ["imgload", "load", *([text] if text else [])]
        source = {} if image.query else {"--from": image.origin.address}
        for option, value in {**self.options, **source, "--node": node.name}.items():
            words += [option, *filter(None, [value])] if value is not None else []
        return shlex.join([*words, *(["--complete"] if self.complete else [])])


def _difference(image: Image, survey: Survey, proof: Proof) -> str:
    target = survey.records.get(image.name)
    if target is None:
        return lacks(image.name)
    others = survey.content.configs_under(target) - {image.image_id}
    if others:
        wanted = image.image_id.short if image.image_id else "this one"
        return has_another(image.name, others, wanted)
    if proof.cri_pending:
        return unknown_to_cri(image.name)
    if attrs.evolve(proof, needs_layers=False).ok:
        return f"has {image.name}, but {proof.partial_reason or 'its layers are unknown'}"
    return f"has {image.name} only in part: {', '.join(proof.missing())} is missing"


def lacks(name: str) -> str:
    """Describe a node without an image of that name; the text follows the node's name."""
    return f"does not have {name}"


def has_another(name: str, image_ids: Iterable[Digest], wanted: str) -> str:
    """Describe a node that has other images under a name."""
    listed = ", ".join(sorted(digest.short for digest in image_ids))
    return f"has another image under {name}: {listed}, not {wanted}"


def unknown_to_cri(name: str) -> str:
    """Describe a node whose containerd has an image that its CRI does not have."""
    return f"has {name}, but CRI does not report it: no pod can use it"
