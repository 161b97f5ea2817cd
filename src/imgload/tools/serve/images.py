"""The images of the local engines, as a read-only registry has them.

A manifest is served once the whole image is in the cache: the manifest states the size of each
layer in the form that is served. Nodes request only the layers that they lack.
"""

from __future__ import annotations

import contextlib
import threading
import time
from collections import OrderedDict
from collections.abc import Callable, Iterator, Sequence
from functools import partial

import attrs

from imgload.core import trace
from imgload.core.errors import (
    EngineFailed,
    EngineUnreachable,
    ImageNotFound,
    ImgloadError,
    ManifestMissing,
)
from imgload.engines.base import ImageStore
from imgload.engines.cache import EngineCache
from imgload.loader.send import facts_of
from imgload.oci.archive import ArchiveSender, Wanted
from imgload.oci.content import ImageContent
from imgload.oci.digest import Digest
from imgload.oci.document import Index
from imgload.oci.platform import Platform
from imgload.oci.reference import Reference, matches, pinned
from imgload.registry.blob_store import StoredBlob, StoreFull
from imgload.sources.base import Image, Pusher, choose
from imgload.sources.engine import EngineSource
from imgload.sources.locate import locate
from imgload.sources.push import PushIncomplete, push
from imgload.tools.serve.cache import BlobCache, CacheReceiver

_MOST_IMAGES = 256
"""Images whose documents stay in memory, and whose removed blobs can be fetched again."""
_CLOSE_SECONDS = 2.0
Key = tuple[str, Digest, Platform, Digest | None]
"""An engine, its own ID of an image, the platform, and the manifest that the name demands."""


@attrs.frozen
class ServedImage:
    """An image that is in the cache, with its documents."""

    image: Image
    content: ImageContent

    @property
    def top(self) -> Digest:
        """The digest of its manifest, or of the index that its name demands."""
        return next(iter(self.content.indexes), self.content.manifest.digest)

    @property
    def documents(self) -> dict[Digest, tuple[str, bytes]]:
        """Media types and bytes of its manifest, and of the index that its name demands."""
        manifest = self.content.manifest
        indexes = self.content.indexes.items()
        return {manifest.digest: (manifest.media_type, manifest.raw)} | {
            digest: (Index.descriptor(raw, "").media_type, raw) for digest, raw in indexes
        }

    @property
    def blobs(self) -> frozenset[Digest]:
        """The digests of its config and its layers, as served."""
        layers = (layer.digest for layer in self.content.manifest.layers)
        return frozenset((self.content.config.digest, *layers))


@attrs.define(eq=False, repr=False)
class LocalImages:
    """Finds images by name, and has their blobs cached.

    Args:
        engines: the engines to search.
        cache: the blobs.
        patterns: the names to serve; empty for all.
        pulled: whether to serve images that an engine pulled from the registry in their name.

    """

    engines: Sequence[ImageStore]
    cache: BlobCache
    patterns: Sequence[str] = ()
    pulled: bool = False
    _served: OrderedDict[Key, ServedImage] = attrs.field(factory=OrderedDict)
    _fetching: dict[str, threading.Lock] = attrs.field(factory=dict)
    """One lock for each engine, so that images of several requests share their layers."""
    _lock: threading.Lock = attrs.field(factory=threading.Lock)

    def find(self, reference: Reference, platform: Platform | None) -> Image | None:
        """Return the image to serve under a name, or None; errors as for `locate`."""
        image = None
        if not self.patterns or matches(str(reference), self.patterns):
            image = self._locate(reference, platform, self.engines)
        if reason := refusal(reference, image, self.patterns, pulled=self.pulled):
            trace.log(f"{reference.familiar} is not served: {reason}")
            return None
        return image

    def tags(self, repository: Reference, platform: Platform) -> list[str]:
        """Return the tags under which images of a repository are served."""
        listed = {
            name for engine in self.engines for name in engine.names() if "<none>" not in name
        }
        names = [Reference.parse(name) for name in listed]
        wanted = {str(repository.untagged), str(repository.untagged.with_localhost())}
        tags = {name.tag for name in names if name.tag and str(name.untagged) in wanted}
        served = [tag for tag in tags if self._is_served(repository, tag, platform)]
        return sorted(served)

    def _is_served(self, repository: Reference, tag: str, platform: Platform) -> bool:
        with contextlib.suppress(ImgloadError):  # a pull reports it
            reference = attrs.evolve(repository, tag=tag, digest=None)
            return self.find(reference, platform) is not None
        return False

    def _locate(
        self, reference: Reference, platform: Platform | None, engines: Sequence[ImageStore]
    ) -> Image | None:
        sources = [EngineSource(engine) for engine in engines]
        try:
            # as in a pod spec: a short name also finds Podman's localhost/NAME
            [image] = locate([reference.familiar], sources, platform)
        except (ImageNotFound, ManifestMissing):
            return None
        except EngineUnreachable as error:  # another engine may have the image
            others = [engine for engine in engines if engine.endpoint.url != error.endpoint]
            if len(others) in {0, len(engines)}:
                raise
            if found := self._locate(reference, platform, others):
                return found
            raise
        finally:
            for source in sources:
                source.release()
        return image

    def serve(self, image: Image) -> ServedImage:
        """Return an image once it is cached; raise ImgloadError if it cannot be read."""
        [name] = image.names[:1]
        pin = pinned(name)
        key = (image.origin.address, image.target, image.platform, pin)
        with self._exclusive(image.origin.address):
            if served := self._served_as(key):
                trace.log(f"{name}: all of it is in the cache")
                return served
            served = ServedImage(image, self._fetch(image, name, keep=pin is not None))
            if any(self.cache.size(blob) is None for blob in served.blobs):
                raise StoreFull(
                    f"layers of {name} were removed from the cache while it was transferred",
                    hint="enlarge the cache with --cache-size",
                )
            with self._lock:
                self._served[key] = served
                if len(self._served) > _MOST_IMAGES:
                    self._served.popitem(last=False)
            return served

    def _served_as(self, key: Key) -> ServedImage | None:
        with self._lock:
            if key in self._served:
                self._served.move_to_end(key)
            return self._served.get(key)

    def _exclusive(self, engine: str) -> threading.Lock:
        with self._lock:
            return self._fetching.setdefault(engine, threading.Lock())

    def with_document(self, digest: Digest) -> ServedImage | None:
        """Return the served image that has a manifest or an index."""
        return self._newest(lambda served: digest in served.documents)

    def _newest(self, condition: Callable[[ServedImage], bool]) -> ServedImage | None:
        with self._lock:
            return next(filter(condition, reversed(self._served.values())), None)

    @contextlib.contextmanager
    def reading(self, digest: Digest) -> Iterator[StoredBlob | None]:
        """Yield a blob of a served image; if it was removed from the cache, fetch it again."""
        served = self._newest(lambda served: digest in served.blobs)
        if served and self.cache.size(digest) is None:
            self._restore(served, digest)
        with self.cache.reading(digest) if served else contextlib.nullcontext() as blob:
            yield blob

    def _restore(self, served: ServedImage, digest: Digest) -> None:
        image = served.image
        with self._exclusive(image.origin.address):
            if self.cache.size(digest) is None:
                with contextlib.suppress(ImgloadError):
                    [name] = image.names[:1]
                    trace.log(f"{name}: {digest} is no longer in the cache")
                    self._fetch(image, name, keep=pinned(name) is not None)

    def close(self) -> None:
        """End the transfers, so that they leave no tag in an engine and no partial blob."""
        self.cache.is_closed = True
        deadline = time.monotonic() + _CLOSE_SECONDS
        with self._lock:
            fetching = list(self._fetching.values())
        for lock in fetching:
            lock.acquire(timeout=max(0.0, deadline - time.monotonic()))

    def _fetch(self, image: Image, name: str, *, keep: bool) -> ImageContent:
        """Transfer an image from its engine into the cache, except for the blobs that it has."""
        receiver, memory, source = CacheReceiver(self.cache, keep), EngineCache.load(), image.origin
        try:
            image = source.identify(image)
            first, *others = _ways(image, name, receiver, memory)
            try:
                first()
            except (PushIncomplete, EngineFailed):
                if receiver.error:
                    raise receiver.error from None
                if not others:
                    raise
                others[0]()
        finally:
            source.release()
        memory.record_layers(source.address, receiver.layers)
        if receiver.content is None:
            raise EngineFailed(f"{source.describe} has not sent {name}")
        return receiver.content


def refusal(
    reference: Reference, image: Image | None, patterns: Sequence[str], *, pulled: bool
) -> str:
    """Return why an image, None if no engine has it, is not served under a name; empty if it is."""
    if patterns and not matches(str(reference), patterns):
        return f"it matches none of {', '.join(patterns)}"
    if image is None:
        return "no engine has it, or engines have different images"
    if image.pulled and not pulled:
        return f"{image.origin.describe} pulled it from {reference.registry}"
    return ""


def _ways(
    image: Image, name: str, receiver: CacheReceiver, memory: EngineCache
) -> list[Callable[[], object]]:
    """Return the functions that transfer an image, the cheaper one first."""
    pairs = list(zip(image.blobs, image.diff_ids, strict=True))
    missing = {diff_id for blob, diff_id in pairs if receiver.lacks(blob, diff_id)}
    facts = facts_of(image, missing, memory)
    save = partial(_save, image, name, receiver, memory)
    ways: list[Callable[[], object]] = [save]
    if facts.pushable and isinstance(image.origin, Pusher):
        by_push = partial(push, image.origin, {image: (name,)}, receiver)
        ways = [by_push, save] if choose("auto", facts).push else [save, by_push]
    way = "saves" if ways[0] is save else "pushes"
    trace.log(f"{name}: {image.origin.describe} {way} it into the cache: {facts.summary}")
    return ways


def _save(image: Image, name: str, receiver: CacheReceiver, memory: EngineCache) -> None:
    known = zip(image.blobs, image.diff_ids, strict=True) if image.layers_named else ()
    unneeded = {digest for pair in known if not receiver.lacks(*pair) for digest in pair}
    exact = tuple(filter(None, (image.manifest_digest, image.image_id)))
    wanted = Wanted(image.target, (name,), image.platform, exact=exact)
    with image.origin.save([image]) as archive:
        ArchiveSender(archive, [wanted], unneeded, memory.plain_sizes()).send(receiver)
