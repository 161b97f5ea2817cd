"""The content that the read side of the registry serves, also while it is being received."""

from __future__ import annotations

import os
import tempfile
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import IO

import attrs

from imgload.core.errors import ImgloadError
from imgload.core.files import read_at
from imgload.core.state import spool_folder
from imgload.oci.content import Chunk
from imgload.oci.digest import Digest

_SEND_BYTES = 4 << 20


class StoreFull(ImgloadError):
    """Content cannot be stored on this machine for the nodes to pull."""


def _unnamed_file() -> IO[bytes]:
    return tempfile.TemporaryFile(buffering=0, dir=spool_folder())


@attrs.define(eq=False, repr=False)
class StoredBlob:
    """A blob in a file without a name; readers follow it while it is written.

    Readers must verify the digest, as containerd does.
    """

    size: int | None
    """Bytes; None until a blob of unknown size is complete."""
    _file: IO[bytes] = attrs.field(factory=_unnamed_file)
    _offset: int = 0
    _written: int = 0
    is_own: bool = True
    """Whether the file belongs to the blob."""
    _is_broken: bool = False
    _changed: threading.Condition = attrs.field(factory=threading.Condition)

    def append(self, chunk: Chunk) -> None:
        """Add a chunk; StoreFull if it cannot be stored."""
        try:
            self._write(chunk)
        except (OSError, ValueError) as error:  # ValueError: the store was closed
            self.fail()
            raise StoreFull(f"{spool_folder()}: {error}") from error
        with self._changed:
            self._written += len(chunk)
            self._changed.notify_all()

    def _write(self, chunk: Chunk) -> None:
        rest = memoryview(chunk)
        while rest:
            rest = rest[self._file.write(rest) :]

    def fail(self) -> None:
        """End the readers: the blob stays incomplete."""
        with self._changed:
            self._is_broken = True
            self._changed.notify_all()

    def send_to(self, connection: int, span: range) -> Iterator[int]:
        """Send bytes to a socket while they are written; yield the number that each call sent."""
        position = span.start
        while position < span.stop:
            available = min(self._wait_beyond(position), span.stop) - position
            count = os.sendfile(
                connection,
                self._file.fileno(),
                self._offset + position,
                min(available, _SEND_BYTES),
            )
            if not count:
                raise ConnectionAbortedError("the reader closed the connection")
            position += count
            yield count

    def wait_for_size(self) -> int:
        """Wait until the size is known; ConnectionAbortedError if the blob stays incomplete."""
        with self._changed:
            self._changed.wait_for(lambda: self.size is not None or self._is_broken)
            if self.size is None:
                raise ConnectionAbortedError("the blob is incomplete")
            return self.size

    def complete(self) -> int:
        """End a blob of unknown size; return its size."""
        with self._changed:
            self.size = self._written
            self._changed.notify_all()
            return self._written

    def _wait_beyond(self, sent: int) -> int:
        with self._changed:
            self._changed.wait_for(lambda: self._written > sent or self._is_broken)
            if self._is_broken:
                raise ConnectionAbortedError("the blob is incomplete")
            return self._written

    def chunks(self) -> Iterator[bytes]:
        """Yield the complete blob."""
        return read_at(self._file, self._offset, self.wait_for_size())

    def close(self) -> None:
        self.fail()
        if self.is_own:
            self._file.close()


@attrs.define(eq=False, repr=False)
class BlobStore:
    """Blobs and documents by digest; a request waits for its content."""

    blobs: dict[Digest, StoredBlob] = attrs.field(factory=dict)
    documents: dict[Digest, tuple[str, bytes]] = attrs.field(factory=dict)
    """Media types and bytes of manifests and indexes."""
    names: dict[tuple[str, str], Digest] = attrs.field(factory=dict)
    """Digests of documents by node and name."""
    is_complete: bool = False
    """Whether nothing is added any more: a request for other content fails immediately."""
    _changed: threading.Condition = attrs.field(factory=threading.Condition)

    def add_blob(self, digest: Digest, blob: StoredBlob) -> None:
        with self._changed:
            self.blobs[digest] = blob
            self._changed.notify_all()

    def remove_blob(self, digest: Digest) -> None:
        """Remove an incomplete blob; its readers fail."""
        with self._changed:
            blob = self.blobs.pop(digest)
        blob.close()

    def add_document(self, digest: Digest, media_type: str, raw: bytes) -> None:
        with self._changed:
            self.documents[digest] = (media_type, raw)
            self._changed.notify_all()

    def add_name(self, node: str, name: str, digest: Digest) -> None:
        with self._changed:
            self.names[node, name] = digest
            self._changed.notify_all()

    def complete(self) -> None:
        with self._changed:
            self.is_complete = True
            self._changed.notify_all()

    def blob(self, digest: Digest) -> StoredBlob | None:
        """Wait for a blob; return None if it does not come."""
        with self._changed:
            self._changed.wait_for(lambda: digest in self.blobs or self.is_complete)
            return self.blobs.get(digest)

    @contextmanager
    def reading(self, digest: Digest) -> Iterator[StoredBlob | None]:
        yield self.blob(digest)

    def document(self, node: str, name: str) -> tuple[Digest, str, bytes] | None:
        """Wait for a manifest by digest or full name; return digest, media type and bytes."""

        def digest() -> Digest | None:
            return self.names.get((node, name)) or Digest.try_parse(name.rpartition("@")[2])

        with self._changed:
            self._changed.wait_for(lambda: digest() in self.documents or self.is_complete)
            known = digest()
            return (known, *self.documents[known]) if known in self.documents else None

    def tags(self, node: str, repository: str) -> list[str]:
        """Return the tags of a repository that were added so far."""
        with self._changed:
            names = [name.rpartition(":") for owner, name in self.names if owner == node]
        return sorted(tag for name, _, tag in names if name == repository)

    def close(self) -> None:
        self.complete()
        for blob in self.blobs.values():
            blob.close()
