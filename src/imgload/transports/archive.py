"""The archive transport: save, into the nodes, import.

One save feeds all nodes. It is streamed into ``ctr images import`` where the engine's exec allows
that, and else unpacked into a folder under /var, imported from there and removed: what is copied
to /tmp or /run of a kind node disappears under their tmpfs (moby #22020).
"""

from __future__ import annotations

import secrets
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence

import attrs

from imgload.engines.base import Chunk
from imgload.errors import ImgloadError
from imgload.nodes.node import Node
from imgload.oci.platform import Platform
from imgload.oci.repack import Repack
from imgload.parallel import Task
from imgload.transports.fanout import Feed, fan_out

_FROM_FOLDER = 'folder=$1; shift; tar -C "$folder" -cf - . | "$@"'
_FOLDERS = "/var/lib"
_ABORT_SECONDS = 1.5
"""How long a node may take to let go of an import whose stream was cut off."""

OnBytes = Callable[[str, int], None]


@attrs.frozen
class Delivery:
    """How the stream went into one node: the bytes it took, and its error or None."""

    bytes_sent: int
    error: ImgloadError | None


def deliver(
    repack: Repack, nodes: Sequence[Node], platform: Platform, on_bytes: OnBytes
) -> Mapping[str, Delivery]:
    """Import one stream into several nodes at once; a node that fails does not stop the others.

    Raises:
        ImgloadError: when the source fails; no node has an image of it then.

    """
    lanes = [_Lane(node, platform, on_bytes) for node in nodes]
    tasks = [Task(lane.run) for lane in lanes]
    try:
        fan_out(repack, [lane.feed for lane in lanes])
    except BaseException:
        for task in tasks:
            task.settle(_ABORT_SECONDS)
        raise
    return {lane.node.name: task.result() for lane, task in zip(lanes, tasks, strict=True)}


@attrs.define
class _Lane:
    node: Node
    platform: Platform
    on_bytes: OnBytes
    feed: Feed = attrs.field(factory=Feed)
    sent: int = 0

    def run(self) -> Delivery:
        try:
            if self.node.engine.streams_exec:
                self.node.import_layout(self._counted(), self.platform)
            else:
                import_by_copy(self.node, self._counted(), self.platform)
        except ImgloadError as error:
            return Delivery(self.sent, error)
        finally:
            self.feed.leave()
        return Delivery(self.sent, None)

    def _counted(self) -> Iterator[Chunk]:
        for chunk in self.feed:
            yield chunk
            self.sent += len(chunk)
            self.on_bytes(self.node.name, len(chunk))


def import_by_copy(node: Node, layout: Iterable[Chunk], platform: Platform) -> None:
    """Unpack an OCI layout in the node, import it, and remove it."""
    folder = f"{_FOLDERS}/imgload-{secrets.token_hex(8)}"
    node.run(["mkdir", "-p", folder])
    try:
        node.engine.put(node.container.id, folder, layout)
        node.run(["sh", "-c", _FROM_FOLDER, "imgload", folder, *node.import_command(platform)])
    finally:
        node.run(["rm", "-rf", folder])
