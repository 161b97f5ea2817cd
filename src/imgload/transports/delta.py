"""The delta transport: the engine pushes to us, and only what a node lacks goes on to it.

An engine that pushes asks for each layer first whether it is there. It is answered by what the
nodes have unpacked (chain IDs), so that only new layers come. A blob that comes with its digest
and size goes straight into each node's import as a member of an OCI layout tar; one whose size
shows only at its end is kept until then. Config, manifest and ``index.json`` follow last, and only
when all is there: a push that breaks leaves no image behind.
"""

from __future__ import annotations

import hashlib
import secrets
import threading
from collections.abc import Iterable, Mapping, Sequence

import attrs

from imgload.engines.base import Chunk
from imgload.errors import DigestMismatch, ImgloadError
from imgload.oci.digest import Digest, chain_ids
from imgload.oci.document import Descriptor, ImageConfig, Index, Manifest
from imgload.oci.platform import Platform
from imgload.oci.repack import LAYOUT, file_member
from imgload.oci.tar import END, header, padding
from imgload.transports.fanout import Feed
from imgload.transports.receiver import Upload
from imgload.transports.spool import Spool


class DeltaIncomplete(ImgloadError):
    """The push did not bring what the nodes need; a full load will."""


@attrs.frozen
class Pushed:
    """An image that the engine is about to push.

    Args:
        image_id: digest of its config.
        diff_ids: its layers, bottom up.
        names: what it is to be called.
        platform: what it runs on.
        known: layers by the digests that the engine may ask for: digest to diff ID and size.
        exact: whether `known` is all that the engine can ask for that matters.
        limit: bytes of the largest layer that is missing, as far as that is known.

    """

    image_id: Digest
    diff_ids: tuple[Digest, ...]
    names: tuple[str, ...]
    platform: Platform
    known: Mapping[Digest, tuple[Digest, int]]
    exact: bool = False
    limit: int = 1 << 40


@attrs.define
class Delta:
    """The intake of one load: one push for each image, into the same imports.

    Args:
        feeds: the way into each node, by name.
        snapshots: the chain IDs that each node has unpacked.
        sizes: bytes of the blobs that came.
        learnt: layers by the digest that they were pushed under, with diff ID and size.
        traffic: bytes sent, by node and image ID.
        way: held by the blob that goes straight through.
        reached: whether the engine has asked for anything.

    """

    feeds: Mapping[str, Feed]
    snapshots: Mapping[str, frozenset[Digest]]
    sizes: dict[Digest, int] = attrs.field(factory=dict)
    learnt: dict[Digest, tuple[Digest, int]] = attrs.field(factory=dict)
    _sent: dict[Digest, set[str]] = attrs.field(factory=dict)
    _spools: dict[Digest, Spool] = attrs.field(factory=dict)
    _manifests: dict[Digest, bytes] = attrs.field(factory=dict)
    _entries: list[Descriptor] = attrs.field(factory=list)
    reached: bool = False
    _image: Pushed | None = None
    traffic: dict[tuple[str, Digest], int] = attrs.field(factory=dict)
    way: threading.Lock = attrs.field(factory=threading.Lock)
    _started: bool = False

    def begin(self, image: Pushed) -> None:
        """Say which image is pushed next."""
        self._image = image
        self._manifests.clear()
        if not self._started:
            self._started = True
            self.put(self.feeds, file_member("oci-layout", LAYOUT))

    def size_of(self, digest: Digest) -> int | None:
        """Answer the engine's question for a blob; see `receiver.Intake`."""
        self.reached = True
        image = self._current
        if digest in self._spools:
            return self.sizes[digest]
        if digest == image.image_id:
            return None
        layer = image.known.get(digest) or ((digest, 0) if digest in image.diff_ids else None)
        if layer is None:
            return 0 if image.exact else None
        lacking = self._needed_by(layer[0]) - self._sent.get(digest, set())
        return None if lacking else layer[1]

    def upload(self, digest: Digest | None, size: int | None) -> Upload:
        """Open the way for a blob: straight through where that can be."""
        self.reached = True
        image = self._current
        layer = image.known.get(digest) if digest else None
        if layer and digest and size is not None:
            lacking = self._needed_by(layer[0]) - self._sent.get(digest, set())
            return _Through(self, digest, size, lacking)
        return _Kept(self, Spool(image.limit))

    def manifest(self, digest: Digest, raw: bytes) -> None:
        """Keep a manifest; which one is the image's is settled when the push has ended."""
        self._manifests[digest] = raw

    def end(self) -> Manifest:
        """Send what was kept, then config and manifest, of the image that was pushed.

        Raises:
            DeltaIncomplete: when something that a node needs has not come.

        """
        image = self._current
        manifest = self._manifest_of(image)
        for layer, diff_id in zip(manifest.layers, image.diff_ids, strict=True):
            self._forward(layer.digest, self._needed_by(diff_id))
            self.learnt[layer.digest] = (diff_id, layer.size)
        self._forward(image.image_id, set(self.feeds))
        self._file(manifest.digest, manifest.raw)
        self._entries += (manifest.descriptor(image.platform, name) for name in image.names)
        return manifest

    def close(self) -> None:
        """Name the images: from here on the nodes have them."""
        index = Index.build(tuple(self._entries))
        self.put(self.feeds, file_member("index.json", index))
        self.put(self.feeds, [END])

    def discard(self) -> None:
        """Let go of everything that was kept."""
        for spool in self._spools.values():
            spool.close()

    @property
    def _current(self) -> Pushed:
        if self._image is None:
            raise DeltaIncomplete("nothing is being pushed")
        return self._image

    def _manifest_of(self, image: Pushed) -> Manifest:
        for raw in self._manifests.values():
            if b'"config"' in raw:
                manifest = Manifest.parse(raw)
                if manifest.config.digest == image.image_id:
                    return self._checked(manifest, image)
        raise DeltaIncomplete("the engine pushed another image")

    def _checked(self, manifest: Manifest, image: Pushed) -> Manifest:
        spool = self._spools.get(image.image_id)
        config = ImageConfig.parse(b"".join(spool.chunks())) if spool else None
        if config is not None and config.diff_ids != image.diff_ids:
            raise DeltaIncomplete("the engine pushed an image with other layers")
        if len(manifest.layers) != len(image.diff_ids):
            raise DeltaIncomplete("the engine pushed a manifest with other layers")
        return manifest

    def _needed_by(self, diff_id: Digest) -> set[str]:
        """Return the nodes that lack the layer, at any of the places where the image has it."""
        image = self._current
        chains = zip(image.diff_ids, chain_ids(image.diff_ids), strict=True)
        wanted = {chain for layer, chain in chains if layer == diff_id}
        return {name for name, there in self.snapshots.items() if not wanted <= there}

    def _forward(self, digest: Digest, nodes: set[str]) -> None:
        lacking = nodes - self._sent.get(digest, set())
        if not lacking:
            return
        spool = self._spools.get(digest)
        if spool is None or not spool.kept:
            raise DeltaIncomplete(f"the engine did not push {digest}")
        path = f"blobs/sha256/{digest.hex}"
        self.put(lacking, [header(path, spool.size)])
        self.put(lacking, spool.chunks())
        self.put(lacking, [padding(spool.size)])
        self._sent.setdefault(digest, set()).update(lacking)

    def _file(self, digest: Digest, data: bytes) -> None:
        self.put(self.feeds, file_member(f"blobs/sha256/{digest.hex}", data))
        self.sizes[digest] = len(data)

    def put(self, nodes: Iterable[str], chunks: Iterable[Chunk]) -> None:
        """Pass chunks on to some nodes, at the pace of the slowest."""
        for chunk in chunks:
            for name in nodes:
                self.feeds[name].put(chunk)
                key = (name, self._current.image_id)
                self.traffic[key] = self.traffic.get(key, 0) + len(chunk)

    def passed(self, digest: Digest, size: int, nodes: set[str]) -> None:
        """Note a blob that went straight through."""
        self.sizes[digest] = size
        self._sent.setdefault(digest, set()).update(nodes)

    def keep(self, digest: Digest, spool: Spool) -> None:
        """Note a blob that waits."""
        self._spools[digest] = spool
        self.sizes[digest] = spool.size


@attrs.define
class _Kept:
    """A blob that waits for the end of the push."""

    _delta: Delta
    _spool: Spool

    def write(self, chunk: bytes) -> None:
        self._spool.write(chunk)

    def finish(self, digest: Digest) -> None:
        self._spool.check(digest)
        self._delta.keep(digest, self._spool)

    def abandon(self) -> None:
        self._spool.close()


@attrs.define
class _Through:
    """A blob that goes straight into the nodes; one at a time has the way."""

    _delta: Delta
    _digest: Digest
    _size: int
    _nodes: set[str]
    _hasher: hashlib._Hash = attrs.field(factory=hashlib.sha256)
    _left: int = 0
    _has_way: bool = False

    def write(self, chunk: bytes) -> None:
        if not self._has_way:
            self._open()
        self._left -= len(chunk)
        if self._left < 0:
            raise DigestMismatch(f"{self._digest} is longer than announced")
        self._hasher.update(chunk)
        self._put(chunk)

    def _open(self) -> None:
        self._delta.way.acquire()
        self._has_way = True
        self._left = self._size
        self._put(header(f"blobs/sha256/{secrets.token_hex(32)}", self._size))

    def finish(self, digest: Digest) -> None:
        if self._left or not self._has_way or self._hasher.hexdigest() != digest.hex:
            raise DigestMismatch(f"a pushed blob is not {digest}")
        self._put(padding(self._size))
        self._delta.passed(digest, self._size, self._nodes)
        self._has_way = False
        self._delta.way.release()

    def abandon(self) -> None:
        """Cut the imports off: half a blob is in their streams."""
        if self._has_way:
            for name in self._nodes:
                self._delta.feeds[name].abort()
            self._has_way = False
            self._delta.way.release()

    def _put(self, chunk: Chunk) -> None:
        self._delta.put(self._nodes, [chunk])


def missing_layers(diff_ids: Sequence[Digest], snapshots: Iterable[frozenset[Digest]]) -> list[int]:
    """Return the places of the layers that at least one node lacks."""
    chains = chain_ids(tuple(diff_ids))
    there = list(snapshots)
    return [i for i, chain in enumerate(chains) if any(chain not in node for node in there)]
