"""The interface of a transport: it delivers the content of images to nodes."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Collection, Mapping, Sequence
from typing import ClassVar

import attrs

from imgload.clusters.nodes.base import NodeRuntime
from imgload.clusters.nodes.survey import Survey, SurveyQuery
from imgload.core.errors import ImgloadError
from imgload.oci.content import Receiver
from imgload.oci.digest import Digest
from imgload.oci.document import Descriptor
from imgload.oci.platform import Platform

StoredLayers = Mapping[Digest, Descriptor]
"""The blobs in which a node stores layers, by diff ID."""


@attrs.frozen
class Order:
    """The nodes of a delivery, and the layers that each of them needs.

    Args:
        nodes: the destinations.
        platform: the platform of the images; that of a node if they declare none.
        question: the survey of each node after the import.
        missing: diff IDs of the layers that each node lacks, by node name; None for all layers.
        unpacked: diff IDs of the layers that each node has unpacked and need not store again, by
            node name: a pull omits them.
        stored: the blobs in each node's content store, by node name.
        stored_layers: describes blobs in which a node, by its name, stores layers, by diff ID.
        discarded: names of nodes that have some layers of the images only as snapshots.
        keep_manifest: whether manifests and layers must be delivered unchanged.
        size: bytes of the images, as the source counts them.
        on_bytes: called with a node's name and the number of bytes it read, from several threads.

    """

    nodes: Sequence[NodeRuntime]
    platform: Platform
    question: SurveyQuery
    missing: Mapping[str, frozenset[Digest]] | None = attrs.field(default=None, hash=False)
    unpacked: Mapping[str, frozenset[Digest]] = attrs.field(factory=dict, hash=False)
    stored: Mapping[str, frozenset[Digest]] = attrs.field(factory=dict, hash=False)
    stored_layers: Callable[[str, Collection[Digest]], StoredLayers] = lambda _node, _layers: {}
    discarded: frozenset[str] = frozenset()
    keep_manifest: bool = False
    size: int = 0
    on_bytes: Callable[[str, int], None] = lambda _node, _size: None


@attrs.frozen
class Delivery:
    """The result of a delivery on one node.

    Args:
        bytes_sent: bytes that the node read.
        error: why it failed, or None.
        note: why another transport was used than planned; empty if none was.
        transport: the name of the transport; empty for the one that was asked to deliver.
        survey: the node's state right after the import; None if that was not read.

    """

    bytes_sent: int
    error: ImgloadError | None = None
    survey: Survey | None = None
    note: str = ""
    transport: str = ""


class Shipment(Receiver):
    """A running delivery: send content to it, then `complete` it and wait until it is finished.

    Attributes:
        sent: bytes of the blobs that each node was sent, by their digests.

    """

    sent: dict[str, dict[Digest, int]]

    @property
    def plain_sizes(self) -> Mapping[Digest, int]:
        """Bytes of the layers that were decompressed for this delivery, by diff ID."""
        return {}

    @abstractmethod
    def complete(self) -> None:
        """End the content after all images were sent."""

    @abstractmethod
    def finish(self) -> Mapping[str, Delivery]:
        """Wait until every node has the images or has failed; return the results by node name."""

    @abstractmethod
    def abort(self) -> None:
        """Stop, so that no node has any of the images."""


class Transport(ABC):
    """Delivers content to nodes; independent of sources.

    Attributes:
        name: for the report.

    """

    name: ClassVar[str]

    @abstractmethod
    def start(self, order: Order) -> Shipment:
        """Start a delivery; a node that fails does not stop the others."""
