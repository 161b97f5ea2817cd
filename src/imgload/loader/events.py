"""The events of a load: `on_event` is called with them, from several threads."""

from __future__ import annotations

import attrs

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
    """One line of information for the user."""

    text: str


Event = Note | ImageFound | SendingStarted | BytesSent | SendingEnded | NodeDone
