"""Images into a registry: the engine pushes to our receiver, which passes on what is missing.

An engine pushes over plain HTTP to this machine's loopback only, and a registry is rarely there.
Through the receiver every engine reaches every registry that this process does, no engine's
settings are touched, and it asks for each blob whether the registry has it.
"""

from __future__ import annotations

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
from imgload.engines.cache import Layers, Memory
from imgload.oci.digest import Digest
from imgload.oci.document import Descriptor, Manifest, parse_json
from imgload.oci.reference import Reference
from imgload.registry.push_session import CutOff
from imgload.sources.base import Image, Pusher, Source
from imgload.sources.manifests import documents_for
from imgload.tools.remote_registry.client import RegistryClient
from imgload.tools.remote_registry.forward import Passing
from imgload.tools.remote_registry.url import repositories

_ONLY_ENGINES = "only an engine can push: load the archive into one first, as with docker load -i"


@attrs.frozen
class PushedImage:
    """What came of pushing one image.

    Args:
        reference: the image, by its full name.
        names: what it is called in the registry; empty when it did not get there.
        digest: of its manifest or index, as the registry returns it.
        bytes_sent: of the blobs that the registry lacked.
        seconds: until the registry was read back.
        error: why it failed, or None.

    """

    reference: str
    names: tuple[str, ...] = ()
    digest: Digest | None = None
    bytes_sent: int = 0
    seconds: float = 0.0
    error: ImgloadError | None = None

    @property
    def ok(self) -> bool:
        """Whether the registry was read back and has it."""
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
    """Push one image, and read back that the registry has it; no error is raised."""
    start = time.monotonic()
    try:
        return _push(image, client, start)
    except ImgloadError as error:
        return PushedImage(image.name, seconds=time.monotonic() - start, error=error)


def _push(image: Image, client: RegistryClient, start: float) -> PushedImage:
    source = image.origin
    reference = Reference.parse(image.name)
    tag = reference.tag
    if tag is None or reference.digest:
        raise UsageError(f"{image.name} has no tag to push", hint="name it by its tag, or --as")
    places = repositories(reference.off_localhost())
    memory = Memory.load()
    intake = Passing(client, places[0], _known(source, memory))
    _drive(source, image, intake)
    pushed = documents_for(intake.manifests, image)
    if not pushed:
        message = f"{source.describe} has not pushed the manifest of {image.name}"
        raise RegistryError(message, hint="was it built again meanwhile? push again")
    intake.manifests = intake.suited(pushed)
    *children, (top, raw) = intake.manifests.items()
    for place in places:
        for blob in intake.blobs() if place != places[0] else ():
            client.mount(place, blob.digest, places[0])
        for digest, child in children:
            client.put_manifest(place, str(digest), child)
        client.put_manifest(place, tag, raw)
        _read_back(client, place, tag, raw, intake.blobs())
    memory.learn(source.address, _learnt(raw, image))
    names = tuple(f"{client.url.host}/{place}:{tag}" for place in places)
    return PushedImage(image.name, names, top, intake.sent, time.monotonic() - start)


def _known(source: Source, memory: Memory) -> dict[Digest, Digest]:
    """Return the blobs that the engine has compressed layers to, by diff ID."""
    pairs = ((diff_id, blob) for blob, (diff_id, _) in memory.layers(source.address).items())
    return {diff_id: blob for diff_id, blob in pairs if diff_id != blob}


def _learnt(raw: bytes, image: Image) -> Layers:
    """Return which blobs the layers are, where the manifest is of one image."""
    layers = Manifest.parse(raw).layers if "config" in parse_json(raw, "it") else ()
    if len(layers) != len(image.diff_ids):
        return {}
    pairs = zip(layers, image.diff_ids, strict=True)
    return {layer.digest: (diff_id, layer.size) for layer, diff_id in pairs}


def _drive(source: Source, image: Image, intake: Passing) -> None:
    """Have the engine push everything to the intake."""
    if not isinstance(source, Pusher):
        raise UsageError(f"{source.describe} cannot push", hint=_ONLY_ENGINES)
    if not source.local:
        raise _explained(CutOff(f"{source.describe} is on another machine"), source)
    if source.push_style(image) is None:
        raise UsageError(
            f"{source.describe} cannot push an image without a name",
            hint=f"give it one first: {source.name} tag {image.target.short} app:dev",
        )
    try:
        source.push(image, intake)
    except EngineError as error:
        raise intake.error or _explained(error, source) from error
    finally:
        source.release()


def _explained(error: EngineError, source: Pusher) -> EngineError:
    if not isinstance(error, CutOff):
        return error
    why = "does it run in a VM?" if source.local else "it is on another machine"
    return EngineFailed(
        f"{source.describe} does not reach this process ({why})",
        hint=f"have it push by itself: {source.name} push REGISTRY/NAME",
    )


def _read_back(
    client: RegistryClient, place: str, tag: str, raw: bytes, blobs: Sequence[Descriptor]
) -> None:
    """See that the registry has the very manifest, and all that it lists."""
    answer = client.manifest(place, tag)
    if answer.body != raw or answer.digest not in {"", str(Digest.of(raw))}:
        raise DigestMismatch(
            f"{client.url} returns another manifest for {place}:{tag} than it was given",
            hint="did somebody else push that tag just now? push again",
        )
    for blob in blobs:
        if client.blob_size(place, blob.digest) != blob.size:
            message = f"{client.url} lacks {blob.digest} of {place}:{tag}"
            raise RegistryError(message, hint="does it clean up while you push? push again")
