"""What happens during a load, told to `on_event` as plain values, from several threads."""

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
    """Images are on their way to a node; `size` is an estimate in bytes."""

    node: str
    references: tuple[str, ...]
    size: int


@attrs.frozen
class BytesSent:
    """A piece of `size` bytes was taken by a node."""

    node: str
    size: int


@attrs.frozen
class SendingEnded:
    """The node has everything and unpacks it, or failed."""

    node: str


@attrs.frozen
class NodeDone:
    """An image on a node is settled, well or not."""

    reference: str
    result: NodeResult


@attrs.frozen
class Note:
    """Something that the user should know, in one line."""

    text: str


Event = Note | ImageFound | SendingStarted | BytesSent | SendingEnded | NodeDone
