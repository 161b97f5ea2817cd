"""Loading what was built for Skaffold, under the names that it deploys.

Skaffold deploys ``REPOSITORY:HEX``, of the ID that it reads out of the Docker API for the image
built, and not the name that it asked for (pkg/skaffold/build/local, pkg/skaffold/docker/image.go).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import suppress
from importlib import import_module

import attrs

from imgload.clusters.nodes.node import Node
from imgload.clusters.nodes.survey import NOTHING
from imgload.core.errors import ImgloadError
from imgload.engines.base import Engine
from imgload.loader.events import Event, Note
from imgload.loader.loader import Loader
from imgload.loader.report import Report
from imgload.oci.digest import Digest
from imgload.oci.platform import Platform
from imgload.oci.reference import Reference
from imgload.sources.base import Source
from imgload.sources.engine import EngineSource
from imgload.tools.skaffold.request import Request


def platforms_of(nodes: Sequence[Node]) -> set[Platform]:
    """Return what the nodes run."""
    return {node.survey(NOTHING).traits.platform for node in nodes}


@attrs.frozen
class Loading:
    """A load that is ready before its image is."""

    loader: Loader
    on_event: Callable[[Event], None]

    @classmethod
    def prepared(
        cls, nodes: Sequence[Node], image: str, on_event: Callable[[Event], None]
    ) -> Loading:
        """Do what a load begins with, while the image is being built.

        What is wrong with a node is said when the image is loaded.
        """
        loader = Loader([], nodes)
        with suppress(ImgloadError):
            loader.survey_ahead(image)
        import_module("imgload.sources.push")
        return cls(loader, on_event)

    def note(self, text: str) -> None:
        """Tell the user something."""
        self.on_event(Note(text))

    def load(
        self, engine: Engine, request: Request, image: Digest, platform: Platform | None
    ) -> Report:
        """Load the image that an engine has, and prove all its names.

        It goes by the delta transport from the first time on, so that Docker's graphdriver
        compresses its layers then, and not at the first rebuild.

        Args:
            engine: where the image is.
            request: the build that made it.
            image: what the engine calls its ID; another build may take the name over meanwhile.
            platform: of several that the image has.

        """
        source = EngineSource(engine)
        self.loader.sources = [source]
        try:
            return self.loader.load(
                [str(image)],
                name=request.image,
                also=deployed(request.reference, _ids(source, image, platform)),
                platform=str(platform) if platform else None,
                transport="delta",
                on_event=self.on_event,
            )
        finally:
            source.release()


def _ids(source: Source, image: Digest, platform: Platform | None) -> list[Digest | None]:
    """Return by which IDs an engine knows an image, and its image ID."""
    found = source.find(str(image), platform)
    known = source.identify(found) if found else None
    return [known.target, known.image_id] if known else []


def deployed(reference: Reference, ids: Sequence[Digest | None]) -> list[str]:
    """Return the names that Skaffold gives to an image of these IDs."""
    unique = dict.fromkeys(each.hex for each in ids if each)
    return [str(attrs.evolve(reference, tag=digits, digest=None)) for digits in unique]
