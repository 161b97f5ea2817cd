"""The import transport: a stream into ``ctr images import`` on each node."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping

import attrs

from imgload.clusters.nodes.base import NodeRuntime
from imgload.core.errors import ImgloadError, ImportFailed
from imgload.core.parallel import Task
from imgload.oci.content import Chunk
from imgload.oci.reference import pinned
from imgload.transports.base import Delivery, Order, Shipment, Transport
from imgload.transports.layout import Feed, LayoutWriter

_ABORT_SECONDS = 1.5
"""How long nodes may take to end an import whose stream was cut off."""


@attrs.define(eq=False, repr=False)
class ImportShipment(LayoutWriter, Shipment):
    """A layout that each node imports while it is written."""

    _tasks: Mapping[str, Task[Delivery]] = attrs.field(factory=dict)

    def complete(self) -> None:
        self.close()
        for feed in self.feeds.values():
            feed.complete()

    def finish(self) -> Mapping[str, Delivery]:
        return {name: task.result() for name, task in self._tasks.items()}

    def abort(self) -> None:
        for feed in self.feeds.values():
            feed.abort()
        deadline = time.monotonic() + _ABORT_SECONDS
        for task in self._tasks.values():
            task.wait_at_most(max(0.0, deadline - time.monotonic()))


class ImportTransport(Transport):
    """Streams one OCI layout into ``ctr images import`` on each node."""

    name = "import"

    def start(self, order: Order) -> ImportShipment:
        streams = [_Stream(node, order) for node in order.nodes]
        return ImportShipment(
            feeds={stream.node.name: stream.feed for stream in streams},
            missing=order.missing,
            stored=order.stored,
            stored_layers=order.stored_layers,
            keep_manifest=order.keep_manifest,
            platform=order.platform,
            docker_nodes=frozenset(n.name for n in order.nodes if n.archive_format == "docker"),
            tasks={stream.node.name: Task(stream.run) for stream in streams},
        )


@attrs.define(eq=False, repr=False)
class _Stream:
    node: NodeRuntime
    order: Order
    feed: Feed = attrs.field(factory=Feed)
    sent: int = 0

    def run(self) -> Delivery:
        node, order = self.node, self.order
        layout = self._counted()
        try:
            self._require_manifests()
            survey = node.import_layout(layout, order.platform, order.question)
        except ImgloadError as error:
            return Delivery(self.sent, error, transport=ImportTransport.name)
        finally:
            self.feed.leave()
        return Delivery(self.sent, survey=survey, transport=ImportTransport.name)

    def _require_manifests(self) -> None:
        """Raise ImportFailed if the node would lose a manifest that it must keep."""
        order, node = self.order, self.node.name
        names = [n for n in order.question.names if order.keep_manifest or pinned(n)]
        if names and not self.node.keeps_manifests:
            raise ImportFailed(
                f"{node} cannot keep the manifest of {', '.join(names)}: it imports"
                " docker-archives, which have none",
                hint="load it without --keep-manifest, by a name without a digest: --tag NAME",
                node=node,
            )

    def _counted(self) -> Iterator[Chunk]:
        for chunk in self.feed:
            yield chunk
            self.sent += len(chunk)
            self.order.on_bytes(self.node.name, len(chunk))
