"""What has been read of an archive so far: small members kept, large ones only measured."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from itertools import chain
from typing import Any, Literal, TypeVar

import attrs

from imgload.core.errors import ArchiveInvalid, DigestMismatch
from imgload.oci.digest import Digest
from imgload.oci.document import MAX_DOCUMENT

MAX_KEPT = 32 << 20
"""Bytes of small members that are held in memory, all together."""
_MAX_LINKS = 20
_START = 4

Document = TypeVar("Document")
Compression = Literal["", "gzip", "zstd"]
_MAGIC: dict[bytes, Compression] = {b"\x1f\x8b": "gzip", b"\x28\xb5\x2f\xfd": "zstd"}


def compression_of(start: bytes) -> Compression:
    """Tell a layer's compression by its first bytes."""
    return next((name for magic, name in _MAGIC.items() if start.startswith(magic)), "")


@attrs.frozen
class Blob:
    """A member's content; `size` in bytes, `data` only when it was kept.

    `digest` is None where the content was passed over unread.
    """

    digest: Digest | None
    size: int
    compression: Compression = ""
    data: bytes | None = attrs.field(default=None, repr=False)


@attrs.define
class Blobs:
    """The members of an archive by path."""

    _by_path: dict[str, Blob] = attrs.field(factory=dict)
    _links: dict[str, str] = attrs.field(factory=dict)
    _parsed: dict[object, Any] = attrs.field(factory=dict)
    _kept: int = 0

    def add(self, path: str, blob: Blob) -> None:
        """Note a member.

        Raises:
            ArchiveInvalid: when the path is taken by other content, or too much is kept.

        """
        known = self._by_path.setdefault(path, blob)
        if known.digest != blob.digest:
            raise ArchiveInvalid(f"the archive has two different members named {path!r:.200}")
        self._kept += len(blob.data or b"")
        if self._kept > MAX_KEPT:
            raise ArchiveInvalid(f"the archive has more than {MAX_KEPT} bytes of metadata")

    def link(self, path: str, target: str) -> None:
        """Note a symbolic or hard link."""
        self._links[path] = target

    def get(self, path: str) -> Blob | None:
        """Return what is at a path, links followed."""
        for _ in range(_MAX_LINKS):
            if path in self._by_path or path not in self._links:
                return self._by_path.get(path)
            path = self._links[path]
        raise ArchiveInvalid(f"the archive's links go round in a circle at {path!r:.200}")

    def content(self, path: str) -> bytes | None:
        """Return the kept content at a path, or None where there is nothing kept."""
        blob = self.get(path)
        return blob.data if blob else None

    def parsed(self, blob: Blob, parse: Callable[[bytes], Document]) -> Document:
        """Return a kept document, which is parsed once however often the archive lists it."""
        if (blob.digest, parse) not in self._parsed:
            self._parsed[blob.digest, parse] = parse(blob.data or b"")
        document: Document = self._parsed[blob.digest, parse]
        return document

    def by_digest(self, digest: Digest) -> Blob | None:
        """Return a blob of an OCI layout; its path is its digest (image-layout.md#blobs)."""
        path = f"blobs/{digest.algorithm}/{digest.hex}"
        blob = self.get(path)
        if blob is not None and not _is(blob, digest):
            raise DigestMismatch(f"{path} has the content of {blob.digest}")
        return blob

    def values(self) -> Iterator[Blob]:
        """All members."""
        return iter(self._by_path.values())


def _is(blob: Blob, digest: Digest) -> bool:
    """Whether a blob may be what its path says; what was neither read nor kept may be."""
    if digest.algorithm == "sha256":
        return blob.digest in {None, digest}
    return blob.data is None or Digest.of(blob.data, digest.algorithm) == digest


def peek(body: Iterable[memoryview]) -> tuple[bytes, Iterator[memoryview]]:
    """Return a member's first four bytes, however small the pieces are, and all its pieces."""
    pieces = iter(body)
    held: list[memoryview] = []
    while sum(map(len, held)) < _START and (piece := next(pieces, None)) is not None:
        held.append(piece)
    return b"".join(held)[:_START], chain(held, pieces)


def digits_of(path: str) -> str:
    """Return what a layer's path calls it: its digest in most archives, an ID in older Docker's."""
    return path.rpartition("/")[2].removesuffix(".tar")


def may_be_document(path: str, size: int, start: bytes) -> bool:
    """Whether a member may be JSON that has to be understood, and is small enough to keep."""
    named = path.endswith("json") or path in {"oci-layout", "repositories"}
    return size <= MAX_DOCUMENT and (named or start.startswith(b"{"))
