"""The read side of the OCI distribution API: nodes pull the content of one load from it.

It listens on one address that the nodes reach, and answers only below paths that cannot be guessed,
one for each node (OCI distribution spec, "Pull").
"""

from __future__ import annotations

import contextlib
import json
import re
import socket
import struct
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager
from http import HTTPStatus
from typing import Protocol
from urllib.parse import parse_qsl, urlencode, urlsplit

from imgload.core.errors import ReferenceInvalid
from imgload.oci.digest import Digest
from imgload.oci.reference import Reference
from imgload.registry.blob_store import StoredBlob
from imgload.registry.http_server import BoundedHandler, BoundedServer

_IDLE_SECONDS = 120
_COUNT_SECONDS = 0.5
Count = Callable[[str, Digest, int], None]
"""Called with a node, a digest, and the number of bytes sent, from several threads."""
_PATH = re.compile(
    r"/v2/([0-9a-f]{32})/(?:(.+)/(?:(manifests|blobs|referrers)/([^/]+)|tags/list))?"
)
_RANGE = re.compile(r"bytes=([0-9]{0,15})-([0-9]{0,15})", re.ASCII)
_PORT = re.compile(r"^(localhost|[^/]*\.[^/]*?)__([0-9]{1,5})/", re.ASCII)
_NUMBER = re.compile(r"[0-9]{1,9}", re.ASCII)


class Store(Protocol):
    """The content to serve; its methods may wait for it, and are called by several threads."""

    def document(self, node: str, name: str) -> tuple[Digest, str, bytes] | None:
        """Return a manifest by full name or digest: its digest, media type and bytes."""

    def reading(self, digest: Digest) -> AbstractContextManager[StoredBlob | None]:
        """Yield a blob; None if there is no such blob."""

    def tags(self, node: str, repository: str) -> list[str]:
        """Return the known tags of a repository by its full name, in order."""


class ReadServer(BoundedServer):
    """A server on one address that serves a store to nodes, which their secrets identify."""

    def __init__(
        self,
        address: str,
        store: Store,
        nodes: Mapping[str, str],
        count: Count,
        name_of: Callable[[str], str] = str,
    ) -> None:
        self.store, self.nodes, self.count, self.name_of = store, nodes, count, name_of
        self._active = 0
        self._changed = threading.Condition()
        super().__init__(address, _Handler)

    @contextlib.contextmanager
    def active_request(self) -> Iterator[None]:
        self._change(1)
        try:
            yield
        finally:
            self._change(-1)

    def _change(self, step: int) -> None:
        with self._changed:
            self._active += step
            self._changed.notify_all()

    def wait_until_idle(self, seconds: float) -> None:
        """Wait until all requests are counted; a client has the last byte before that."""
        with self._changed:
            self._changed.wait_for(lambda: not self._active, seconds)


@contextlib.contextmanager
def serving(
    address: str,
    store: Store,
    nodes: Mapping[str, str],
    count: Count,
    name_of: Callable[[str], str] = str,
) -> Iterator[int]:
    """Serve a store on an address to nodes, which are given by their secrets.

    `name_of` returns a node's name for the log. Yields the port; OSError if the address is not one
    of this machine.
    """
    with ReadServer(address, store, nodes, count, name_of) as server:
        server.start()
        try:
            yield server.server_address[1]
            server.wait_until_idle(_COUNT_SECONDS)
        finally:
            server.shutdown()


class _Handler(BoundedHandler):
    timeout = _IDLE_SECONDS
    server: ReadServer

    def do_HEAD(self) -> None:
        self._serve()

    def do_GET(self) -> None:
        with self.server.active_request():
            self._serve()

    def _serve(self) -> None:
        path = urlsplit(self.path)
        if path.path == "/v2/":
            self._answer(HTTPStatus.OK)  # most clients ask this first, without a repository
            return
        match = _PATH.fullmatch(path.path)
        node = self.server.nodes.get(match[1]) if match else None
        if match is None or node is None or not self.server.admit(self.connection):
            self._answer_error(HTTPStatus.NOT_FOUND, "NAME_UNKNOWN")
            return
        self.peer, query = self.server.name_of(node), dict(parse_qsl(path.query))
        repository = _repository(match[2], query.get("ns", "")) if match[2] else ""
        if match[2] is None:
            self._answer(HTTPStatus.OK)
        elif match[3] is None:
            self._tags(self.server.store.tags(node, repository), query)
        elif match[3] == "referrers":  # a client then uses the referrers tag schema
            self._answer_error(HTTPStatus.NOT_FOUND, "UNSUPPORTED")
        elif match[3] == "blobs":
            self._blob(node, Digest.try_parse(match[4]))
        else:
            separator = "@" if ":" in match[4] else ":"
            self._manifest(node, f"{repository}{separator}{match[4]}")

    def _manifest(self, node: str, name: str) -> None:
        document = self.server.store.document(node, name)
        if document is None:
            self._answer_error(HTTPStatus.NOT_FOUND, "MANIFEST_UNKNOWN")
            return
        digest, media_type, raw = document
        headers = {"Content-Type": media_type, "Docker-Content-Digest": str(digest)}
        self._answer_document(raw, headers)
        if self.command == "GET":
            self.server.count(node, digest, len(raw))

    def _tags(self, tags: list[str], query: Mapping[str, str]) -> None:
        """List tags, `n` of those after `last` (OCI distribution spec, "Listing Tags")."""
        if not tags:
            self._answer_error(HTTPStatus.NOT_FOUND, "NAME_UNKNOWN")
            return
        path = urlsplit(self.path).path
        name = path.removeprefix("/v2/").removesuffix("/tags/list")
        count = int(n) if _NUMBER.fullmatch(n := query.get("n", "")) else len(tags)
        later = [tag for tag in tags if tag > query.get("last", "")]
        headers = {"Content-Type": "application/json"}
        if 0 < count < len(later):
            following = urlencode({**query, "last": later[count - 1]})
            headers["Link"] = f'<{path}?{following}>; rel="next"'
        self._answer_document(json.dumps({"name": name, "tags": later[:count]}).encode(), headers)

    def _blob(self, node: str, digest: Digest | None) -> None:
        reading = self.server.store.reading(digest) if digest else contextlib.nullcontext()
        with reading as blob:
            if blob and digest:
                self._send_blob(node, digest, blob)
            else:
                self._answer_error(HTTPStatus.NOT_FOUND, "BLOB_UNKNOWN")

    def _send_blob(self, node: str, digest: Digest, blob: StoredBlob) -> None:
        headers = {"Content-Type": "application/octet-stream", "Docker-Content-Digest": str(digest)}
        size = blob.wait_for_size()
        span = self._span(size)
        if span is None:
            self._answer(HTTPStatus.OK, {**headers, "Accept-Ranges": "bytes"}, size)
            span = range(size)
        elif not span:
            headers = {"Content-Range": f"bytes */{size}"}
            status = HTTPStatus.REQUESTED_RANGE_NOT_SATISFIABLE
            self._answer_error(status, "SIZE_INVALID", headers)
        else:
            headers["Content-Range"] = f"bytes {span[0]}-{span[-1]}/{size}"
            self._answer(HTTPStatus.PARTIAL_CONTENT, headers, len(span))
        if self.command == "GET":
            self.connection.settimeout(None)
            limit = struct.pack("@ll", _IDLE_SECONDS, 0)
            self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_SNDTIMEO, limit)
            for count in blob.send_to(self.connection.fileno(), span):
                self.server.count(node, digest, count)
            self.connection.settimeout(_IDLE_SECONDS)

    def _span(self, size: int) -> range | None:
        """Return the requested bytes, none of them if there are no such bytes, or None for all.

        A range that is malformed, conditional, or one of several is ignored (RFC 9110, section 14).
        """
        match = _RANGE.fullmatch(self.headers.get("Range", ""))
        if not match or self.command != "GET" or "If-Range" in self.headers:
            return None
        first, last = match.groups()
        if not first:
            return range(max(size - int(last), 0), size) if last else None
        if last and int(last) < int(first):
            return None
        return range(int(first), min(int(last) + 1 if last else size, size))


def _repository(path: str, registry: str) -> str:
    """Return the full name of a repository; containerd sends its registry as a parameter.

    Other clients have it in the path, or omit it for Docker Hub. In the path, ``__`` precedes its
    port: a client may refuse a colon there.
    """
    if registry:
        return f"{registry}/{path}"
    path = _PORT.sub(r"\1:\2/", path)
    try:
        return str(Reference.parse(path).untagged)
    except ReferenceInvalid:
        return path
