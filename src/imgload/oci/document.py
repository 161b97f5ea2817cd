"""Manifests, indexes and configs, with the raw bytes of their digests."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

import attrs

from imgload.core.errors import ArchiveInvalid
from imgload.oci.digest import Digest, chain_ids
from imgload.oci.platform import Platform

MANIFEST = "application/vnd.oci.image.manifest.v1+json"
INDEX = "application/vnd.oci.image.index.v1+json"
CONFIG = "application/vnd.oci.image.config.v1+json"
LAYER = "application/vnd.oci.image.layer.v1.tar"
DOCKER_MANIFEST = "application/vnd.docker.distribution.manifest.v2+json"
DOCKER_INDEX = "application/vnd.docker.distribution.manifest.list.v2+json"
ATTESTATION = "vnd.docker.reference.type"
IMAGE_NAME = "io.containerd.image.name"
REF_NAME = "org.opencontainers.image.ref.name"

MAX_DOCUMENT = 8 << 20
"""Bytes; containerd refuses larger manifests and configs as well."""
MAX_BLOB = 1 << 40
"""Bytes that a descriptor may claim."""
MAX_LAYERS = 1000
MAX_MANIFESTS = 1000


def parse_json(raw: bytes, document: str) -> dict[str, Any]:
    """Parse a JSON object; `document` names it in errors.

    Raises:
        ArchiveInvalid: if it is too large, or not a JSON object.

    """
    from imgload.oci.jsontext import load_json  # noqa: PLC0415 - start-up

    if len(raw) > MAX_DOCUMENT:
        raise ArchiveInvalid(f"{document} is {len(raw)} bytes, more than {MAX_DOCUMENT}")
    try:
        value = load_json(raw)
    except ValueError as error:
        raise ArchiveInvalid(f"{document} is not valid JSON: {error}") from error
    if not isinstance(value, dict):
        raise ArchiveInvalid(f"{document} is not a JSON object")
    return value


def _list(value: object, field: str, limit: int) -> list[Any]:
    if value is None:
        return []
    if not isinstance(value, list) or len(value) > limit:
        raise ArchiveInvalid(f"{field} is not a list of at most {limit}")
    return value


def _dump(value: object) -> bytes:
    return json.dumps(value, separators=(",", ":")).encode()


@attrs.frozen
class Descriptor:
    """A pointer to content (OCI image spec, descriptor.md); `size` is in bytes."""

    media_type: str
    digest: Digest
    size: int
    platform: Platform | None = None
    annotations: Mapping[str, str] = attrs.field(factory=dict, hash=False)

    @classmethod
    def parse(cls, value: object) -> Descriptor:
        if not isinstance(value, dict):
            raise ArchiveInvalid("a descriptor is not a JSON object")
        size = value.get("size")
        if not isinstance(size, int) or isinstance(size, bool) or not 0 <= size <= MAX_BLOB:
            raise ArchiveInvalid(f"a descriptor's size is {size!r:.40}")
        annotations = value.get("annotations")
        annotations = annotations.items() if isinstance(annotations, dict) else ()
        return cls(
            media_type=str(value.get("mediaType") or ""),
            digest=Digest.parse(value.get("digest")),
            size=size,
            platform=Platform.from_json(value.get("platform")),
            annotations={str(key): str(text) for key, text in annotations},
        )

    def to_json(self) -> dict[str, Any]:
        platform = {"platform": self.platform.to_json()} if self.platform else {}
        annotations = {"annotations": dict(self.annotations)} if self.annotations else {}
        value = {"mediaType": self.media_type, "digest": str(self.digest), "size": self.size}
        return {**value, **platform, **annotations}

    @property
    def is_foreign(self) -> bool:
        """Whether this is a layer that archives may omit, since its own URLs have it."""
        return "nondistributable" in self.media_type or "foreign" in self.media_type

    @property
    def is_attestation(self) -> bool:
        """Whether this is an attestation of BuildKit, not an image."""
        unknown = self.platform is not None and self.platform.is_unknown
        return unknown or ATTESTATION in self.annotations


@attrs.frozen
class ImageConfig:
    """An image's config; its digest is the image ID (OCI image spec, config.md)."""

    raw: bytes = attrs.field(repr=False)
    digest: Digest
    platform: Platform
    diff_ids: tuple[Digest, ...]

    @classmethod
    def parse(cls, raw: bytes) -> ImageConfig:
        value = parse_json(raw, "the image config")
        rootfs = value.get("rootfs")
        texts = rootfs.get("diff_ids") if isinstance(rootfs, dict) else None
        diff_ids = tuple(map(Digest.parse, _list(texts, "diff_ids", MAX_LAYERS)))
        platform = Platform.from_json(value) or Platform("linux", "amd64")
        return cls(raw, Digest.of(raw), platform, diff_ids)

    @property
    def chain_id(self) -> Digest | None:
        """The key of the unpacked snapshot on a node; None for an image without layers."""
        return chain_ids(self.diff_ids)[-1] if self.diff_ids else None


@attrs.frozen
class Manifest:
    """An image manifest (OCI image spec, manifest.md; Docker's schema 2 is the same shape)."""

    raw: bytes = attrs.field(repr=False)
    digest: Digest
    media_type: str
    config: Descriptor
    layers: tuple[Descriptor, ...]

    @classmethod
    def parse(cls, raw: bytes) -> Manifest:
        value = parse_json(raw, "the manifest")
        layers = _list(value.get("layers"), "layers", MAX_LAYERS)
        return cls(
            raw=raw,
            digest=Digest.of(raw),
            media_type=str(value.get("mediaType") or MANIFEST),
            config=Descriptor.parse(value.get("config")),
            layers=tuple(map(Descriptor.parse, layers)),
        )

    @classmethod
    def build(cls, config: ImageConfig, layers: tuple[Descriptor, ...]) -> Manifest:
        """Build the OCI manifest of an image that has none."""
        value = {
            "schemaVersion": 2,
            "mediaType": MANIFEST,
            "config": Descriptor(CONFIG, config.digest, len(config.raw)).to_json(),
            "layers": [layer.to_json() for layer in layers],
        }
        return cls.parse(_dump(value))

    def descriptor(self, platform: Platform, name: str) -> Descriptor:
        """Return the entry of ``index.json`` with which containerd names the image `name`."""
        annotations = {IMAGE_NAME: name}
        return Descriptor(self.media_type, self.digest, len(self.raw), platform, annotations)


@attrs.frozen
class Index:
    """An image index (OCI image spec, image-index.md; Docker's manifest list)."""

    digest: Digest
    manifests: tuple[Descriptor, ...]

    @classmethod
    def parse(cls, raw: bytes) -> Index:
        value = parse_json(raw, "the image index")
        manifests = _list(value.get("manifests"), "manifests", MAX_MANIFESTS)
        return cls(Digest.of(raw), tuple(map(Descriptor.parse, manifests)))

    @staticmethod
    def descriptor(raw: bytes, name: str) -> Descriptor:
        """Return the entry of ``index.json`` with which containerd names an index `name`."""
        media_type = str(parse_json(raw, "the image index").get("mediaType") or INDEX)
        return Descriptor(media_type, Digest.of(raw), len(raw), annotations={IMAGE_NAME: name})

    @staticmethod
    def build(manifests: tuple[Descriptor, ...]) -> bytes:
        entries = [manifest.to_json() for manifest in manifests]
        return _dump({"schemaVersion": 2, "mediaType": INDEX, "manifests": entries})
