"""Push images to a registry: the engine pushes to imgload, which forwards the missing blobs.

An engine pushes over plain HTTP only to its machine's loopback, where a registry rarely listens.
Through imgload it reaches every registry that this process reaches, with unchanged settings.
"""

from __future__ import annotations

import http.client
import json
import re
import shlex
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import closing, contextmanager
from email.message import Message
from http import HTTPStatus
from typing import Any
from urllib.parse import urlencode, urljoin, urlsplit

import attrs

from imgload.core import trace
from imgload.core.errors import (
    DigestMismatch,
    EngineError,
    EngineFailed,
    ImgloadError,
    RegistryError,
    UsageError,
    error_json,
)
from imgload.engines.cache import EngineCache
from imgload.oci import document as oci
from imgload.oci.digest import Digest
from imgload.oci.document import MAX_DOCUMENT, Descriptor, Manifest, load_json, parse_json
from imgload.oci.reference import Reference
from imgload.registry.server import EngineCannotReachUs
from imgload.registry.sink import keep_manifest
from imgload.sources.base import Image, Pusher, Source
from imgload.sources.push import documents_for
from imgload.tools.remote_registry.configure import RegistryUrl

Response = tuple[int, Message, bytes]
"""The status, the headers and the whole body."""
_TIMEOUT_SECONDS = 60.0
_MAX_MANIFESTS = 100
_MEDIA_TYPES = (oci.MANIFEST, oci.INDEX, oci.DOCKER_MANIFEST, oci.DOCKER_INDEX)
_GZIP = "application/vnd.oci.image.layer.v1.tar+gzip"
_DOCKER_GZIP = "application/vnd.docker.image.rootfs.diff.tar.gzip"
_STREAM = {"Content-Type": "application/octet-stream", "Transfer-Encoding": "chunked"}


@attrs.frozen
class PushedImage:
    """The result of pushing one image.

    Args:
        reference: the image's full name.
        names: its names in the registry; empty after a failure.
        digest: the digest of its manifest or index, as the registry returns it.
        bytes_sent: bytes of the blobs that the registry lacked.
        seconds: duration, including the check of the registry's content.
        error: the reason for a failure, or None.

    """

    reference: str
    names: tuple[str, ...] = ()
    digest: Digest | None = None
    bytes_sent: int = 0
    seconds: float = 0.0
    error: ImgloadError | None = None

    @property
    def ok(self) -> bool:
        """Whether the registry returned the image's manifest and has its blobs."""
        return self.error is None and self.digest is not None

    def to_json(self) -> dict[str, Any]:
        """Return the image's part of the document."""
        digest = str(self.digest) if self.digest else None
        error = error_json(self.error) if self.error else None
        others = {"ok": self.ok, "seconds": round(self.seconds, 3)}
        return {**attrs.asdict(self), "digest": digest, "error": error, **others}


@attrs.frozen
class RegistryClient:
    """A registry without authentication (OCI distribution spec); methods raise RegistryError."""

    url: RegistryUrl

    def check(self) -> None:
        """Check that a registry answers (end-1)."""
        self.request("GET", "/v2/", "asking whether it is a registry", HTTPStatus.OK)

    def blob_size(self, repository: str, digest: Digest) -> int | None:
        """Return a blob's size in bytes, or None if the repository lacks it (end-2)."""
        target, action = f"/v2/{repository}/blobs/{digest}", f"asking for {digest}"
        statuses = (HTTPStatus.OK, HTTPStatus.NOT_FOUND)
        status, headers, _ = self.request("HEAD", target, action, *statuses)
        if status == HTTPStatus.NOT_FOUND:
            return None
        length = headers.get("Content-Length", "")
        return int(length) if re.fullmatch(r"[0-9]{1,15}", length) else 0

    def is_gzip(self, repository: str, digest: Digest) -> bool:
        """Whether a blob starts like gzip; False if the registry redirects to another server."""
        target = f"/v2/{repository}/blobs/{digest}"
        with self.map_errors("GET", target), closing(self.connection()) as connection:
            connection.request("GET", target, headers={"Range": "bytes=0-1"})
            response = connection.getresponse()
            trace.log(f"{self.url} GET {target}: {response.status}")
            redirected = response.status >= HTTPStatus.MULTIPLE_CHOICES
            return not redirected and response.read(2) == b"\x1f\x8b"

    def mount(self, repository: str, digest: Digest, origin: str) -> None:
        """Mount a blob from another repository (end-11)."""
        target = f"/v2/{repository}/blobs/uploads/?{urlencode({'mount': digest, 'from': origin})}"
        self.request("POST", target, f"mounting {digest} from {origin}", HTTPStatus.CREATED)

    def put_manifest(self, repository: str, name: str, raw: bytes) -> None:
        """Put a manifest or index under a tag or its digest (end-7)."""
        target, headers = f"/v2/{repository}/manifests/{name}", {"Content-Type": media_type(raw)}
        action = f"putting the manifest {name}"
        self.request("PUT", target, action, HTTPStatus.CREATED, body=raw, headers=headers)

    def manifest(self, repository: str, name: str) -> Response:
        """Return a manifest or index (end-3)."""
        target, headers = f"/v2/{repository}/manifests/{name}", {"Accept": ", ".join(_MEDIA_TYPES)}
        action = f"reading the manifest {name}"
        return self.request("GET", target, action, HTTPStatus.OK, headers=headers)

    def start_upload(self, repository: str) -> str:
        """Start the upload of a blob (end-4), and return the path to send it to."""
        target = f"/v2/{repository}/blobs/uploads/"
        _, headers, _ = self.request("POST", target, "beginning an upload", HTTPStatus.ACCEPTED)
        return self.location(headers)

    def request(self, method: str, target: str, action: str, *ok: int, **options: Any) -> Response:
        """Send a request with http.client's options, and expect one of the statuses `ok`."""
        line, began = f"{method} {target}", time.monotonic()
        with self.map_errors(method, target), closing(self.connection()) as connection:
            connection.request(method, target, **options)
            return self.receive(connection, line, action, *ok, since=began)

    def connection(self) -> http.client.HTTPConnection:
        plain = self.url.scheme == "http"
        kind = http.client.HTTPConnection if plain else http.client.HTTPSConnection
        return kind(self.url.host, timeout=_TIMEOUT_SECONDS)

    def receive(
        self,
        connection: http.client.HTTPConnection,
        line: str,
        action: str,
        *ok: int,
        since: float | None = None,
    ) -> Response:
        """Read a response, no longer than a manifest; another status raises RegistryError.

        The log has the request's `line`, and its time `since` it began.
        """
        response = connection.getresponse()
        trace.log(f"{self.url} {line}: {response.status}", since)
        body = response.read(MAX_DOCUMENT + 1)
        if len(body) > MAX_DOCUMENT:
            raise http.client.HTTPException(f"the response has more than {MAX_DOCUMENT} bytes")
        if response.status in ok:
            return response.status, response.headers, body
        message = f"{self.url}: {action}: status {response.status} {_error_text(body)}"
        hint = "see the registry's log"
        if response.status == HTTPStatus.UNAUTHORIZED:
            hint = "imgload does not log in: use docker push"
        raise RegistryError(message.strip(), hint=hint)

    def location(self, headers: Message) -> str:
        """Return the target in a response's Location; another host is an error."""
        header = headers.get("Location", "")
        location = urlsplit(urljoin(f"{self.url}/v2/", header))
        if location.netloc != self.url.host or not header:
            raise RegistryError(
                f"{self.url} redirects the upload to {location.netloc or 'no address'!r}",
                hint="push to the registry itself, not to a proxy in front of it",
            )
        return f"{location.path}?{location.query}" if location.query else location.path

    @contextmanager
    def map_errors(self, method: str, target: str) -> Iterator[None]:
        """Raise RegistryError for every error of a connection."""
        try:
            yield
        except (OSError, http.client.HTTPException) as error:
            reason = getattr(error, "strerror", None) or str(error) or type(error).__name__
            trace.log(f"{self.url} {method} {target}: {reason}")
            raise RegistryError(
                f"{self.url} does not answer ({method} {target.partition('?')[0]}): {reason}",
                hint="check that the registry runs and that this machine reaches it:"
                f" curl {shlex.quote(f'{self.url}/v2/')}",
            ) from error


def media_type(raw: bytes) -> str:
    """Return a manifest's media type; an OCI document may omit it."""
    document = parse_json(raw, "a manifest")
    default = oci.INDEX if "manifests" in document else oci.MANIFEST
    return next((kind for kind in _MEDIA_TYPES if kind == document.get("mediaType")), default)


def _error_text(body: bytes) -> str:
    """Return a registry's error message in one line (OCI distribution spec, "Error Codes")."""
    try:
        errors: Any = load_json(body)["errors"]
        text = "; ".join(f"{e['code']}: {e.get('message') or ''}".rstrip(": ") for e in errors)
    except (ValueError, KeyError, TypeError, AttributeError):
        text = body[:300].decode(errors="replace")
    return " ".join(text.split())


@attrs.define(eq=False, repr=False)
class ForwardingSink:
    """Forwards blobs to a repository, and collects manifests, sent bytes and the first error.

    `known` has the blobs to which the engine compressed layers before, by diff ID: Podman asks for
    a layer by its diff ID, since it remembers its blob for one registry address only, and ours
    changes with each push. An engine does not report the error in our response.
    """

    client: RegistryClient
    repository: str
    known: Mapping[Digest, Digest] = attrs.field(factory=dict)
    manifests: dict[Digest, bytes] = attrs.field(factory=dict)
    sent: list[int] = attrs.field(factory=list)
    error: ImgloadError | None = None
    _compressed: dict[Digest, tuple[Digest, int]] = attrs.field(factory=dict)

    def stat_blob(self, digest: Digest) -> int | None:
        """Return a blob's size in the registry, or that of its known compressed form."""
        with self.record_error():
            size = self.client.blob_size(self.repository, digest)
            blob = self.known.get(digest)
            if size is not None or blob is None:
                return size
            size = self.client.blob_size(self.repository, blob)
            if size is None or not self.client.is_gzip(self.repository, blob):
                return None
            self._compressed[digest] = (blob, size)
            return size

    def upload(self, _digest: Digest | None, _size: int | None) -> ForwardedUpload:
        with self.record_error():
            return ForwardedUpload(self, self.client.start_upload(self.repository))

    def manifest(self, digest: Digest, raw: bytes) -> None:
        with self.record_error():
            keep_manifest(self.manifests, digest, raw, _MAX_MANIFESTS)

    def rewrite(self, raw: bytes) -> bytes:
        """Return a manifest that lists layers in the form in which the registry has them."""
        manifest = _image_manifest(raw)
        layers = manifest.layers if manifest else ()
        if self._compressed.keys().isdisjoint(layer.digest for layer in layers):
            return raw
        document = parse_json(raw, "a manifest")
        kind = _DOCKER_GZIP if document.get("mediaType") == oci.DOCKER_MANIFEST else _GZIP
        known = {d: Descriptor(kind, blob, size) for d, (blob, size) in self._compressed.items()}
        document["layers"] = [known.get(layer.digest, layer).to_json() for layer in layers]
        return json.dumps(document, separators=(",", ":")).encode()

    @contextmanager
    def record_error(self) -> Iterator[None]:
        try:
            yield
        except ImgloadError as error:
            self.error = self.error or error
            raise


@attrs.define(eq=False, repr=False)
class ForwardedUpload:
    """The upload of one blob to the registry (end-5, end-6)."""

    _sink: ForwardingSink
    _location: str
    _connection: http.client.HTTPConnection | None = None
    _size: int = 0

    def write(self, chunk: bytes) -> None:
        """Send a chunk; the first one opens a request with a body of unknown length."""
        if not chunk:
            return
        client = self._sink.client
        with self._sink.record_error(), client.map_errors("PATCH", self._location):
            if self._connection is None:
                self._connection = client.connection()
                self._connection.request("PATCH", self._location, headers=_STREAM)
            self._connection.send(b"%x\r\n%b\r\n" % (len(chunk), chunk))
        self._size += len(chunk)

    def finish(self, digest: Digest) -> None:
        """Commit the blob; the registry compares it with its digest."""
        client, action = self._sink.client, f"uploading {digest}"
        with self._sink.record_error():
            if self._connection:
                line = f"PATCH {self._location}"
                with client.map_errors("PATCH", self._location), closing(self._connection) as sent:
                    sent.send(b"0\r\n\r\n")
                    _, headers, _ = client.receive(sent, line, action, HTTPStatus.ACCEPTED)
                self._location = client.location(headers)
            joint = "&" if "?" in self._location else "?"
            target = f"{self._location}{joint}digest={digest}"
            client.request("PUT", target, action, HTTPStatus.CREATED)
        self._sink.sent.append(self._size)

    def abandon(self) -> None:
        """Close the connection; the registry discards the incomplete blob."""
        if self._connection:
            self._connection.close()


def push_image(image: Image, client: RegistryClient) -> PushedImage:
    """Push one image and check that the registry has it; the result carries any error."""
    start = time.monotonic()
    try:
        if image.error:
            raise image.error
        pushed = _push(image, client)
    except ImgloadError as error:
        pushed = PushedImage(image.name, error=error)
    return attrs.evolve(pushed, seconds=time.monotonic() - start)


def _push(image: Image, client: RegistryClient) -> PushedImage:
    source = image.origin
    reference = Reference.parse(image.name)
    tag = reference.tag
    if tag is None or reference.digest:
        raise UsageError(f"{image.name} has no tag to push", hint="name it by its tag, or --tag")
    first, *others = repositories(reference.without_localhost())
    memory = EngineCache.load()
    layers = memory.layers(source.address)
    known = {diff_id: blob for blob, (diff_id, _) in layers.items() if diff_id != blob}
    sink = ForwardingSink(client, first, known)
    _push_to_sink(source, image, sink)
    documents = documents_for(sink.manifests, image)
    if not documents:
        message = f"{source.describe} has not pushed the manifest of {image.name}"
        raise RegistryError(message, hint="if it was rebuilt meanwhile, push again")
    *children, raw = map(sink.rewrite, documents.values())
    manifests = [m for m in map(_image_manifest, (*children, raw)) if m]
    blobs = list({b.digest: b for m in manifests for b in (m.config, *m.layers)}.values())
    for repository in (first, *others):
        for blob in blobs if repository != first else ():
            client.mount(repository, blob.digest, first)
        for child in children:
            client.put_manifest(repository, str(Digest.of(child)), child)
        client.put_manifest(repository, tag, raw)
        _verify(client, repository, tag, raw, blobs)
    manifest = _image_manifest(raw)
    if manifest and not image.stored and len(manifest.layers) == len(image.diff_ids):
        pairs = zip(manifest.layers, image.diff_ids, strict=True)
        memory.record_layers(source.address, {blob.digest: (d, blob.size) for blob, d in pairs})
    names = tuple(f"{client.url.host}/{repository}:{tag}" for repository in (first, *others))
    return PushedImage(image.name, names, Digest.of(raw), sum(sink.sent))


def repositories(name: Reference) -> tuple[str, ...]:
    """Return an image's repositories; clients ask a mirror of Docker Hub for ``library/NAME``."""
    short = name.untagged.familiar.removeprefix(f"{name.registry}/")
    return tuple(dict.fromkeys((short, name.repository)))


def _push_to_sink(source: Source, image: Image, sink: ForwardingSink) -> None:
    if not isinstance(source, Pusher):
        raise UsageError(
            f"{source.describe} cannot push",
            hint="only an engine can push: load the archive into one first, as with docker load -i",
        )
    if not source.local:
        raise _unreachable(source)
    if source.push_style(image) is None:
        raise UsageError(
            f"{source.describe} cannot push an image without a name",
            hint=f"tag it first: {source.name} tag {shlex.quote(image.target.short)} app:dev",
        )
    try:
        source.push(image, sink)
    except EngineError as error:
        cut_off = isinstance(error, EngineCannotReachUs)
        raise sink.error or (_unreachable(source) if cut_off else error) from error
    finally:
        source.release()


def _unreachable(source: Pusher) -> EngineFailed:
    reason = "does it run in a VM?" if source.local else "it is on another machine"
    return EngineFailed(
        f"{source.describe} does not reach this process ({reason})",
        hint=f"have it push by itself: {source.name} push REGISTRY/NAME",
    )


def _image_manifest(raw: bytes) -> Manifest | None:
    """Parse an image's manifest; return None for an index."""
    return Manifest.parse(raw) if "config" in parse_json(raw, "a manifest") else None


def _verify(
    client: RegistryClient, repository: str, tag: str, raw: bytes, blobs: Sequence[Descriptor]
) -> None:
    _, headers, body = client.manifest(repository, tag)
    reported = headers.get("Docker-Content-Digest", "")
    if body != raw or reported not in {"", str(Digest.of(raw))}:
        raise DigestMismatch(
            f"{client.url} returns another manifest for {repository}:{tag} than imgload pushed",
            hint="if somebody else pushed that tag meanwhile, push again",
        )
    for blob in blobs:
        if client.blob_size(repository, blob.digest) != blob.size:
            message = f"{client.url} lacks {blob.digest} of {repository}:{tag}"
            raise RegistryError(message, hint="if it collected garbage meanwhile, push again")
