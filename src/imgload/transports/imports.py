"""A running import on each of several nodes, and the stream that goes into each."""

from __future__ import annotations

import secrets
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence

import attrs

from imgload.clusters.nodes.containerd import parse_images
from imgload.clusters.nodes.node import Before, Node
from imgload.clusters.nodes.survey import NOTHING, Question, Survey, names_command
from imgload.core.errors import ImgloadError
from imgload.core.parallel import Task
from imgload.engines.base import Chunk
from imgload.engines.temporary_tags import note, stale_folders
from imgload.oci.platform import Platform
from imgload.transports.fanout import Feed

_MAKE_FOLDER = 'mkdir -p "$1" && shift && exec "$@"'
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

    def _import(self) -> Survey | None:
        if self.node.engine.streams_exec:
            return self.node.import_layout(self._counted(), self.platform, self.question)
        import_by_copy(self.node, self._counted(), self.platform, self.question)
        return None

    def _counted(self) -> Iterator[Chunk]:
        for chunk in self.feed:
            yield chunk
            self.sent += len(chunk)
            self.on_bytes(self.node.name, len(chunk))


def import_by_copy(
    node: Node, layout: Iterable[Chunk], platform: Platform, question: Question = NOTHING
) -> None:
    """Unpack an OCI layout in the node, import it, and remove it.

    What is copied to /tmp or /run of a kind node disappears under their tmpfs (moby #22020). A
    run that is killed leaves the folder; the next one to this node removes it.
    """
    _remove_leftovers(node)
    token = secrets.token_hex(8)
    folder = f"{_FOLDERS}/imgload-{token}"
    noted = note(node.container.id, folder)
    node.before = Before(marker=token)
    try:
        names = node.spelled(names_command(question))
        told = node.run(["sh", "-c", _MAKE_FOLDER, "imgload", folder, *names])
        node.before.records = parse_images(told.decode(errors="replace"))
        node.engine.put(node.container.id, folder, layout)
        node.run(["sh", "-c", _FROM_FOLDER, "imgload", folder, *node.import_command(platform)])
    finally:
        try:
            node.run(["rm", "-rf", folder])
        except BaseException:
            if noted:
                noted.leave()
            raise
        if noted:
            noted.remove()


def _remove_leftovers(node: Node) -> None:
    for left in stale_folders(node.container.id):
        node.run(["rm", "-rf", left.name])
        left.note.remove()
