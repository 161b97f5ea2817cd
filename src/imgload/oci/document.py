"""Manifests, indexes and configs, with the raw bytes of their digests; a JSON parser for them."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Iterable, Mapping
from typing import Any, Literal

import attrs

from imgload.core.compression import Compression
from imgload.core.errors import ArchiveInvalid
from imgload.oci.digest import Digest, chain_ids
from imgload.oci.platform import ANY_PLATFORM, Platform

MANIFEST = "application/vnd.oci.image.manifest.v1+json"
INDEX = "application/vnd.oci.image.index.v1+json"
CONFIG = "application/vnd.oci.image.config.v1+json"
LAYER = "application/vnd.oci.image.layer.v1.tar"
DOCKER_MANIFEST = "application/vnd.docker.distribution.manifest.v2+json"
DOCKER_INDEX = "application/vnd.docker.distribution.manifest.list.v2+json"
ATTESTATION = "vnd.docker.reference.type"
IMAGE_NAME = "io.containerd.image.name"
REF_NAME = "org.opencontainers.image.ref.name"
_MANIFESTS = (MANIFEST, DOCKER_MANIFEST)
_INDEXES = (INDEX, DOCKER_INDEX)
_CONFIGS = (CONFIG, "application/vnd.docker.container.image.v1+json")
_LAYERS = ("application/vnd.oci.image.layer.", "application/vnd.docker.image.rootfs.")
"""How the media types of layers begin."""
_VAGUE = (
    *("", "application/octet-stream", "application/json", "application/gzip", "application/zstd"),
    *("application/x-gzip", "application/x-tar", "application/tar", "application/tar+gzip"),
)
"""Media types that say nothing about an image: the content decides."""

MAX_DOCUMENT = 8 << 20
"""Bytes; containerd refuses larger manifests and configs as well."""
MAX_BLOB = 1 << 40
"""Bytes that a descriptor may claim."""
MAX_LAYERS = 1000
MAX_MANIFESTS = 1000
MAX_VALUES = 250_000
"""Values of one document; each takes up to 200 bytes of memory, however short its text."""
MAX_DEPTH = 100
_MAX_DIGITS = 20
"""Digits of an integer: the most that 64 bits have, as programs in Go read them."""
_TOO_DEEP = f"it is nested more than {MAX_DEPTH} levels deep"
_TOKEN = re.compile(r'"(?:[^"\\]++|\\.)*+"?|[,\[{]', re.DOTALL)


def load_json(raw: bytes | str, *, most: int | None = MAX_VALUES) -> Any:
    """Parse an untrusted document of `most` values; ValueError is raised beyond a limit."""
    text = raw if isinstance(raw, str) else raw.decode()
    if most is not None and _has_more_values(text, most):
        raise ValueError(f"it has more than {most} values")
    try:
        value = json.loads(text, parse_int=_integer, parse_float=_float, parse_constant=_constant)
    except RecursionError as error:
        raise ValueError(_TOO_DEEP) from error
    containers = [value]
    for _ in range(MAX_DEPTH):
        children = (child for container in containers for child in _children(container))
        containers = [child for child in children if isinstance(child, dict | list)]
        if not containers:
            return value
    raise ValueError(_TOO_DEEP)


def _has_more_values(text: str, limit: int) -> bool:
    if sum(map(text.count, ",[{")) <= limit:
        return False
    count = 0  # the rest is slower: it ignores punctuation within strings
    for token in _TOKEN.finditer(text):
        count += token.end() - token.start() == 1
        if count > limit:
            return True
    return False


def _children(value: Any) -> Iterable[Any]:
    if isinstance(value, dict):
        return value.values()
    return value if isinstance(value, list) else ()


def _integer(digits: str) -> int:
    if len(digits) > _MAX_DIGITS:
        raise ValueError(f"a number has {len(digits)} digits")
    return int(digits)


def _float(digits: str) -> float:
    value = float(digits)
    if math.isinf(value):
        raise ValueError(f"a number is too large: {digits:.20}")
    return value


def _constant(name: str) -> Any:
    raise ValueError(f"{name} is not a number")


def parse_json(raw: bytes, document: str) -> dict[str, Any]:
    """Parse a JSON object; `document` names it in errors, which are ArchiveInvalid."""
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


def _annotations(descriptor: object) -> dict[str, str]:
    value = dig(descriptor, "annotations")
    items = value.items() if isinstance(value, dict) else ()
    return {str(key): str(text) for key, text in items}


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
        return cls(
            media_type=str(value.get("mediaType") or ""),
            digest=Digest.parse(value.get("digest")),
            size=size,
            platform=Platform.from_json(value.get("platform")),
            annotations=_annotations(value),
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
    has_rootfs: bool = True

    @classmethod
    def parse(cls, raw: bytes) -> ImageConfig:
        value = parse_json(raw, "the image config")
        rootfs = value.get("rootfs")
        texts = rootfs.get("diff_ids") if isinstance(rootfs, dict) else None
        diff_ids = tuple(map(Digest.parse, _list(texts, "diff_ids", MAX_LAYERS)))
        if other := next((d for d in diff_ids if d.algorithm != "sha256"), None):
            raise ArchiveInvalid(
                f"containerd verifies layers by sha256 only; its config has the diff ID {other}",
                hint="build the image with a tool that lists its layers by sha256",
            )
        platform = Platform.from_json(value) or ANY_PLATFORM
        return cls(raw, Digest.of(raw), platform, diff_ids, isinstance(rootfs, dict))

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
        known = None if platform.is_unspecified else platform
        return Descriptor(self.media_type, self.digest, len(self.raw), known, annotations)


@attrs.frozen
class Index:
    """An image index (OCI image spec, image-index.md; Docker's manifest list)."""

    digest: Digest
    manifests: tuple[Descriptor, ...]

    malformed: tuple[tuple[Mapping[str, str], ArchiveInvalid], ...] = attrs.field(
        default=(), hash=False
    )
    """The annotations of other entries, and why those cannot be used."""

    @classmethod
    def parse(cls, raw: bytes) -> Index:
        value = parse_json(raw, "the image index")
        entries: list[Descriptor] = []
        malformed: list[tuple[Mapping[str, str], ArchiveInvalid]] = []
        for entry in _list(value.get("manifests"), "manifests", MAX_MANIFESTS):
            try:
                entries.append(Descriptor.parse(entry))
            except ArchiveInvalid as error:
                malformed.append((_annotations(entry), error))
        return cls(Digest.of(raw), tuple(entries), tuple(malformed))

    @staticmethod
    def descriptor(raw: bytes, name: str) -> Descriptor:
        """Return the entry of ``index.json`` with which containerd names an index `name`."""
        media_type = str(parse_json(raw, "the image index").get("mediaType") or INDEX)
        return Descriptor(media_type, Digest.of(raw), len(raw), annotations={IMAGE_NAME: name})

    @staticmethod
    def build(manifests: tuple[Descriptor, ...]) -> bytes:
        entries = [manifest.to_json() for manifest in manifests]
        return _dump({"schemaVersion": 2, "mediaType": INDEX, "manifests": entries})


Kind = Literal["attestation", "signature", "artifact", "unknown"]


@attrs.frozen
class Artifact:
    """A manifest that is no runnable image; `type` is the media type that shows it."""

    kind: Kind
    type: str

    @classmethod
    def of(cls, media_type: str) -> Artifact:
        kinds: dict[str, Kind] = {
            "in-toto": "attestation",
            "attestation": "attestation",
            "dsse": "attestation",
            "cosign": "signature",
            "sigstore": "signature",
            "signature": "signature",
        }
        return cls(next((k for w, k in kinds.items() if w in media_type), "artifact"), media_type)


def parse_listed(raw: bytes) -> Manifest | Index | Artifact:
    """Parse a document that an index lists; its content decides, and not its media type.

    A manifest is an image if its config and its layers have media types of images, or vague ones.
    `artifactType` alone is no proof of the contrary: containerd ignores it, and unpacks the layers.
    """
    value = parse_json(raw, "the manifest")
    if isinstance(value.get("manifests"), list):
        if value.get("layers") is not None or value.get("config") is not None:
            raise ArchiveInvalid("a document is both a manifest and an index")  # CVE-2021-41190
        return Index.parse(raw)
    own_types = (text_at(value, "artifactType"), text_at(value, "mediaType"))
    if value.get("schemaVersion") == 1:
        return Artifact("unknown", "a manifest of Docker's schema 1")
    if not isinstance(value.get("config"), dict):
        foreign = [t for t in own_types if t not in (*_MANIFESTS, *_INDEXES, *_VAGUE)]
        if foreign:
            return Artifact.of(foreign[0])
    manifest = Manifest.parse(raw)
    kind = manifest.config.media_type
    if kind not in _CONFIGS and (kind not in _VAGUE or own_types[0]):
        return Artifact.of(own_types[0] or kind)
    types = [layer.media_type for layer in manifest.layers]
    foreign = [t for t in types if not t.startswith(_LAYERS) and t not in _VAGUE]
    return Artifact.of(own_types[0] or foreign[0]) if foreign else manifest


def is_manifest_type(media_type: str) -> bool:
    return media_type in _MANIFESTS


def config_type(media_type: str) -> str:
    """Return the media type of a config, corrected if it is vague: containerd unpacks no other."""
    return media_type if media_type in _CONFIGS else CONFIG


def is_document_type(media_type: str) -> bool:
    """Whether a descriptor with this media type may refer to a manifest or an index."""
    return media_type in (*_MANIFESTS, *_INDEXES, *_VAGUE)


def layer_type(media_type: str, compression: Compression) -> str:
    """Return the media type of a layer, corrected if its content is compressed otherwise."""
    declared = media_type.rpartition(".tar")[2].lstrip("+.")
    if media_type.startswith(_LAYERS) and (
        declared == compression or {declared, compression} - {"", "gzip", "zstd"}
    ):
        return media_type
    return LAYER + (f"+{compression}" if compression else "")


def dig(document: Any, *keys: str) -> Any:
    """Return the value at nested keys of a parsed document, or None."""
    for key in keys:
        document = document.get(key) if isinstance(document, dict) else None
    return document


def text_at(document: Any, *keys: str) -> str:
    """Return the string at nested keys of a parsed document, or an empty string."""
    value = dig(document, *keys)
    return value if isinstance(value, str) else ""
