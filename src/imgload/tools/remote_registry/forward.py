"""A sink for pushes that forwards blobs to a registry."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager

import attrs

from imgload.core.errors import ImgloadError
from imgload.oci.digest import Digest
from imgload.oci.document import DOCKER_MANIFEST, Descriptor, Manifest, parse_json
from imgload.registry.sink import keep_manifest
from imgload.tools.remote_registry.client import BlobUpload, RegistryClient

_MAX_MANIFESTS = 100
_GZIP = "application/vnd.oci.image.layer.v1.tar+gzip"
_DOCKER_GZIP = "application/vnd.docker.image.rootfs.diff.tar.gzip"


@attrs.define
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
    sent: int = 0
    error: ImgloadError | None = None
    _compressed: dict[Digest, tuple[Digest, int]] = attrs.field(factory=dict)
    _lock: threading.Lock = attrs.field(factory=threading.Lock)

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
            return ForwardedUpload(self, self.client.upload(self.repository))

    def manifest(self, digest: Digest, raw: bytes) -> None:
        with self.record_error(), self._lock:
            keep_manifest(self.manifests, digest, raw, _MAX_MANIFESTS)

    def rewrite(self, manifests: Mapping[Digest, bytes]) -> dict[Digest, bytes]:
        """Return manifests that list layers in the form in which the registry has them."""
        return {Digest.of(raw): raw for raw in map(self._rewrite, manifests.values())}

    def _rewrite(self, raw: bytes) -> bytes:
        document = parse_json(raw, "a manifest")
        layers = Manifest.parse(raw).layers if self._compressed and "config" in document else ()
        if self._compressed.keys().isdisjoint(layer.digest for layer in layers):
            return raw
        kind = _DOCKER_GZIP if document.get("mediaType") == DOCKER_MANIFEST else _GZIP
        known = {d: Descriptor(kind, blob, size) for d, (blob, size) in self._compressed.items()}
        document["layers"] = [known.get(layer.digest, layer).to_json() for layer in layers]
        return json.dumps(document, separators=(",", ":")).encode()

    def count(self, size: int) -> None:
        """Add a forwarded blob's bytes to `sent`."""
        with self._lock:
            self.sent += size

    @contextmanager
    def record_error(self) -> Iterator[None]:
        try:
            yield
        except ImgloadError as error:
            self.error = self.error or error
            raise

    def blobs(self) -> list[Descriptor]:
        """Return the blobs that the manifests list, without duplicates."""
        raws = [raw for raw in self.manifests.values() if "config" in parse_json(raw, "a manifest")]
        listed = (blob for m in map(Manifest.parse, raws) for blob in (m.config, *m.layers))
        return list({blob.digest: blob for blob in listed}.values())


@attrs.frozen
class ForwardedUpload:
    """The upload of one blob, forwarded to the registry."""

    _sink: ForwardingSink
    _upload: BlobUpload

    def write(self, chunk: bytes) -> None:
        with self._sink.record_error():
            self._upload.write(chunk)

    def finish(self, digest: Digest) -> None:
        with self._sink.record_error():
            self._upload.finish(digest)
        self._sink.count(self._upload.size)

    def abandon(self) -> None:
        self._upload.abandon()
