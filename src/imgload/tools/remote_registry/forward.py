"""What a push to our receiver brings, passed on to a registry."""

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
from imgload.tools.remote_registry.client import RegistryClient, Uploading

_MOST_MANIFESTS = 100
_GZIP = "application/vnd.oci.image.layer.v1.tar+gzip"
_DOCKER_GZIP = "application/vnd.docker.image.rootfs.diff.tar.gzip"


@attrs.define
class Passing:
    """An intake that passes blobs on to a repository, and keeps the manifests for the end.

    Args:
        client: the registry.
        repository: where to.
        manifests: what was pushed.
        known: blobs that layers were compressed to before, by diff ID. Podman asks for a layer by
            its diff ID; that it compressed it before it knows of the same registry only, and we
            are another each time.
        sent: bytes of the blobs that the registry lacked.
        error: the first thing that went wrong; an engine does not tell what we answered.

    """

    client: RegistryClient
    repository: str
    known: Mapping[Digest, Digest] = attrs.field(factory=dict)
    manifests: dict[Digest, bytes] = attrs.field(factory=dict)
    sent: int = 0
    error: ImgloadError | None = None
    _instead: dict[Digest, tuple[Digest, int]] = attrs.field(factory=dict)
    _lock: threading.Lock = attrs.field(factory=threading.Lock)

    def size_of(self, digest: Digest) -> int | None:
        """Ask the registry."""
        with self.noting():
            size = self.client.blob_size(self.repository, digest)
            return self._compressed(digest) if size is None else size

    def _compressed(self, diff_id: Digest) -> int | None:
        """Have a layer in the form in which it was pushed before, if the registry does."""
        blob = self.known.get(diff_id)
        size = self.client.blob_size(self.repository, blob) if blob else None
        if blob is None or size is None or not self.client.is_gzip(self.repository, blob):
            return None
        self._instead[diff_id] = (blob, size)
        return size

    def upload(self, _digest: Digest | None, _size: int | None) -> Passed:
        """Open the way for a blob."""
        with self.noting():
            return Passed(self, self.client.upload(self.repository))

    def manifest(self, digest: Digest, raw: bytes) -> None:
        """Keep it."""
        with self.noting(), self._lock:
            keep_manifest(self.manifests, digest, raw, _MOST_MANIFESTS)

    def suited(self, pushed: Mapping[Digest, bytes]) -> dict[Digest, bytes]:
        """Return manifests that name layers in the form in which the registry has them."""
        changed = map(self._suited, pushed.values())
        return {Digest.of(raw): raw for raw in changed}

    def _suited(self, raw: bytes) -> bytes:
        """Return a manifest that names layers in the form in which the registry has them."""
        value = parse_json(raw, "a manifest")
        layers = Manifest.parse(raw).layers if self._instead and "config" in value else ()
        if self._instead.keys().isdisjoint(layer.digest for layer in layers):
            return raw
        kind = _DOCKER_GZIP if value.get("mediaType") == DOCKER_MANIFEST else _GZIP
        value["layers"] = [self._replaced(layer, kind).to_json() for layer in layers]
        return json.dumps(value, separators=(",", ":")).encode()

    def _replaced(self, layer: Descriptor, kind: str) -> Descriptor:
        blob, size = self._instead.get(layer.digest, (None, 0))
        return Descriptor(kind, blob, size) if blob else layer

    def passed(self, size: int) -> None:
        """Count a blob."""
        with self._lock:
            self.sent += size

    @contextmanager
    def noting(self) -> Iterator[None]:
        """Note the first error."""
        try:
            yield
        except ImgloadError as error:
            self.error = self.error or error
            raise

    def blobs(self) -> list[Descriptor]:
        """Return what the manifests list, each blob once."""
        listed = [raw for raw in self.manifests.values() if "config" in parse_json(raw, "it")]
        found = (b for raw in listed for m in [Manifest.parse(raw)] for b in (m.config, *m.layers))
        return list({blob.digest: blob for blob in found}.values())


@attrs.frozen
class Passed:
    """A blob on its way through; what the receiver calls an upload."""

    _intake: Passing
    _upload: Uploading

    def write(self, chunk: bytes) -> None:
        """Pass a piece on."""
        with self._intake.noting():
            self._upload.write(chunk)

    def finish(self, digest: Digest) -> None:
        """Have the registry check and keep it."""
        with self._intake.noting():
            self._upload.finish(digest)
        self._intake.passed(self._upload.size)

    def abandon(self) -> None:
        """Let go of it."""
        self._upload.abandon()
