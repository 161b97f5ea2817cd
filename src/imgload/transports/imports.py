"""The import transport: a stream into ``ctr images import`` on each node."""

from __future__ import annotations

import secrets
import time
from collections.abc import Iterable, Iterator, Mapping

import attrs

from imgload.clusters.nodes.batch import keepalive_command
from imgload.clusters.nodes.node import Node, PreviousNames
from imgload.clusters.nodes.survey import NOTHING, Survey, SurveyQuery
from imgload.core.errors import ImgloadError
from imgload.core.parallel import Task
from imgload.engines.temporary_tags import note_temporary_name, stale_folders
from imgload.oci.content import Chunk
from imgload.oci.platform import Platform
from imgload.transports.base import Delivery, Order, Shipment, Transport
from imgload.transports.layout import Feed, LayoutWriter

_FROM_FOLDER = """
folder=$1
shift
trap 'rm -rf "$folder"' EXIT
tar -C "$folder" -cf - . | "$@"
"""
"""Removes the folder itself, because it continues if imgload is interrupted."""
_WHILE_DISK_FILLS = 'now=$(df -Pk "$folder" 2>/dev/null)'
_FOLDERS = "/var/lib"
_ABORT_SECONDS = 1.5
"""How long nodes may take to end an import whose stream was cut off."""


@attrs.define
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
            tasks={stream.node.name: Task(stream.run) for stream in streams},
        )


@attrs.define
class _Stream:
    node: Node
    order: Order
    feed: Feed = attrs.field(factory=Feed)
    sent: int = 0

    def run(self) -> Delivery:
        node, order = self.node, self.order
        layout = self._counted()
        try:
            if node.engine.streams_exec:
                survey = node.import_layout(layout, order.platform, order.question)
            else:
                survey = import_by_copy(node, layout, order.platform, order.question)
        except ImgloadError as error:
            return Delivery(self.sent, error)
        finally:
            self.feed.leave()
        return Delivery(self.sent, survey=survey)

    def _counted(self) -> Iterator[Chunk]:
        for chunk in self.feed:
            yield chunk
            self.sent += len(chunk)
            self.order.on_bytes(self.node.name, len(chunk))


def import_by_copy(
    node: Node, layout: Iterable[Chunk], platform: Platform, question: SurveyQuery = NOTHING
) -> Survey:
    """Copy an OCI layout into the node, import it, and remove it; then survey the node.

    Files copied to /tmp or /run of a kind node disappear under their tmpfs (moby #22020). If
    imgload is killed, the next load into this node removes the folder.
    """
    folder = f"{_FOLDERS}/imgload-{secrets.token_hex(8)}"
    noted = note_temporary_name(node.container.id, folder)
    node.before = PreviousNames()
    words = (folder, *node.import_command(platform))
    command = keepalive_command(_FROM_FOLDER, _WHILE_DISK_FILLS, *words)
    try:
        node.run(["mkdir", "-p", folder])
        node.engine.put_archive(node.container.id, folder, layout)
        return node.import_by(command, question)
    finally:
        try:
            node.run(["rm", "-rf", folder])
        except BaseException:
            if noted:
                noted.release()
            raise
        if noted:
            noted.remove()


def remove_leftovers(nodes: Iterable[Node]) -> None:
    """Remove the folders that killed runs left on nodes; if that fails, the next run does."""
    by_id = {node.container.id: node for node in nodes}
    for folder in stale_folders(by_id):
        try:
            by_id[folder.engine].run(["rm", "-rf", folder.name])
        except ImgloadError:
            folder.release()
        else:
            folder.remove()
