"""An import, told in k3d's words."""

from __future__ import annotations

from collections.abc import Iterator

from imgload.loader.events import Event, SendingStarted
from imgload.loader.report import Report
from imgload.tools.dropins.tool import Story


class K3dStory(Story):
    """What k3d says."""

    def tell(self, event: Event) -> Iterator[str]:
        """Yield a line for each node that is sent to."""
        if isinstance(event, SendingStarted):
            names = " ".join(event.references)
            yield f"Importing images '[{names}]' into node '{event.node}'..."

    def conclude(self, report: Report) -> Iterator[str]:
        """Yield a line for each load."""
        yield f"Successfully imported {len(report.images)} image(s)"
