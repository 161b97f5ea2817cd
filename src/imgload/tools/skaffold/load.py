"""Load a build for Skaffold, under the names that Skaffold deploys.

Skaffold deploys ``REPOSITORY:HEX``, with the built image's ID as the Docker API reports it, and not
the name that it requested (pkg/skaffold/build/local, pkg/skaffold/docker/image.go).
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
from imgload.sources.engine import EngineSource
from imgload.tools.skaffold.request import Request


def platforms_of(nodes: Sequence[Node]) -> set[Platform]:
    """Return the nodes' platforms."""
    return {node.survey(NOTHING).traits.platform for node in nodes}


@attrs.frozen
class PreparedLoad:
    """A load that is prepared while its image is being built."""

    loader: Loader
    on_event: Callable[[Event], None]

    @classmethod
    def prepared(
        cls, nodes: Sequence[Node], image: str, on_event: Callable[[Event], None]
    ) -> PreparedLoad:
        """Survey the nodes in advance, and ignore errors: `load` raises them again."""
        loader = Loader([], nodes)
        with suppress(ImgloadError):
            loader.survey_ahead(image)
        import_module("imgload.sources.push")
        return cls(loader, on_event)

    def note(self, text: str) -> None:
        """Show a note to the user."""
        self.on_event(Note(text))

    def load(
        self, engine: Engine, request: Request, image: Digest, platform: Platform | None
    ) -> Report:
        """Load an engine's image, and verify it under all its names.

        `image` is the engine's ID: another build may take the name over meanwhile. The first load
        already uses the delta transport, so that Docker's graphdriver compresses the base layers
        then, and not at the first rebuild.
        """
        source = EngineSource(engine)
        self.loader.sources = [source]
        try:
            sourced = source.find(str(image), platform)
            known = source.identify(sourced) if sourced else None
            ids = [known.target, known.image_id] if known else []
            return self.loader.load(
                [str(image)],
                tag=request.image,
                extra_tags=[
                    str(attrs.evolve(request.reference, tag=tag, digest=None))
                    for tag in dict.fromkeys(digest.hex for digest in ids if digest)
                ],
                platform=str(platform) if platform else None,
                transport="delta",
                on_event=self.on_event,
            )
        finally:
            source.release()
