"""The events of a load: `on_event` is called with them, from several threads."""

from __future__ import annotations

from collections.abc import Callable

import attrs

from imgload.core.arguments import require_callback
from imgload.loader.report import NodeResult
from imgload.oci.digest import Digest


@attrs.frozen
class ImageFound:
    """A source has the image; `size` in bytes as the source counts them."""

    reference: str
    image_id: Digest | None
    source: str
    size: int


@attrs.frozen
class SendingStarted:
    """imgload starts to send images to a node; `size` is an estimate in bytes."""

    node: str
    references: tuple[str, ...]
    size: int


@attrs.frozen
class BytesSent:
    """A node has read `size` more bytes."""

    node: str
    size: int


@attrs.frozen
class SendingEnded:
    """The node has read all content and unpacks it, or has failed."""

    node: str


@attrs.frozen
class NodeDone:
    """The result of an image on a node, successful or not."""

    reference: str
    result: NodeResult


@attrs.frozen
class Note:
    """One line of information for the user; a warning if the images may not run."""

    text: str
    is_warning: bool = False


Event = Note | ImageFound | SendingStarted | BytesSent | SendingEnded | NodeDone


@attrs.frozen(eq=False)
class NoteCollector:
    """A callback that passes events on, each note once, and keeps the notes' texts."""

    on_event: Callable[[Event], None]
    texts: list[str] = attrs.field(factory=list)

    def __attrs_post_init__(self) -> None:
        require_callback(self.on_event, "on_event")

    def __call__(self, event: Event) -> None:
        if isinstance(event, Note):
            if event.text in self.texts:
                return
            self.texts.append(event.text)
        self.on_event(event)
