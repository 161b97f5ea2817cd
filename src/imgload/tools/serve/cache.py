"""The blobs of served images in a bounded folder, and the receiver that writes them.

Layers are stored as uncompressed tars, which nodes unpack twice as fast, and which do not depend on
the engine: a rebuild transfers only its new layers from the engine.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import secrets
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import IO

import attrs

from imgload.core import trace
from imgload.core.compression import Decompressor
from imgload.core.errors import DigestMismatch
from imgload.core.state import BLOBS, private_folder, state_folder
from imgload.core.units import size_text
from imgload.engines.cache import Layers
from imgload.oci.content import Chunk, ImageContent, Receiver
from imgload.oci.digest import Digest
from imgload.oci.document import LAYER, Descriptor
from imgload.registry.blob_store import StoredBlob, StoreFull
from imgload.transports.layout import form_for_nodes, with_layers

_PARTIAL = ".partial-"


@attrs.define(eq=False, repr=False)
class BlobCache:
    """Blobs by digest; the least recently used ones are removed beyond `limit` bytes."""

    folder: Path
    limit: int
    is_closed: bool = False
    """Whether transfers into it have to end."""
    _intact: set[Digest] = attrs.field(factory=set)
    """The blobs whose digest this process has checked."""
    _lock: threading.Lock = attrs.field(factory=threading.Lock)

    @classmethod
    def open(cls, limit: int) -> BlobCache:
        """Open the folder, which only one process may use, and remove partial blobs."""
        folder = state_folder() / BLOBS
        try:
            private_folder(folder)
            for abandoned in folder.glob(f"{_PARTIAL}*"):
                abandoned.unlink()
        except OSError as error:
            raise StoreFull(f"cannot use the cache {folder}: {error.strerror}") from error
        return cls(folder, limit)

    def _path(self, digest: Digest) -> Path:
        return self.folder / str(digest).replace(":", "-")

    def size(self, digest: Digest) -> int | None:
        """Return the bytes of a blob, or None if it is not stored."""
        try:
            return self._path(digest).lstat().st_size
        except OSError:
            return None

    @contextlib.contextmanager
    def reading(self, digest: Digest) -> Iterator[StoredBlob | None]:
        """Yield a blob, which may be removed meanwhile; None if it is absent or damaged."""
        path = self._path(digest)
        try:
            file = path.open("rb", buffering=0)
        except OSError:
            yield None
            return
        with file:
            if digest not in self._intact:
                if _sha256(file) != digest:
                    path.unlink(missing_ok=True)
                    yield None
                    return
                self._intact.add(digest)
            os.utime(file.fileno())
            size = os.fstat(file.fileno()).st_size
            yield StoredBlob(size, file, 0, size, is_own=False)

    def new_file(self) -> IO[bytes]:
        """Open a file for a blob that is still incomplete; `name` is its path."""
        return (self.folder / f"{_PARTIAL}{secrets.token_hex(8)}").open("xb", buffering=0)

    def add(self, partial: Path, digest: Digest) -> None:
        """Move a complete file, whose digest is verified, into the cache."""
        with self._lock:
            partial.replace(self._path(digest))
            self._intact.add(digest)
            self._remove_oldest(keep=self._path(digest))

    def _remove_oldest(self, keep: Path) -> None:
        blobs = []
        for entry in os.scandir(self.folder):
            if not entry.name.startswith(_PARTIAL):
                with contextlib.suppress(FileNotFoundError):
                    status = entry.stat(follow_symlinks=False)
                    blobs.append((status.st_mtime_ns, status.st_size, entry))
        excess = sum(size for _, size, _ in blobs) - self.limit
        for _, size, entry in sorted(blobs, key=lambda blob: blob[0]):
            if excess <= 0:
                break
            if entry.path != str(keep):
                digest = Digest.parse(entry.name.replace("-", ":", 1))
                trace.log(f"cache: {digest} ({size_text(size)}) is removed as least recently used")
                Path(entry.path).unlink(missing_ok=True)
                self._intact.discard(digest)
                excess -= size


def _sha256(file: IO[bytes]) -> Digest:
    return Digest("sha256", hashlib.file_digest(file, "sha256").hexdigest())  # type: ignore[arg-type]


@attrs.define(eq=False, repr=False)
class CacheReceiver(Receiver):
    """Receives one image into a cache; `keep` leaves its layers and manifest as they are."""

    cache: BlobCache
    keep: bool
    content: ImageContent | None = None
    """The image, with layers in the form in which they are stored."""
    layers: Layers = attrs.field(factory=dict)
    """The layers that were decompressed, by the digest of the blob, with diff ID and its size."""
    error: StoreFull | None = None
    """Why a blob was refused, which an engine that pushes does not report."""
    left: int = attrs.field(init=False)
    sizes: dict[Digest, int] = attrs.field(factory=dict)
    """Bytes of the blobs that were stored, by the digest in that form."""

    def __attrs_post_init__(self) -> None:
        self.left = self.cache.limit

    def lacks(self, digest: Digest, diff_id: Digest | None) -> bool:
        forms = {digest} if self.keep or diff_id is None else {digest, diff_id}
        return all(self.cache.size(form) is None for form in forms)

    def blob(
        self, size: int, digest: Digest | None = None, diff_id: Digest | None = None
    ) -> CacheWriter:
        return CacheWriter(self, size, digest, None if self.keep else diff_id)

    def image(self, content: ImageContent) -> None:
        plain: dict[Digest, Descriptor] = {}
        for layer in () if self.keep else content.layers:
            size = self.sizes.get(layer.diff_id, self.cache.size(layer.diff_id))
            if size is not None:
                plain[layer.descriptor.digest] = Descriptor(LAYER, layer.diff_id, size)
        self.content = with_layers(content, plain)

    @contextlib.contextmanager
    def exclusive(self) -> Iterator[None]:
        yield

    @property
    def is_open(self) -> bool:
        return True

    def take(self, size: int) -> None:
        """Count bytes to store; raise StoreFull if they are more than the cache may have."""
        self.left -= size
        if self.cache.is_closed:
            self.error = StoreFull("the server is stopping")
            raise self.error
        if self.left < 0:
            self.error = StoreFull(
                f"the image is larger than the cache of {size_text(self.cache.limit)}",
                hint="enlarge it with --cache-size",
            )
            raise self.error

    def add(self, file: Path, size: int, blob: Digest, blob_size: int, stored: Digest) -> None:
        """Keep a complete blob, whose digest is `stored` in the form in which it is stored."""
        try:
            self.cache.add(file, stored)
        except OSError as error:
            raise StoreFull(f"{self.cache.folder}: {error.strerror}") from error
        self.sizes[stored] = size
        if blob != stored:
            self.layers[blob] = (stored, blob_size)


@attrs.define(eq=False, repr=False)
class CacheWriter:
    """Writes a blob into the cache, decompressed unless the manifest must stay."""

    _receiver: CacheReceiver
    _size: int
    _digest: Digest | None
    _diff_id: Digest | None
    _file: IO[bytes] | None = None
    _received: int = 0
    _stored: int = 0
    _hasher: hashlib._Hash = attrs.field(factory=hashlib.sha256)
    _plain_hasher: hashlib._Hash = attrs.field(factory=hashlib.sha256)
    _decompressor: Decompressor | None = None

    def write(self, chunk: Chunk) -> None:
        if not self._received:
            form = form_for_nodes(chunk, keep=self._receiver.keep)
            if form and not self._receiver.keep:
                self._decompressor = Decompressor(form, "a layer's")
        self._received += len(chunk)
        if self._received > self._size:
            raise DigestMismatch(f"a blob is longer than the {self._size} bytes announced")
        if not self._has_diff_id:
            self._hasher.update(chunk)
        for piece in self._decompressor.feed(chunk) if self._decompressor else (chunk,):
            self._store(piece)

    @property
    def _has_diff_id(self) -> bool:
        """Whether the diff ID verifies the blob, so that its own digest is not computed."""
        return bool(self._decompressor and self._digest and self._diff_id)

    def _store(self, piece: Chunk) -> None:
        self._receiver.take(len(piece))
        if self._decompressor:
            self._plain_hasher.update(piece)
        try:
            self._file = self._file or self._receiver.cache.new_file()
            rest = memoryview(piece)
            while rest:
                rest = rest[self._file.write(rest) :]
        except OSError as error:
            raise StoreFull(f"{self._receiver.cache.folder}: {error.strerror}") from error
        self._stored += len(piece)

    def finish(self, digest: Digest | None = None) -> Digest:
        blob = stored = Digest("sha256", self._hasher.hexdigest())
        if self._has_diff_id and self._digest:
            blob = self._digest
        if self._received < self._size or not {digest, self._digest} <= {None, blob}:
            raise DigestMismatch(f"a blob is {blob}, not {digest or self._digest}, or is cut off")
        if self._decompressor:
            self._decompressor.finish()
            stored = Digest("sha256", self._plain_hasher.hexdigest())
        if self._diff_id not in {None, stored}:
            raise DigestMismatch(f"a layer is {stored}, not {self._diff_id}")
        self._store(b"")
        if self._file:
            self._file.close()
            self._receiver.add(Path(self._file.name), self._stored, blob, self._size, stored)
            self._file = None
        return blob

    def abandon(self) -> None:
        if self._file:
            self._file.close()
            Path(self._file.name).unlink(missing_ok=True)
            self._file = None
