"""A running import on each of several nodes, and the stream that goes into each."""

from __future__ import annotations

import secrets
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence

import attrs

from imgload.engines.base import Chunk
from imgload.errors import ImgloadError
from imgload.leftovers import note, stale_folders
from imgload.nodes.node import Before, Node
from imgload.nodes.survey import NOTHING, Question, Survey
from imgload.oci.platform import Platform
from imgload.parallel import Task
from imgload.transports.fanout import Feed

_FROM_FOLDER = """
folder=$1
shift
trap 'rm -rf "$folder"' EXIT
while sleep 20 >/dev/null && now=$(df -Pk "$folder" 2>/dev/null)
do [ "$now" = "$was" ] || echo; was=$now; done </dev/null 2>/dev/null & watch=$!
tar -C "$folder" -cf - . | "$@"
status=$?
kill $watch
exit $status
"""
"""Cleans up by itself: it goes on where we are interrupted. Says something while the disk fills."""
_FOLDERS = "/var/lib"
_ABORT_SECONDS = 1.5
"""How long the nodes may take to let go of an import whose stream was cut off."""

OnBytes = Callable[[str, int], None]


@attrs.frozen
class Delivery:
    """How the stream went into one node.

    Args:
        bytes_sent: what the node took.
        error: why it failed, or None.
        survey: what the node had right after the import, where it was read.

    """

    bytes_sent: int
    error: ImgloadError | None = None
    survey: Survey | None = None


@attrs.define
class Lanes:
    """The imports, one a node, that run until they are finished or aborted."""

    _lanes: Sequence[_Lane]
    _tasks: Sequence[Task[Delivery]]

    @classmethod
    def start(
        cls, nodes: Sequence[Node], platform: Platform, question: Question, on_bytes: OnBytes
    ) -> Lanes:
        """Start an import on each node; each waits for its stream, and is surveyed after it."""
        lanes = [_Lane(node, platform, question, on_bytes) for node in nodes]
        return cls(lanes, [Task(lane.run) for lane in lanes])

    @property
    def feeds(self) -> dict[str, Feed]:
        """The way into each node, by name."""
        return {lane.node.name: lane.feed for lane in self._lanes}

    def complete(self) -> None:
        """Say that all was fed."""
        for feed in self.feeds.values():
            feed.complete()

    def finish(self) -> Mapping[str, Delivery]:
        """Wait until every node has imported what it was fed, or failed."""
        self.complete()
        pairs = zip(self._lanes, self._tasks, strict=True)
        return {lane.node.name: task.result() for lane, task in pairs}

    def abort(self) -> None:
        """Cut all streams off; no node has an image of them then."""
        for feed in self.feeds.values():
            feed.abort()
        deadline = time.monotonic() + _ABORT_SECONDS
        for task in self._tasks:
            task.settle(max(0.0, deadline - time.monotonic()))


@attrs.define
class _Lane:
    node: Node
    platform: Platform
    question: Question
    on_bytes: OnBytes
    feed: Feed = attrs.field(factory=Feed)
    sent: int = 0

    def run(self) -> Delivery:
        try:
            survey = self._import()
        except ImgloadError as error:
            return Delivery(self.sent, error)
        finally:
            self.feed.leave()
        return Delivery(self.sent, survey=survey)

    def _import(self) -> Survey:
        if self.node.engine.streams_exec:
            return self.node.import_layout(self._counted(), self.platform, self.question)
        return import_by_copy(self.node, self._counted(), self.platform, self.question)

    def _counted(self) -> Iterator[Chunk]:
        for chunk in self.feed:
            yield chunk
            self.sent += len(chunk)
            self.on_bytes(self.node.name, len(chunk))


def import_by_copy(
    node: Node, layout: Iterable[Chunk], platform: Platform, question: Question = NOTHING
) -> Survey:
    """Unpack an OCI layout in the node, import it, and remove it; survey the node after it.

    What is copied to /tmp or /run of a kind node disappears under their tmpfs (moby #22020). A
    run that is killed leaves the folder; the next load into this node removes it.
    """
    folder = f"{_FOLDERS}/imgload-{secrets.token_hex(8)}"
    noted = note(node.container.id, folder)
    node.before = Before()
    command = ("sh", "-c", _FROM_FOLDER, "imgload", folder, *node.import_command(platform))
    try:
        node.run(["mkdir", "-p", folder])
        node.engine.put(node.container.id, folder, layout)
        return node.import_by(command, question)
    finally:
        try:
            node.run(["rm", "-rf", folder])
        except BaseException:
            if noted:
                noted.leave()
            raise
        if noted:
            noted.remove()


def remove_leftovers(nodes: Iterable[Node]) -> None:
    """Remove the folders that killed runs left on nodes; where that fails, the next run does."""
    by_id = {node.container.id: node for node in nodes}
    for left in stale_folders(by_id):
        try:
            by_id[left.engine].run(["rm", "-rf", left.name])
        except ImgloadError:
            left.note.leave()
        else:
            left.note.remove()
