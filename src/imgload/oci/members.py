"""The members of an archive: documents are kept, of layers only digest and size."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable, Iterator
from itertools import chain
from typing import Any, TypeVar

import attrs

from imgload.core.compression import MAGIC_LENGTH, Compression, compression_of
from imgload.core.errors import ArchiveInvalid, DigestMismatch
from imgload.oci.digest import Digest
from imgload.oci.document import MAX_DOCUMENT
from imgload.oci.tar import Member, Place, read_tar

MAX_KEPT = 32 << 20
"""Bytes of all small members together, which are kept in memory."""
_MAX_LINKS = 20

Document = TypeVar("Document")
Chunk = TypeVar("Chunk", bytes, memoryview)


@attrs.frozen
class Blob:
    """A member: `size` in bytes; `digest` is None if it was skipped, `data` if it was not kept.

    `digest` is always a sha256, since containerd stores no other; `other` is that of the algorithm
    in the member's path.
    """

    digest: Digest | None
    size: int
    compression: Compression = ""
    data: bytes | None = attrs.field(default=None, repr=False)
    place: Place | None = attrs.field(default=None, eq=False)
    other: Digest | None = None


ReadOther = Callable[[Member, Compression, Iterator[memoryview]], Blob | None]
"""Reads a member that is no document."""


@attrs.define(eq=False, repr=False)
class Blobs:
    """The members of an archive by path: of large ones, only digest and size are kept."""

    _by_path: dict[str, Blob] = attrs.field(factory=dict)
    _links: dict[str, str] = attrs.field(factory=dict)
    _parsed: dict[object, Any] = attrs.field(factory=dict)
    _layers: dict[Digest, Blob] = attrs.field(factory=dict)
    _kept: int = 0

    def add(self, path: str, blob: Blob) -> None:
        known = self._by_path.setdefault(path, blob)
        if known.digest != blob.digest:
            raise ArchiveInvalid(f"the archive has two different members named {path!r:.200}")
        if blob.digest:
            self._layers.setdefault(blob.digest, blob)
        self._kept += len(blob.data or b"")
        if self._kept > MAX_KEPT:
            raise ArchiveInvalid(f"the archive has more than {MAX_KEPT} bytes of metadata")

    def link(self, path: str, target: str) -> None:
        self._links[path] = target

    def get(self, path: str) -> Blob | None:
        for _ in range(_MAX_LINKS):
            if path in self._by_path or path not in self._links:
                return self._by_path.get(path)
            path = self._links[path]
        raise ArchiveInvalid(f"the archive's links form a cycle at {path!r:.200}")

    def parsed(self, blob: Blob, parse: Callable[[bytes], Document]) -> Document:
        """Return a kept document, parsed once however often the archive lists it."""
        if (blob.digest, parse) not in self._parsed:
            self._parsed[blob.digest, parse] = parse(blob.data or b"")
        document: Document = self._parsed[blob.digest, parse]
        return document

    def by_digest(self, digest: Digest) -> Blob | None:
        """Return a blob of an OCI layout, whose path is its digest (image-layout.md#blobs)."""
        path = f"blobs/{digest.algorithm}/{digest.hex}"
        blob = self.get(path)
        if blob is None:
            return None
        actual = blob.digest if digest.algorithm == "sha256" else blob.other
        if actual not in {None, digest}:
            raise DigestMismatch(f"{path} has the content of {actual}")
        return blob

    def add_layer(self, digest: Digest, blob: Blob) -> None:
        """Record the digest of a layer whose path does not contain it."""
        self._layers[digest] = blob

    def layer(self, digest: Digest) -> Blob | None:
        """Return a layer by its digest, whatever its path is."""
        return self.by_digest(digest) or self._layers.get(digest)

    def documents(self) -> dict[Digest, bytes]:
        """Return the kept members by digest."""
        blobs = self._by_path.values()
        return {b.digest: b.data for b in blobs if b.digest and b.data is not None}

    def read(self, archive: Iterable[bytes], read_other: ReadOther) -> bool:
        """Read an archive; return False if `read_other` did not read a member."""
        for member, body in read_tar(archive):
            if member.kind == "link":
                self.link(member.path, member.target)
            elif member.kind == "file":
                start, chunks = peek(body)
                claimed = other_digest(member.path)
                hasher = hashlib.new(claimed.algorithm) if claimed else None
                if hasher:
                    chunks = hashed(chunks, hasher)
                if may_be_document(member.path, member.size, start):
                    data = b"".join(chunks)
                    blob: Blob | None = Blob(Digest.of(data), len(data), "", data)
                else:
                    blob = read_other(member, compression_of(start), chunks)
                if blob is None:
                    return False
                other = Digest(hasher.name, hasher.hexdigest()) if hasher else None
                self.add(member.path, attrs.evolve(blob, other=other))
        return True


def peek(body: Iterable[memoryview]) -> tuple[bytes, Iterator[memoryview]]:
    """Return a member's first four bytes, and all its chunks."""
    chunks = iter(body)
    first: list[memoryview] = []
    while sum(map(len, first)) < MAGIC_LENGTH and (chunk := next(chunks, None)) is not None:
        first.append(chunk)
    return b"".join(first)[:MAGIC_LENGTH], chain(first, chunks)


def hashed(chunks: Iterable[Chunk], hasher: hashlib._Hash) -> Iterator[Chunk]:
    """Yield chunks, and hash them."""
    for chunk in chunks:
        hasher.update(chunk)
        yield chunk


def sha256_of(chunks: Iterable[memoryview]) -> Digest:
    """Read a blob to its end; return its digest."""
    hasher = hashlib.sha256()
    for _ in hashed(chunks, hasher):
        pass
    return Digest("sha256", hasher.hexdigest())


def other_digest(path: str) -> Digest | None:
    """Return the digest in a blob's path if it is no sha256, so that the blob has to be hashed."""
    digest = claimed_digest(path)
    return digest if digest and digest.algorithm != "sha256" else None


def digits_of(path: str) -> str:
    """Return the name of a layer in its path: its digest, or an ID of its own in older Docker's."""
    return path.rpartition("/")[2].removesuffix(".tar")


def claimed_digest(path: str) -> Digest | None:
    """Return the digest in the path of a blob of an OCI layout."""
    return Digest.try_parse(path.removeprefix("blobs/").replace("/", ":", 1))


def may_be_document(path: str, size: int, start: bytes) -> bool:
    """Whether a member may be a JSON document of an image, and is small enough to keep."""
    named = path.endswith("json") or path in {"oci-layout", "repositories"}
    return size <= MAX_DOCUMENT and (named or start.startswith(b"{"))
