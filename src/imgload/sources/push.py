"""Forwards the content of images that an engine pushes to the registry in this process.

The engine asks for each layer first whether the registry has it. The answer is yes for a layer that
the receiver does not lack, so that only new layers are pushed. A blob that is announced with digest
and size is streamed; one of unknown size is spooled until the push has ended. Config and manifest
follow after all blobs: a push that breaks leaves no image behind.
"""

from __future__ import annotations

import hashlib
import threading
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import suppress

import attrs

from imgload.core.compression import MAGIC_LENGTH, Decompressor, compression_of
from imgload.core.errors import (
    ArchiveInvalid,
    EngineError,
    EngineFailed,
    ImgloadError,
    SourceError,
)
from imgload.engines.cache import EngineCache, Layers
from imgload.oci.content import ImageContent, Receiver
from imgload.oci.digest import Digest
from imgload.oci.document import ImageConfig, Index, Manifest, parse_json
from imgload.oci.reference import pinned
from imgload.registry.sink import Quota, Spool, UploadWriter, keep_manifest
from imgload.sources.base import Image, Pusher

_MARGIN = 16 << 20
"""Bytes that pushed blobs may have beyond twice the size of the unpacked layers."""
_MOST_MANIFESTS = 100
_OTHER_BLOBS = 32
"""Blobs that a push may contain in addition to the layers: configs and attestations."""


class PushIncomplete(ImgloadError):
    """The push lacks content that the nodes need; a save has it."""


@attrs.frozen
class ExpectedPush:
    """An image that the engine is about to push.

    `known` has the diff ID and size of layers, by each digest that the engine may ask for; if
    `exact`, no other digest matters. Without `manifest`, the engine identifies images by config.
    `checks_layers` has the diff IDs of pushed blobs computed, since no node may verify them.
    `limit` bytes are the maximum of one missing layer, `quota` of all spooled blobs together.
    """

    image_id: Digest
    diff_ids: tuple[Digest, ...]
    known: Mapping[Digest, tuple[Digest, int]]
    exact: bool = False
    manifest: Digest | None = None
    checks_layers: bool = False
    limit: int = 1 << 40
    quota: int = 1 << 40


def push(
    source: Pusher, images: Mapping[Image, tuple[str, ...]], receiver: Receiver
) -> tuple[dict[Digest, ImageContent], Layers]:
    """Have an engine push each image, which has names, once; forward the content to a receiver.

    Return the images by target, and the pushed layers, to be cached once a node has unpacked them.
    Layers that the engine compressed, but no node needs, are checked and cached here.
    PushIncomplete is raised if a push fails, or lacks content that a node needs.
    """
    memory = EngineCache.load()
    contents: dict[Digest, ImageContent] = {}
    spools: dict[Digest, Spool] = {}
    try:
        for image, names in images.items():
            expected, plain = _expected(source, image, memory, receiver)
            sink = ForwardingSink(expected, receiver, spools)
            if image.stored and image.manifest:
                receiver.announce(image.manifest, image.diff_ids, names)
            try:
                source.push(image, sink)
            except EngineError as error:
                if isinstance(error, EngineFailed) and error.final:
                    raise
                raise PushIncomplete(error.message) from error
            contents[image.target] = content = sink.end(names, image, plain)
            memory.record_layers(source.address, sink.checked(content))
    finally:
        for spool in spools.values():
            spool.close()
    layers = [layer for content in contents.values() for layer in content.layers]
    return contents, {x.descriptor.digest: (x.diff_id, x.descriptor.size) for x in layers}


def _expected(
    source: Pusher, image: Image, memory: EngineCache, receiver: Receiver
) -> tuple[ExpectedPush, Mapping[Digest, int]]:
    """Return the image to expect, and the cached sizes of its layers as plain tars, in bytes."""
    if image.image_id is None:
        raise PushIncomplete("the image ID is not known before the transfer")
    known = memory.layers(source.address)
    plain = memory.plain_sizes()
    sizes = source.layer_sizes(image)
    sizes = sizes if len(sizes) == len(image.diff_ids) else ()
    style = source.push_style(image)
    if style == "stored":
        blobs = zip(image.blobs, image.diff_ids, sizes, strict=True)
        known = {blob: (diff_id, size) for blob, diff_id, size in blobs}
    elif style == "compressing":
        known |= {d: (d, s) for d, s in zip(image.diff_ids, sizes, strict=False)} | {
            d: (d, s) for d, s in plain.items() if d in image.diff_ids
        }
    pairs = zip(image.diff_ids, sizes, strict=False)
    largest = max((s for d, s in pairs if receiver.lacks(d, d)), default=0)
    expected = ExpectedPush(
        image_id=image.image_id,
        diff_ids=image.diff_ids,
        known=known,
        exact=style == "stored",
        manifest=image.manifest.digest if image.stored and image.manifest else None,
        checks_layers=style == "remembering"
        and not all(receiver.lacks(d, d) for d in image.diff_ids),
        limit=2 * (largest if sizes else image.size) + _MARGIN,
        quota=2 * (sum(sizes) or image.size) + _MARGIN,
    )
    return expected, plain


@attrs.define(eq=False, repr=False)
class ForwardingSink:
    """Receives the push of one image from the registry; see `imgload.registry.sink.PushSink`.

    `spools` are blobs that wait for the end of the push, also those of earlier images. `diff_ids`
    are those that were computed, by blob.
    """

    image: ExpectedPush
    receiver: Receiver
    spools: dict[Digest, Spool] = attrs.field(factory=dict)
    diff_ids: dict[Digest, Digest] = attrs.field(factory=dict)
    _manifests: dict[Digest, bytes] = attrs.field(factory=dict)
    _open: bool = True
    _blobs_left: int = attrs.field(init=False)
    _quota: Quota = attrs.field(init=False)
    _lock: threading.Lock = attrs.field(factory=threading.Lock)

    def __attrs_post_init__(self) -> None:
        self._blobs_left = len(self.image.diff_ids) + _OTHER_BLOBS
        self._quota = Quota(self.image.quota)

    def stat_blob(self, digest: Digest) -> int | None:
        self._require_open()
        if digest in self.spools:
            return self.spools[digest].size
        if digest == self.image.image_id:
            return None
        layer = self.image.known.get(digest)
        if layer is None and digest in self.image.diff_ids:
            layer = (digest, 0)
        if layer is None:
            return 0 if self.image.exact else None
        return None if self.receiver.lacks(digest, layer[0]) else layer[1]

    def upload(self, digest: Digest | None, size: int | None) -> UploadWriter:
        """Stream a blob of known size; spool any other.

        While one streams, the others wait before they are read: an engine that sends 127 layers in
        parallel takes the memory of one.
        """
        self._require_open()
        layer = self.image.known.get(digest) if digest else None
        if layer and size == layer[1]:
            return self.receiver.blob(size, digest, layer[0])
        with self._lock:
            if self._blobs_left <= 0:
                raise PushIncomplete("more blobs were pushed than the image has")
            self._blobs_left -= 1
        spool = Spool(self.image.limit, self._quota, self.image.quota)
        hasher = _LayerHasher(self.image.quota) if self.image.checks_layers else None
        return _SpooledUpload(self, spool, hasher)

    def manifest(self, digest: Digest, raw: bytes) -> None:
        self._require_open()
        keep_manifest(self._manifests, digest, raw, _MOST_MANIFESTS)

    def keep(self, digest: Digest, spool: Spool) -> None:
        """Keep a blob, unless a complete one of its digest is kept already."""
        with self._lock:
            other = self.spools.get(digest)
            if other and other.kept:
                spool.close()
            else:
                self.spools[digest] = spool
        if digest == self.image.image_id:
            self._forward(digest, None)  # a node that pulls reads the config first

    def checked(self, content: ImageContent) -> Layers:
        """Return the layers of an image whose blobs have the right diff IDs, as computed."""
        layers = {x.descriptor.digest: (x.diff_id, x.descriptor.size) for x in content.layers}
        return {d: layer for d, layer in layers.items() if self.diff_ids.get(d) == layer[0]}

    def allow_another(self) -> None:
        """Do not count an abandoned blob."""
        with self._lock:
            self._blobs_left += 1

    def end(
        self, names: tuple[str, ...], image: Image, plain: Mapping[Digest, int]
    ) -> ImageContent:
        """Close the sink; send the spooled blobs, and then the image."""
        self._open = False
        try:
            manifest, config = self._manifest(), self._config()
            content = ImageContent(
                manifest, config, names, image.platform, self._indexes(names, manifest), plain
            )
            with self.receiver.exclusive():
                for layer in content.layers:
                    self._forward(layer.descriptor.digest, layer.diff_id)
                self._forward(config.digest, None)
                self.receiver.image(content)
        except SourceError as error:
            raise PushIncomplete(f"the engine pushed another image: {error.message}") from error
        except OSError as error:
            raise PushIncomplete(f"a kept blob cannot be read: {error.strerror}") from error
        return content

    def _require_open(self) -> None:
        if not self._open:
            raise PushIncomplete("nothing is being pushed")

    def _config(self) -> ImageConfig:
        config = ImageConfig.parse(b"".join(self._kept(self.image.image_id).chunks()))
        if config.diff_ids != self.image.diff_ids:
            raise PushIncomplete("the engine pushed an image with other layers")
        return config

    def _manifest(self) -> Manifest:
        """Return the manifest that the engine reports, or the only one with the image's config.

        Another process that knows the repository may have pushed manifests too.
        """
        image = self.image
        manifests = _with_config(self._manifests, image.image_id)
        if image.manifest:
            manifests = [m for m in manifests if m.digest == image.manifest]
        if not manifests:
            raise PushIncomplete("the engine pushed another image")
        if len(manifests) > 1:
            raise PushIncomplete("several manifests of the image were pushed")
        if len(manifests[0].layers) != len(image.diff_ids):
            raise PushIncomplete("the engine pushed a manifest with other layers")
        return manifests[0]

    def _indexes(self, names: Sequence[str], manifest: Manifest) -> dict[Digest, bytes]:
        """Return the pushed indexes whose digests are in names."""
        indexes = {}
        for pin in {pin for name in names if (pin := pinned(name))} - {manifest.digest}:
            raw = self._manifests.get(pin)
            if raw is None or manifest.digest not in {m.digest for m in Index.parse(raw).manifests}:
                raise PushIncomplete(f"the engine did not push the manifest {pin}")
            indexes[pin] = raw
        return indexes

    def _forward(self, digest: Digest, diff_id: Digest | None) -> None:
        if self.receiver.lacks(digest, diff_id):
            spool = self._kept(digest)
            writer = self.receiver.blob(spool.size, digest, diff_id)
            try:
                for chunk in spool.chunks():
                    writer.write(chunk)
                writer.finish(digest)
            finally:
                writer.abandon()

    def _kept(self, digest: Digest) -> Spool:
        spool = self.spools.get(digest)
        if spool is None:
            raise PushIncomplete(f"the engine did not push {digest}")
        if not spool.kept:
            raise PushIncomplete(f"{digest} could not be kept: {spool.why}")
        return spool


@attrs.define(eq=False, repr=False)
class _LayerHasher:
    """Computes the diff ID of a layer of at most `limit` bytes, which may be compressed."""

    _limit: int
    _hasher: hashlib._Hash = attrs.field(factory=hashlib.sha256)
    _decompressor: Decompressor | None = None
    _begun: bool = False

    def update(self, chunk: bytes) -> None:
        if self._limit < 0:
            return
        if not self._begun and (form := compression_of(chunk[:MAGIC_LENGTH])):
            self._decompressor = Decompressor(form, "a pushed layer's")
        self._begun = True
        try:
            for piece in self._decompressor.feed(chunk) if self._decompressor else [chunk]:
                self._limit -= len(piece)
                if self._limit < 0:
                    break
                self._hasher.update(piece)
        except ArchiveInvalid:
            self._limit = -1

    def diff_id(self) -> Digest | None:
        """Return it; None if the layer is damaged or too large."""
        with suppress(ArchiveInvalid):
            if self._decompressor:
                self._decompressor.finish()
            if self._limit >= 0:
                return Digest("sha256", self._hasher.hexdigest())
        return None


@attrs.define(eq=False, repr=False)
class _SpooledUpload:
    """A blob that waits for the end of the push."""

    _sink: ForwardingSink
    _spool: Spool
    _hasher: _LayerHasher | None = None

    def write(self, chunk: bytes) -> None:
        self._spool.write(chunk)
        if self._hasher:
            self._hasher.update(chunk)

    def finish(self, digest: Digest) -> None:
        self._spool.check(digest)
        if self._hasher and (diff_id := self._hasher.diff_id()):
            self._sink.diff_ids[digest] = diff_id
        self._sink.keep(digest, self._spool)

    def abandon(self) -> None:
        self._spool.close()
        self._sink.allow_another()


def manifest_for(pushed: Mapping[Digest, bytes], image: Image) -> Manifest | None:
    """Return the manifest whose digest the engine reports, directly or through its index.

    Other processes may have pushed too, so no other property identifies the image's manifest.
    """
    top = pushed.get(image.target)
    if top is None:
        listed = {image.manifest_digest or image.target}
    elif "config" in parse_json(top, "a manifest"):
        listed = {image.target}
    else:
        entries = [e for e in Index.parse(top).manifests if not e.is_attestation]
        listed = {e.digest for e in entries if e.platform in {None, image.platform}}
    if image.manifest_digest:
        listed &= {image.manifest_digest}
    reported = _parsed(pushed[digest] for digest in listed if digest in pushed)
    manifests = [m for m in reported if len(m.layers) == len(image.diff_ids)]
    return manifests[0] if len(manifests) == 1 else None


def documents_for(pushed: Mapping[Digest, bytes], image: Image) -> dict[Digest, bytes]:
    """Return the pushed documents that a registry needs: children first, the image itself last."""
    if not image.stored:
        manifests = _with_config(pushed, image.image_id) if image.image_id else []
        return {m.digest: m.raw for m in manifests} if len(manifests) == 1 else {}
    top = image.target if image.target in pushed else image.manifest_digest
    if top is None or top not in pushed:
        return {}
    wanted = [top]
    for digest in wanted:  # grows: an index may list others
        document = parse_json(pushed[digest], "a manifest")
        if "manifests" in document:
            listed = (entry.digest for entry in Index.parse(pushed[digest]).manifests)
            wanted += [child for child in listed if child in pushed and child not in wanted]
    return {digest: pushed[digest] for digest in reversed(wanted)}


def _parsed(raws: Iterable[bytes]) -> Iterator[Manifest]:
    """Yield the image manifests; an index may list others, such as artifacts and indexes."""
    for raw in raws:
        with suppress(ArchiveInvalid):
            yield Manifest.parse(raw)


def _with_config(pushed: Mapping[Digest, bytes], image_id: Digest) -> list[Manifest]:
    raws = (raw for raw in pushed.values() if str(image_id).encode() in raw)
    return [manifest for manifest in _parsed(raws) if manifest.config.digest == image_id]
