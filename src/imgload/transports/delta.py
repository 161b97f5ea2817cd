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
from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence

import attrs

from imgload.core.errors import DigestMismatch, ImgloadError, SourceError
from imgload.engines.base import Chunk
from imgload.oci.digest import Digest, chain_ids
from imgload.oci.document import LAYER, Descriptor, ImageConfig, Index, Manifest
from imgload.oci.layers import missing_layers
from imgload.oci.platform import Platform
from imgload.oci.reference import pinned
from imgload.oci.repack import LAYOUT, file_member
from imgload.oci.tar import END, header, padding
from imgload.registry.sink import Upload, keep_manifest
from imgload.registry.spool import Room, Spool
from imgload.transports.fanout import Feed

_MOST_MANIFESTS = 100
_OTHER_BLOBS = 32
"""Blobs that a push may bring beside the layers: configs and attestations."""


class DeltaIncomplete(ImgloadError):
    """The push did not bring what the nodes need; a full load will."""


@attrs.frozen
class Pushed:
    """An image that the engine is about to push.

    Args:
        image_id: digest of its config.
        manifest: digest of its manifest, where the engine reports images by manifest; None where
            the engine reports the config, which then decides alone.
        diff_ids: its layers, bottom up.
        names: what it is to be called.
        platform: what it runs on.
        known: layers by the digests that the engine may ask for: digest to diff ID and size.
        exact: whether `known` is all that the engine can ask for that matters.
        plain: bytes of the layers as plain tars, by diff ID, where that is known.
        limit: bytes beyond which a blob cannot be a layer that is missing.
        room: bytes beyond which one blob, and all blobs that are kept, cannot be the image's.

    """

    image_id: Digest
    diff_ids: tuple[Digest, ...]
    names: tuple[str, ...]
    platform: Platform
    known: Mapping[Digest, tuple[Digest, int]]
    exact: bool = False
    plain: Mapping[Digest, int] = attrs.field(factory=dict)
    manifest: Digest | None = None
    limit: int = 1 << 40
    room: int = 1 << 40


@attrs.frozen
class Holding:
    """What a node has: chain IDs that are unpacked, and blobs in its content store."""

    snapshots: frozenset[Digest]
    blobs: frozenset[Digest] = frozenset()


@attrs.define
class Delta:
    """The intake of one load: one push for each image, into the same imports.

    Args:
        feeds: the way into each node, by name.
        holdings: what each node has.
        sizes: bytes of the blobs that came.
        learnt: layers by the digest that they were pushed under, with diff ID and size.
        traffic: bytes sent, by node and image ID.
        way: held by whoever writes into the imports: a blob that goes straight through, or `end`.

    """

    feeds: Mapping[str, Feed]
    holdings: Mapping[str, Holding]
    sizes: dict[Digest, int] = attrs.field(factory=dict)
    learnt: dict[Digest, tuple[Digest, int]] = attrs.field(factory=dict)
    _sent: dict[Digest, set[str]] = attrs.field(factory=dict)
    _spools: dict[Digest, Spool] = attrs.field(factory=dict)
    _manifests: dict[Digest, bytes] = attrs.field(factory=dict)
    _entries: dict[str, list[Descriptor]] = attrs.field(factory=lambda: defaultdict(list))
    _image: Pushed | None = None
    _open: bool = False
    _blobs_left: int = 0
    _lock: threading.Lock = attrs.field(factory=threading.Lock)
    _room: Room = attrs.field(factory=lambda: Room(0))
    traffic: dict[tuple[str, Digest], int] = attrs.field(factory=dict)
    way: threading.Lock = attrs.field(factory=threading.Lock)
    _started: bool = False

    def begin(self, image: Pushed) -> None:
        """Say which image is pushed next."""
        self._image, self._open = image, True
        self._room = Room(image.room)
        self._blobs_left += len(image.diff_ids) + _OTHER_BLOBS
        self._manifests.clear()
        if not self._started:
            self._started = True
            self.put(self.feeds, file_member("oci-layout", LAYOUT))

    def missing(self, diff_ids: Sequence[Digest]) -> list[int]:
        """Return the places of the layers that a node lacks."""
        return missing_layers(diff_ids, [node.snapshots for node in self.holdings.values()])

    def size_of(self, digest: Digest) -> int | None:
        """Answer the engine's question for a blob; see `receiver.Intake`."""
        image = self._current
        if digest in self._spools:
            return self.sizes[digest]
        if digest == image.image_id:
            return None
        layer = image.known.get(digest) or ((digest, 0) if digest in image.diff_ids else None)
        if layer is None:
            return 0 if image.exact else None
        return None if self._lacking(digest, layer[0]) else layer[1]

    def upload(self, digest: Digest | None, size: int | None) -> Upload:
        """Open the way for a blob: straight through where that can be."""
        image = self._current
        layer = image.known.get(digest) if digest else None
        if layer and digest and size == layer[1]:
            through = Through(self, digest, layer[1])
            through.await_way(lambda: self._lacking(digest, layer[0]))
            return through
        with self._lock:
            if self._blobs_left <= 0:
                raise DeltaIncomplete("more blobs were pushed than the image has")
            self._blobs_left -= 1
        return Kept(self, Spool(image.limit, self._room, image.room))

    def dropped(self) -> None:
        """Allow another blob in place of one that was given up."""
        with self._lock:
            self._blobs_left += 1

    def _lacking(self, digest: Digest, diff_id: Digest) -> set[str]:
        return self._needed_by(diff_id) - self._sent.get(digest, set())

    def manifest(self, digest: Digest, raw: bytes) -> None:
        """Keep a manifest; which one is the image's is settled when the push has ended."""
        keep_manifest(self._manifests, digest, raw, _MOST_MANIFESTS)

    def end(self) -> None:
        """Send what was kept, then config and manifest, of the image that was pushed.

        Nothing more of it is taken then.

        Raises:
            DeltaIncomplete: when something that a node needs has not come.

        """
        if not self.way.acquire(blocking=False):
            raise DeltaIncomplete("half a blob was pushed, by the engine or by somebody else")
        try:
            self._send_rest()
        finally:
            self._open = False
            self.way.release()

    def _send_rest(self) -> None:
        image = self._current
        try:
            config = self._config_of(image)
            manifest = self._manifest_of(image)
        except SourceError as error:
            raise DeltaIncomplete(f"the engine pushed something else: {error.message}") from error
        for layer, diff_id in zip(manifest.layers, image.diff_ids, strict=True):
            self._forward(layer.digest, self._needed_by(diff_id))
            self.learnt[layer.digest] = (diff_id, layer.size)
        self._forward(image.image_id, set(self.feeds))
        for node in self.feeds:
            suited = self._suited(manifest, config, node)
            path = f"blobs/sha256/{suited.digest.hex}"
            self.put([node], file_member(path, suited.raw))
            entries = [self._entry(name, suited, node) for name in image.names]
            self._entries[node] += entries

    def _entry(self, name: str, manifest: Manifest, node: str) -> Descriptor:
        """Return a name's place in the index; a digest may demand an index that was pushed."""
        pin = pinned(name) or manifest.digest
        if pin == manifest.digest:
            return manifest.descriptor(self._current.platform, name)
        raw = self._manifests.get(pin)
        if raw is None or manifest.digest not in {m.digest for m in Index.parse(raw).manifests}:
            raise DeltaIncomplete(f"the engine did not push the manifest {pin}")
        self.put([node], file_member(f"blobs/sha256/{pin.hex}", raw))
        return Index.descriptor(raw, name)

    def close(self) -> None:
        """Name the images: from here on the nodes have them."""
        for node, entries in self._entries.items():
            self.put([node], file_member("index.json", Index.build(tuple(entries))))
            self.put([node], [END])

    def discard(self) -> None:
        """Let go of everything that was kept."""
        for spool in self._spools.values():
            spool.close()

    @property
    def _current(self) -> Pushed:
        if self._image is None or not self._open:
            raise DeltaIncomplete("nothing is being pushed")
        return self._image

    def _config_of(self, image: Pushed) -> ImageConfig:
        spool = self._kept(image.image_id)
        config = ImageConfig.parse(b"".join(spool.chunks()))
        if config.diff_ids != image.diff_ids:
            raise DeltaIncomplete("the engine pushed an image with other layers")
        return config

    def _manifest_of(self, image: Pushed) -> Manifest:
        """Return the image's manifest: the one the engine reports, or the only one of its config.

        Whoever knows the repository may have pushed others.
        """
        if image.manifest:
            raws = [self._manifests[image.manifest]] if image.manifest in self._manifests else []
        else:
            config = str(image.image_id).encode()
            raws = [raw for raw in self._manifests.values() if config in raw]
        parsed = map(Manifest.parse, raws)
        manifests = [m for m in parsed if m.config.digest == image.image_id]
        if not manifests:
            raise DeltaIncomplete("the engine pushed another image")
        if len(manifests) > 1:
            raise DeltaIncomplete("several manifests of the image were pushed")
        if len(manifests[0].layers) != len(image.diff_ids):
            raise DeltaIncomplete("the engine pushed a manifest with other layers")
        return manifests[0]

    def _suited(self, manifest: Manifest, config: ImageConfig, node: str) -> Manifest:
        """Return the manifest, or one that names the layers as the node has them stored.

        A name with a digest is the digest of the manifest as it was pushed.
        """
        image = self._current
        pairs = zip(manifest.layers, image.diff_ids, strict=True)
        layers = tuple(self._stored(layer, diff_id, node) for layer, diff_id in pairs)
        if layers == manifest.layers or any(map(pinned, image.names)):
            return manifest
        return Manifest.build(config, layers)

    def _stored(self, layer: Descriptor, diff_id: Digest, node: str) -> Descriptor:
        blobs = self.holdings[node].blobs
        size = self._current.plain.get(diff_id)
        if layer.digest in blobs or node in self._sent.get(layer.digest, set()):
            return layer
        if diff_id not in blobs or size is None:
            return layer
        return Descriptor(LAYER, diff_id, size)

    def _needed_by(self, diff_id: Digest) -> set[str]:
        """Return the nodes that lack the layer, at any of the places where the image has it."""
        image = self._current
        chains = zip(image.diff_ids, chain_ids(image.diff_ids), strict=True)
        wanted = {chain for layer, chain in chains if layer == diff_id}
        return {name for name, node in self.holdings.items() if not wanted <= node.snapshots}

    def _forward(self, digest: Digest, nodes: set[str]) -> None:
        lacking = nodes - self._sent.get(digest, set())
        if not lacking:
            return
        spool = self._kept(digest)
        path = f"blobs/sha256/{digest.hex}"
        self.put(lacking, [header(path, spool.size)])
        self.put(lacking, spool.chunks())
        self.put(lacking, [padding(spool.size)])
        self._sent.setdefault(digest, set()).update(lacking)

    def _kept(self, digest: Digest) -> Spool:
        spool = self._spools.get(digest)
        if spool is None:
            raise DeltaIncomplete(f"the engine did not push {digest}")
        if not spool.kept:
            raise DeltaIncomplete(f"{digest} could not be kept: {spool.why}")
        return spool

    def put(self, nodes: Iterable[str], chunks: Iterable[Chunk]) -> None:
        """Pass chunks on to some nodes, at the pace of the slowest."""
        for chunk in chunks:
            for name in nodes:
                self.feeds[name].put(chunk)
                if self._image:
                    key = (name, self._image.image_id)
                    self.traffic[key] = self.traffic.get(key, 0) + len(chunk)

    def passed(self, digest: Digest, size: int, nodes: set[str]) -> None:
        """Note a blob that went straight through."""
        self.sizes[digest] = size
        self._sent.setdefault(digest, set()).update(nodes)

    def keep(self, digest: Digest, spool: Spool) -> None:
        """Note a blob that waits; the first of its digest that could be kept stays."""
        with self._lock:
            other = self._spools.get(digest)
            if other and other.kept:
                spool.close()
                return
            self._spools[digest] = spool
            self.sizes[digest] = spool.size


@attrs.define
class Kept:
    """A blob that waits for the end of the push."""

    _delta: Delta
    _spool: Spool

    def write(self, chunk: bytes) -> None:
        """Keep a piece."""
        self._spool.write(chunk)

    def finish(self, digest: Digest) -> None:
        """Check it, and keep it for the end of the push."""
        self._spool.check(digest)
        self._delta.keep(digest, self._spool)

    def abandon(self) -> None:
        """Delete what was kept."""
        self._spool.close()
        self._delta.dropped()


@attrs.define
class Through:
    """A blob that goes straight into the nodes, within one request; one at a time has the way.

    The others wait before their bodies are read: an engine that sends 127 layers at once takes the
    memory of one.
    """

    _delta: Delta
    _digest: Digest
    _size: int
    _nodes: set[str] = attrs.field(factory=set)
    _hasher: hashlib._Hash = attrs.field(factory=hashlib.sha256)
    _left: int = 0
    _has_way: bool = False
    _begun: bool = False

    def await_way(self, lacking: Callable[[], set[str]]) -> None:
        """Wait until no other blob is on the way; then ask which nodes lack this one."""
        self._delta.way.acquire()
        self._has_way = True
        try:
            self._nodes = lacking()
        except BaseException:
            self._free()
            raise

    def write(self, chunk: bytes) -> None:
        """Pass a piece on."""
        self._require_way()
        if not self._begun:
            self._begin()
        if len(chunk) > self._left:
            raise DigestMismatch(f"{self._digest} is longer than announced")
        self._left -= len(chunk)
        self._hasher.update(chunk)
        self._put(chunk)

    def _begin(self) -> None:
        self._begun = True
        self._left = self._size
        self._put(header(f"blobs/sha256/{secrets.token_hex(32)}", self._size))

    def finish(self, digest: Digest) -> None:
        """Check it, and free the way."""
        self._require_way()
        if not self._begun and not self._size:
            self._begin()
        whole = self._begun and not self._left and digest == self._digest
        if not whole or self._hasher.hexdigest() != digest.hex:
            raise DigestMismatch(f"a pushed blob is not {digest}")
        self._put(padding(self._size))
        self._delta.passed(digest, self._size, self._nodes)
        self._free()

    def abandon(self) -> None:
        """Cut the imports off, where half a blob is in their streams."""
        if not self._has_way:
            return
        for name in self._nodes if self._begun else ():
            self._delta.feeds[name].abort()
        self._free()

    def _require_way(self) -> None:
        """Refuse a write into the nodes' streams by any but the one blob that has the way."""
        if not self._has_way:
            raise DigestMismatch(f"{self._digest} was complete already, or was given up")

    def _free(self) -> None:
        self._has_way = False
        self._delta.way.release()

    def _put(self, chunk: Chunk) -> None:
        self._delta.put(self._nodes, [chunk])
