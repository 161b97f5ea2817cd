"""What nodes have, held against what they should have; nothing is changed."""

from __future__ import annotations

import shlex
from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import partial

import attrs

from imgload.clusters.nodes.node import Node
from imgload.clusters.nodes.survey import Survey
from imgload.core.errors import ImgloadError, NodeUnusable, NotProven
from imgload.core.parallel import in_parallel
from imgload.loader.events import Event, NodeDone
from imgload.loader.proof import Proof, prove
from imgload.loader.report import ImageResult, NodeResult, Report
from imgload.oci.digest import Digest
from imgload.sources.base import Image


@attrs.frozen
class Remedy:
    """The command that loads what a node lacks.

    Args:
        texts: what each image was asked for by, by its name on the nodes; empty for the only one.
        options: where it comes from, and what else was said of it.

    """

    texts: Mapping[str, str]
    options: Sequence[str] = ()

    @classmethod
    def of(
        cls,
        images: Iterable[Image],
        source: str | None,
        name: str | None,
        platform: str | None,
    ) -> Remedy:
        """Return the command for images that were asked for so."""
        texts = {
            image.name: image.query or (image.name if name is None else "") for image in images
        }
        given = {"--from": source, "--as": name, "--platform": platform}
        words = [(flag, value) for flag, value in given.items() if value is not None]
        return cls(texts, [word for pair in words for word in pair])

    def command(self, image: Image, node: Node) -> str:
        """Return the command, as a shell takes it."""
        words = [*filter(None, [self.texts[image.name]]), *self.options, "--node", node.name]
        return shlex.join(["imgload", "load", *words])


@attrs.frozen
class Verification:
    """One look at some nodes.

    Args:
        nodes: all that were asked.
        surveys: their answers, by name.
        errors: why the others did not answer.
        on_event: told each result.
        remedy: what is to be done where an image is not.
        deep: whether what is proven is read again.

    """

    nodes: Sequence[Node]
    surveys: Mapping[str, Survey]
    errors: Mapping[str, ImgloadError]
    on_event: Callable[[Event], None]
    remedy: Remedy
    deep: bool = False

    def report(self, images: Sequence[Image]) -> Report:
        """Return what each node has of each image."""
        return Report(tuple(self._image(image) for image in images))

    def _image(self, image: Image) -> ImageResult:
        results = tuple(in_parallel([partial(self._result, image, node) for node in self.nodes]))
        for result in results:
            self.on_event(NodeDone(image.name, result))
        return ImageResult(image.name, image.image_id, image.source, image.platform, results)

    def _result(self, image: Image, node: Node) -> NodeResult:
        if error := self.errors.get(node.name):
            return NodeResult(node.name, None, error=error)
        survey = self.surveys[node.name]
        proof = prove(image, survey)
        if proof.ok:
            return self._present(image, node, proof)
        if proof.awaits_cri:
            try:
                node.require_cri(survey, image.name)
            except NodeUnusable as error:
                return NodeResult(node.name, None, proof, error=error)
        message = f"{node.name} {_finding(image, survey, proof)}"
        hint = self.remedy.command(image, node)
        return NodeResult(node.name, None, proof, error=NotProven(message, hint=hint))

    def _present(self, image: Image, node: Node, proof: Proof) -> NodeResult:
        result = NodeResult(node.name, "present", proof)
        if not self.deep:
            return result
        from imgload.loader.checksums import deepened  # noqa: PLC0415 - start-up

        return deepened(node, image.name, result)


def _finding(image: Image, survey: Survey, proof: Proof) -> str:
    target = survey.records.get(image.name)
    if target is None:
        return lacks(image.name)
    others = survey.content.configs_under(target) - {image.image_id}
    if others:
        wanted = image.image_id.short if image.image_id else "this one"
        return has_another(image.name, others, wanted)
    if proof.awaits_cri:
        return unknown_to_cri(image.name)
    return f"has {image.name} only in part: {', '.join(proof.missing())} is missing"


def lacks(name: str) -> str:
    """Return what is said of a node, after its own name, that has no image of a name."""
    return f"does not have {name}"


def has_another(name: str, there: Iterable[Digest], wanted: str) -> str:
    """Return what is said of a node that has other images under a name."""
    listed = ", ".join(sorted(digest.short for digest in there))
    return f"has another image under {name}: {listed}, not {wanted}"


def unknown_to_cri(name: str) -> str:
    """Return what is said of a node whose containerd has an image that its CRI does not."""
    return f"has {name}, and its CRI does not know of it: no pod can use it"
