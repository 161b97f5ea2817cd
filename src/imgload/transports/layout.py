"""Writes one OCI layout as a tar for each node while its blobs arrive (image-layout.md).

containerd takes a blob's digest from its content and not from its path
(core/images/archive/importer.go), so a blob can be written before its digest is known.
``index.json`` comes last, and only if every digest is correct: a stream that breaks leaves no image
behind.
"""

from __future__ import annotations

import hashlib
import json
import secrets
import threading
from collections import defaultdict, deque
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from contextlib import contextmanager
from functools import partial
from itertools import product
from typing import Any

import attrs

from imgload.core.compression import (
    MAGIC_LENGTH,
    UNPACKED_BY_DOCKER,
    UNPACKED_BY_NODES,
    Compression,
    Decompressor,
    compression_of,
)
from imgload.core.errors import ArchiveInvalid, DigestMismatch, ImgloadError
from imgload.oci.content import Chunk, ImageContent, Receiver
from imgload.oci.digest import Digest
from imgload.oci.document import LAYER, Descriptor, Index, Manifest
from imgload.oci.platform import ANY_PLATFORM, Platform
from imgload.oci.reference import is_full_image_id, pinned
from imgload.oci.tar import END, header, padding
from imgload.registry.blob_store import StoredBlob
from imgload.transports.base import StoredLayers

_DEPTH = 4
"""Chunks that wait for one reader."""
_LAYOUT = b'{"imageLayoutVersion":"1.0.0"}'
_DOCKER_LAYER = "application/vnd.docker.image.rootfs.diff.tar"


@attrs.define(eq=False, repr=False)
class LayoutWriter(Receiver):
    """Writes the blobs that a node lacks into its feed; see `Order` and `Shipment`.

    `platform` is for images that declare none: ctr imports only those for its ``--platform``.
    """

    feeds: Mapping[str, Feed]
    missing: Mapping[str, frozenset[Digest]] | None = None
    stored: Mapping[str, frozenset[Digest]] = attrs.field(factory=dict)
    stored_layers: Callable[[str, Collection[Digest]], StoredLayers] = lambda _node, _layers: {}
    keep_manifest: bool = False
    platform: Platform = ANY_PLATFORM
    docker_nodes: frozenset[str] = frozenset()
    """The nodes that read the layout as a docker-archive."""
    paths: dict[Digest, str] = attrs.field(factory=dict)
    sent: dict[str, dict[Digest, int]] = attrs.field(factory=lambda: defaultdict(dict))
    plain: dict[Digest, Descriptor] = attrs.field(factory=dict)
    """Layers that were decompressed, by the digest of the compressed blob."""
    _entries: dict[str, list[Descriptor]] = attrs.field(factory=lambda: defaultdict(list))
    _archived: list[dict[str, Any]] = attrs.field(factory=list)
    """The entries of a docker-archive's manifest.json."""
    _empty: set[tuple[str, str]] = attrs.field(factory=set)
    """The nodes and paths of empty files."""
    _writing: threading.Lock = attrs.field(factory=threading.Lock)
    _exclusive: int | None = None
    """The thread that keeps all others from writing."""
    _begun: bool = False

    @property
    def is_open(self) -> bool:
        return not all(feed.left for feed in self.feeds.values())

    def lacks(self, digest: Digest, diff_id: Digest | None) -> bool:
        return bool(self._lacking(digest, diff_id))

    def _lacking(self, digest: Digest | None, diff_id: Digest | None) -> list[str]:
        nodes = list(self.feeds)
        if self.missing is not None and diff_id is not None:
            nodes = [node for node in nodes if diff_id in self.missing[node]]
        return [node for node in nodes if digest is None or digest not in self.sent[node]]

    def blob(
        self, size: int, digest: Digest | None = None, diff_id: Digest | None = None
    ) -> LayoutBlob:
        lock = None if self._exclusive == threading.get_ident() else self._writing
        if lock:
            lock.acquire()
        return LayoutBlob(self, size, digest, self._lacking(digest, diff_id), lock)

    @contextmanager
    def exclusive(self) -> Iterator[None]:
        if not self._writing.acquire(blocking=False):
            raise DigestMismatch("half a blob was sent, by the engine or by another process")
        self._exclusive = threading.get_ident()
        try:
            yield
        finally:
            self._exclusive = None
            self._writing.release()

    def image(self, content: ImageContent) -> None:
        if self.docker_nodes:
            self._archive(content)
        content = with_layers(content, self.plain)
        for node in self.feeds:
            stored = self.stored.get(node, frozenset())
            describe = partial(self.stored_layers, node)
            sent, keep = self.sent[node], self.keep_manifest
            manifest = manifest_for(content, stored, sent, describe, keep=keep)
            self._document(node, manifest.digest, manifest.raw)
            own = content.platform
            platform = self.platform if own.is_unspecified else own
            for name in content.names:
                entry = manifest.descriptor(platform, name)
                pin = pinned(name) or manifest.digest
                if pin != manifest.digest:
                    self._document(node, pin, content.indexes[pin])
                    entry = Index.descriptor(content.indexes[pin], name)
                self._entries[node].append(entry)

    def _archive(self, content: ImageContent) -> None:
        """Add the entry of an image to manifest.json, and an empty file for each absent layer.

        Docker and Podman do not read the layers that they have, but Podman requires the files
        (containers/image, docker/internal/tarfile/src.go).
        """
        digests = (content.config.digest, *(layer.digest for layer in content.manifest.layers))
        paths = {d: self.paths.get(d, f"blobs/sha256/{d.hex}") for d in digests}
        config, *layers = (paths[digest] for digest in digests)
        names = [name for name in content.names if not is_full_image_id(name)]
        self._archived.append({"Config": config, "RepoTags": names or None, "Layers": layers})
        for node, (digest, path) in product(self.docker_nodes, paths.items()):
            if digest not in self.sent[node] and (node, path) not in self._empty:
                self._empty.add((node, path))
                self.put([node], _member(path, b""))

    def _document(self, node: str, digest: Digest, raw: bytes) -> None:
        if digest not in self.sent[node]:
            self.sent[node][digest] = len(raw)
            self.put([node], _member(f"blobs/sha256/{digest.hex}", raw))

    def close(self) -> None:
        """Write each index.json, which names the images."""
        for node, entries in self._entries.items():
            self.put([node], _member("index.json", Index.build(tuple(entries))))
            if node in self.docker_nodes:
                self.put([node], _member("manifest.json", json.dumps(self._archived).encode()))
            self.put([node], [END])

    def put(self, nodes: Iterable[str], chunks: Iterable[Chunk]) -> None:
        """Write chunks into the streams of nodes, at the pace of the slowest."""
        if not self._begun:
            self._begun = True
            for feed in self.feeds.values():
                feed.put(b"".join(_member("oci-layout", _LAYOUT)))
        for chunk in chunks:
            for node in nodes:
                self.feeds[node].put(chunk)


@attrs.define(eq=False, repr=False)
class LayoutBlob:
    """Writes one blob into the streams of nodes.

    A layer in a compression that containerd does not know is decompressed into a file first: the
    header of a member contains its size.
    """

    _layout: LayoutWriter
    _size: int
    _digest: Digest | None
    _nodes: list[str]
    _lock: threading.Lock | None
    _hasher: hashlib._Hash = attrs.field(factory=hashlib.sha256)
    _written: int = 0
    _begun: bool = False
    _path: str = ""
    _ended: bool = False
    _plain: _PlainLayer | None = None

    def write(self, chunk: Chunk) -> None:
        if not self._written:
            form = form_for_nodes(chunk, keep=self._layout.keep_manifest)
            forms = UNPACKED_BY_DOCKER if self._layout.docker_nodes else UNPACKED_BY_NODES
            self._plain = None if form in forms else _PlainLayer(form)
        if not self._plain:
            self._begin(self._size)
        self._written += len(chunk)
        if self._written > self._size:
            raise DigestMismatch(f"a blob is longer than the {self._size} bytes announced")
        self._hasher.update(chunk)
        if self._plain:
            self._plain.write(chunk)
        else:
            self._layout.put(self._nodes, [chunk])

    def _begin(self, size: int) -> None:
        if self._ended:
            raise DigestMismatch("the blob is already complete or abandoned")
        if not self._begun:
            self._begun = True
            self._path = f"blobs/sha256/{secrets.token_hex(32)}"
            self._layout.put(self._nodes, [header(self._path, size)])

    def finish(self, digest: Digest | None = None) -> Digest:
        if not self._plain:
            self._begin(self._size)
        actual = Digest("sha256", self._hasher.hexdigest())
        expected = digest or self._digest
        if self._written != self._size or {digest, self._digest} - {None, actual}:
            raise DigestMismatch(f"a blob is {actual}, not {expected or 'as long as announced'}")
        size = self._finish_plain(actual, self._plain) if self._plain else self._size
        self._layout.put(self._nodes, [padding(size)])
        self._layout.paths[actual] = self._path
        for node in self._nodes:
            self._layout.sent[node][actual] = size
        self._end()
        return actual

    def _finish_plain(self, digest: Digest, layer: _PlainLayer) -> int:
        """Write a decompressed layer; return its size."""
        plain = layer.finish()
        self._begin(plain.size)
        self._layout.put(self._nodes, layer.blob.chunks())
        self._layout.plain[digest] = plain
        for node in self._nodes:
            self._layout.sent[node][plain.digest] = plain.size
        return plain.size

    def abandon(self) -> None:
        """Cut off the imports whose streams contain an incomplete blob."""
        if not self._ended:
            for node in self._nodes if self._begun else ():
                self._layout.feeds[node].abort()
            self._end()

    def _end(self) -> None:
        self._ended = True
        if self._plain:
            self._plain.blob.close()
        if self._lock:
            self._lock.release()


@attrs.define(eq=False, repr=False)
class _PlainLayer:
    """Decompresses a layer into a file without a name."""

    _form: Compression
    blob: StoredBlob = attrs.field(factory=lambda: StoredBlob(None))
    _hasher: hashlib._Hash = attrs.field(factory=hashlib.sha256)
    _decompressor: Decompressor = attrs.field(init=False)

    def __attrs_post_init__(self) -> None:
        self._decompressor = Decompressor(self._form, "a layer's")

    def write(self, chunk: Chunk) -> None:
        for piece in self._decompressor.feed(chunk):
            self._hasher.update(piece)
            self.blob.append(piece)

    def finish(self) -> Descriptor:
        self._decompressor.finish()
        return Descriptor(LAYER, Digest("sha256", self._hasher.hexdigest()), self.blob.complete())


def form_for_nodes(start: Chunk, *, keep: bool) -> Compression:
    """Return a layer's compression; ArchiveInvalid if `keep` demands one that containerd lacks."""
    form = compression_of(bytes(start[:MAGIC_LENGTH]))
    if keep and form not in UNPACKED_BY_NODES:
        raise ArchiveInvalid(
            f"a layer is compressed with {form}, which containerd cannot unpack",
            hint="load the image without --keep-manifest, and by a name without a digest",
        )
    return form


def with_layers(content: ImageContent, replaced: Mapping[Digest, Descriptor]) -> ImageContent:
    """Return the image with some of its layers replaced, by digest."""
    layers = tuple(replaced.get(layer.digest, layer) for layer in content.manifest.layers)
    if layers == content.manifest.layers:
        return content
    return attrs.evolve(content, manifest=Manifest.build(content.config, layers))


def manifest_for(
    content: ImageContent,
    stored: Collection[Digest],
    sent: Collection[Digest],
    describe: Callable[[Collection[Digest]], StoredLayers] = lambda _: {},
    *,
    keep: bool,
) -> Manifest:
    """Return the manifest, or one that refers to layers in the form that a node stores.

    Then ``ctr images check`` reports the image as complete; its config and image ID stay the same.
    A name with a digest requires the original manifest, and so does `keep`. `describe` reads the
    blobs of layers from the node, if the size of their uncompressed tars is unknown.
    """
    if keep or any(map(pinned, content.names)):
        return content.manifest
    absent = {
        layer.diff_id
        for layer in content.layers
        if layer.descriptor.digest not in stored and layer.descriptor.digest not in sent
    }
    plain = {d: size for d, size in content.plain.items() if d in absent and d in stored}
    others = {diff_id: Descriptor(LAYER, diff_id, size) for diff_id, size in plain.items()}
    if unknown := absent - others.keys():
        others |= describe(unknown)
    if not others:
        return content.manifest
    layers = (others.get(layer.diff_id, layer.descriptor) for layer in content.layers)
    return Manifest.build(content.config, tuple(map(_in_oci_terms, layers)))


def _in_oci_terms(layer: Descriptor) -> Descriptor:
    """Return a layer with the media type that belongs into an OCI manifest."""
    compression = layer.media_type.removeprefix(_DOCKER_LAYER)
    if compression == layer.media_type:
        return layer
    return attrs.evolve(layer, media_type=LAYER + compression.replace(".", "+"))


def _member(path: str, data: bytes) -> list[bytes]:
    return [header(path, len(data)) + data + padding(len(data))]


class StreamAborted(ImgloadError):
    """The stream was cut off; the reader must discard the incomplete content."""


@attrs.define(eq=False, repr=False)
class Feed:
    """A stream to one node, in bounded memory; a node that calls `leave` stops no other."""

    _waiting: deque[Chunk] = attrs.field(factory=deque)
    _changed: threading.Condition = attrs.field(factory=threading.Condition)
    _complete: bool = False
    _aborted: bool = False
    left: bool = False

    def __iter__(self) -> Iterator[Chunk]:
        while True:
            with self._changing():
                self._changed.wait_for(lambda: self._waiting or self._complete or self._aborted)
                if self._aborted:
                    raise StreamAborted("the stream was cut off at its source")
                if not self._waiting:
                    return
                chunk = self._waiting.popleft()
            yield chunk

    @contextmanager
    def _changing(self) -> Iterator[None]:
        with self._changed:
            yield
            self._changed.notify_all()

    def put(self, chunk: Chunk) -> None:
        """Add a chunk; wait while the reader is behind."""
        with self._changing():
            while len(self._waiting) >= _DEPTH and not self.left:
                self._changed.wait(0.2)
            if chunk and not self.left:
                self._waiting.append(chunk)

    def complete(self) -> None:
        with self._changing():
            self._complete = True

    def abort(self) -> None:
        with self._changing():
            self._aborted = True

    def leave(self) -> None:
        with self._changing():
            self.left = True
            self._waiting.clear()
