"""The two ways of a pushed blob: kept until the push has ended, or straight into the nodes."""

from __future__ import annotations

import hashlib
import secrets
from typing import TYPE_CHECKING

import attrs

from imgload.errors import DigestMismatch
from imgload.oci.tar import header, padding

if TYPE_CHECKING:
    from collections.abc import Callable

    from imgload.engines.base import Chunk
    from imgload.oci.digest import Digest
    from imgload.transports.delta import Delta
    from imgload.transports.spool import Spool


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
