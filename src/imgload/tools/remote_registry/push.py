"""Push images to a registry: the engine pushes to imgload, which forwards the missing blobs.

An engine pushes over plain HTTP only to its machine's loopback, where a registry rarely listens.
Through imgload every engine reaches every registry that this process reaches, and asks it for each
blob, without any change of the engine's settings.
"""

from __future__ import annotations

import shlex
import time
from collections.abc import Sequence
from typing import Any

import attrs

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
from imgload.oci.digest import Digest
from imgload.oci.document import Descriptor, Manifest, parse_json
from imgload.oci.reference import Reference
from imgload.registry.server import EngineCannotReachUs
from imgload.sources.base import Image, Pusher, Source
from imgload.sources.push import documents_for
from imgload.tools.remote_registry.client import RegistryClient
from imgload.tools.remote_registry.forward import ForwardingSink
from imgload.tools.remote_registry.url import repositories


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
        return {
            "reference": self.reference,
            "names": list(self.names),
            "digest": str(self.digest) if self.digest else None,
            "ok": self.ok,
            "bytes_sent": self.bytes_sent,
            "seconds": round(self.seconds, 3),
            "error": error_json(self.error) if self.error else None,
        }


def push_image(image: Image, client: RegistryClient) -> PushedImage:
    """Push one image and check that the registry has it; the result carries any error."""
    start = time.monotonic()
    try:
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
    sink.manifests = sink.rewrite(documents)
    *children, (digest, raw) = sink.manifests.items()
    for repository in (first, *others):
        for blob in sink.blobs() if repository != first else ():
            client.mount(repository, blob.digest, first)
        for child_digest, child in children:
            client.put_manifest(repository, str(child_digest), child)
        client.put_manifest(repository, tag, raw)
        _verify(client, repository, tag, raw, sink.blobs())
    manifest = Manifest.parse(raw) if "config" in parse_json(raw, "a manifest") else None
    if manifest and len(manifest.layers) == len(image.diff_ids):
        pairs = zip(manifest.layers, image.diff_ids, strict=True)
        memory.record_layers(source.address, {blob.digest: (d, blob.size) for blob, d in pairs})
    names = tuple(f"{client.url.host}/{repository}:{tag}" for repository in (first, *others))
    return PushedImage(image.name, names, digest, sink.sent)


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


def _verify(
    client: RegistryClient, repository: str, tag: str, raw: bytes, blobs: Sequence[Descriptor]
) -> None:
    response = client.manifest(repository, tag)
    reported = response.headers.get("docker-content-digest", "")
    if response.body != raw or reported not in {"", str(Digest.of(raw))}:
        raise DigestMismatch(
            f"{client.url} returns another manifest for {repository}:{tag} than imgload pushed",
            hint="if somebody else pushed that tag meanwhile, push again",
        )
    for blob in blobs:
        if client.blob_size(repository, blob.digest) != blob.size:
            message = f"{client.url} lacks {blob.digest} of {repository}:{tag}"
            raise RegistryError(message, hint="if it collected garbage meanwhile, push again")
