"""A load, told in kind's words."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping

import attrs

from imgload.core.errors import ReferenceInvalid
from imgload.loader.events import Event, ImageFound, SendingStarted
from imgload.loader.report import ImageResult, Report
from imgload.oci.reference import Reference
from imgload.tools.dropins.pflag import quoted
from imgload.tools.dropins.tool import Story


@attrs.define
class KindStory(Story):
    """What kind says of images, with the names that it was given; of archives it says nothing."""

    names: Mapping[str, str]
    _ids: dict[str, str] = attrs.field(factory=dict)
    _told: set[tuple[str, str]] = attrs.field(factory=set)

    @classmethod
    def of(cls, images: Iterable[str]) -> KindStory:
        """Return who tells of images, by the names that they were asked for under."""
        return cls({_record(image): image for image in images})

    def tell(self, event: Event) -> Iterator[str]:
        """Yield a line for each image that a node lacks, once."""
        if isinstance(event, ImageFound):
            self._ids[event.reference] = str(event.image_id or "")
        elif isinstance(event, SendingStarted) and self.names:
            fresh = {(event.node, reference) for reference in event.references} - self._told
            self._told |= fresh
            for node, reference in sorted(fresh):
                image = self._image(reference)
                yield f"Image: {image} not yet present on node {quoted(node)}, loading..."

    def conclude(self, report: Report) -> Iterator[str]:
        """Yield a line for each image that was there."""
        for image in report.images if self.names else ():
            yield from self._conclude(image)

    def _conclude(self, image: ImageResult) -> Iterator[str]:
        for node in image.nodes:
            if node.action == "tagged":
                yield (
                    f"Image with ID: {image.image_id} already present on the node {node.node} but"
                    f" is missing the tag {image.reference}. re-tagging..."
                )
        if all(node.action == "present" for node in image.nodes):
            told = self._image(image.reference)
            yield f"Image: {told} found to be already present on all nodes."

    def _image(self, reference: str) -> str:
        name = self.names.get(reference, reference)
        return f"{quoted(name)} with ID {quoted(self._ids.get(reference, ''))}"


def _record(image: str) -> str:
    try:
        return Reference.parse(image).record
    except ReferenceInvalid:
        return image
