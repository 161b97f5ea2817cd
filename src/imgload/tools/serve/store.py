"""Answers the requests of nodes, and reports each image that a node has pulled."""

from __future__ import annotations

import threading
import time
from collections import OrderedDict, deque
from collections.abc import Callable
from contextlib import AbstractContextManager
from datetime import datetime
from typing import Any

import attrs

from imgload.core.errors import JSON_VERSION, ImgloadError, ReferenceInvalid, error_json
from imgload.oci.digest import Digest
from imgload.oci.platform import Platform
from imgload.oci.reference import Reference
from imgload.registry.blob_store import StoredBlob
from imgload.tools.serve.images import LocalImages, ServedImage
from imgload.tools.serve.nodes import PROBE

_IDLE_SECONDS = 1.0
"""Without a request for this long, a node has all that it needs of an image."""
_MOST_PULLS = 1000


def _now() -> datetime:
    return datetime.now().astimezone()


@attrs.frozen
class NodePull:
    """An image that a node has pulled; `error` is why it was refused, or None.

    Args:
        node: the node's name.
        name: the image, by familiar name.
        image_id: the image ID; None if it was refused.
        bytes_sent: of its manifest, config and layers.
        seconds: from the first request to the last byte.
        error: why the node got "not found"; None if it got the image.
        at: when it ended, with the local time zone.

    """

    node: str
    name: str
    image_id: Digest | None = None
    bytes_sent: int = 0
    seconds: float = 0.0
    error: ImgloadError | None = None
    at: datetime = attrs.field(factory=_now)

    def to_json(self) -> dict[str, Any]:
        """Return the document of ``--output json``."""
        return {
            "version": JSON_VERSION,
            "time": self.at.isoformat(timespec="milliseconds"),
            "node": self.node,
            "reference": self.name,
            "image_id": str(self.image_id) if self.image_id else None,
            "bytes_sent": self.bytes_sent,
            "seconds": round(self.seconds, 3),
            "ok": self.error is None,
            "error": error_json(self.error) if self.error else None,
        }


@attrs.define
class _Pull:
    name: str
    served: ServedImage
    began: float
    last: float
    bytes_sent: int = 0


@attrs.define(eq=False, repr=False)
class NodeStore:
    """The local images as the store of a `ReadServer`; nodes are known by their container IDs."""

    images: LocalImages
    notify: Callable[[NodePull], None]
    """Called from several threads."""
    nodes: dict[str, tuple[str, Platform]] = attrs.field(factory=dict)
    """The name and the platform of each node."""
    _probes: deque[str] = attrs.field(factory=lambda: deque(maxlen=256))
    _pulls: OrderedDict[tuple[str, Digest], _Pull] = attrs.field(factory=OrderedDict)
    _lock: threading.Lock = attrs.field(factory=threading.Lock)

    def name_of(self, node: str) -> str:
        return self.nodes[node][0]

    def was_asked(self, repository: str) -> bool:
        """Whether a node has requested the repository of a probe."""
        return repository in self._probes

    def document(self, node: str, name: str) -> tuple[Digest, str, bytes] | None:
        try:
            reference = Reference.parse(name)
        except ReferenceInvalid:
            return None
        if reference.repository.startswith(PROBE):
            self._probes.append(reference.repository)
            return None
        served = self._find(node, reference)
        if served is None:
            return None
        digest = reference.digest if reference.digest in served.documents else served.top
        return (digest, *served.documents[digest])

    def _find(self, node: str, reference: Reference) -> ServedImage | None:
        began = time.monotonic()
        node_name, platform = self.nodes[node]
        served = self.images.with_document(reference.digest) if reference.digest else None
        try:
            if served is None and (image := self.images.find(reference, platform)):
                served = self.images.serve(image)
        except ImgloadError as error:
            self.notify(NodePull(node_name, reference.familiar, error=error))
            return None
        if served:
            self._begin(node, reference, served, began)
        return served

    def _begin(self, node: str, reference: Reference, served: ServedImage, began: float) -> None:
        key = node, served.content.manifest.digest
        with self._lock:
            pull = self._pulls.get(key)
            if pull is None or not (pull.bytes_sent or reference.digest):
                pull = _Pull(reference.familiar, served, began, began)
                self._pulls[key] = pull
            pull.last = time.monotonic()
            if len(self._pulls) > _MOST_PULLS:
                self._pulls.popitem(last=False)

    def reading(self, digest: Digest) -> AbstractContextManager[StoredBlob | None]:
        return self.images.reading(digest)

    def tags(self, node: str, repository: str) -> list[str]:
        try:
            return self.images.tags(Reference.parse(repository), self.nodes[node][1])
        except ImgloadError:  # no such name, or an engine that does not answer
            return []

    def count(self, node: str, digest: Digest, size: int) -> None:
        """Count bytes that a node has got, for the image that it is pulling."""
        with self._lock:
            for (puller, _), pull in reversed(self._pulls.items()):
                served = pull.served
                if puller == node and (digest in served.blobs or digest in served.documents):
                    pull.bytes_sent += size
                    pull.last = time.monotonic()
                    return

    def finished_pulls(self) -> list[NodePull]:
        """Return the pulls that are idle, once each; those of images that a node had are left out.

        A node that has the image only asks for the digest of its manifest.
        """
        finished = []
        with self._lock:
            for (node, _), pull in self._pulls.items():
                if pull.bytes_sent and time.monotonic() - pull.last > _IDLE_SECONDS:
                    image_id = pull.served.content.config.digest
                    seconds = pull.last - pull.began
                    name = self.name_of(node)
                    finished.append(NodePull(name, pull.name, image_id, pull.bytes_sent, seconds))
                    pull.bytes_sent = 0
        return finished
