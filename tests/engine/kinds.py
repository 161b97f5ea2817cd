"""Images with unusual layers, platforms or manifests, and archives of them."""

from __future__ import annotations

import bz2
import gzip
import io
import json
import lzma
import secrets
import tarfile
from collections.abc import Callable, Sequence

import attrs
from backports import zstd

from imgload.core.compression import Compression
from imgload.oci.digest import Digest, chain_ids
from imgload.oci.document import ATTESTATION, CONFIG, IMAGE_NAME, INDEX, LAYER, MANIFEST, REF_NAME
from tests.unit.archives import Entry, Json, blob, descriptor, encode, index, pack

SQUEEZE: dict[Compression, Callable[[bytes], bytes]] = {
    "": bytes,
    "gzip": lambda raw: gzip.compress(raw, mtime=0),
    "zstd": zstd.compress,
    "bzip2": bz2.compress,
    "xz": lzma.compress,
}
FOREIGN = "application/vnd.oci.image.layer.nondistributable.v1.tar"
EMPTY = bytes(1024)
"""A layer without files, as Docker creates it: only the end marker of a tar."""
AMD64 = {"os": "linux", "architecture": "amd64"}
ARM64 = {"os": "linux", "architecture": "arm64", "variant": "v8"}
S390X = {"os": "linux", "architecture": "s390x"}
UNKNOWN = {"os": "unknown", "architecture": "unknown"}

BUILT, NO_LAYERS, DEEP, SEVERAL, UNTAGGED, PINNED = (
    "built by an engine",
    "no layers",
    "127 layers",
    "several platforms, one absent, attested",
    "untagged, by ID",
    "by its digest",
)
KINDS = (
    BUILT,
    "gzip layers",
    "zstd layers",
    "uncompressed layers",
    "an empty layer",
    "one layer twice",
    NO_LAYERS,
    DEEP,
    "a foreign layer",
    SEVERAL,
    "arm64/v8 only",
    UNTAGGED,
    PINNED,
)
"""The kinds of images in docs/compatibility.md."""


def layer(name: str = "app.txt") -> bytes:
    """Return an uncompressed layer with a unique file."""
    return pack([(name, secrets.token_hex(32).encode())], tarfile.USTAR_FORMAT)


@attrs.frozen
class Made:
    """An image of one platform; without a name it is untagged.

    If `foreign` is set, its lowest layer has its own address, and tools may omit it.
    """

    name: str
    layers: tuple[bytes, ...] = attrs.field(factory=lambda: (layer("base.txt"), layer()))
    compression: Compression = ""
    platform: Json = AMD64
    foreign: bool = False
    label: str = attrs.field(factory=lambda: secrets.token_hex(8))

    @property
    def diff_ids(self) -> tuple[Digest, ...]:
        return tuple(map(Digest.of, self.layers))

    @property
    def config(self) -> bytes:
        rootfs = {"type": "layers", "diff_ids": list(map(str, self.diff_ids))}
        inner = {"Cmd": ["/app"], "Labels": {"imgload-test": self.label}}
        history = [{"created": "2026-01-01T00:00:00Z"} for _ in self.layers]
        created = {"created": "2026-01-01T00:00:00Z", **self.platform}
        return encode({**created, "config": inner, "rootfs": rootfs, "history": history})

    @property
    def image_id(self) -> str:
        return str(Digest.of(self.config))

    @property
    def chain_id(self) -> str | None:
        """The key of its snapshot on a node."""
        return str(chain_ids(self.diff_ids)[-1]) if self.layers else None

    @property
    def blobs(self) -> list[bytes]:
        return [SQUEEZE[self.compression](raw) for raw in self.layers]

    @property
    def manifest(self) -> bytes:
        kind = LAYER + (f"+{self.compression}" if self.compression else "")
        layers = [descriptor(raw, kind) for raw in self.blobs]
        if self.foreign:
            layers[0] = self.foreign_layer
        config = descriptor(self.config, CONFIG)
        value = {"schemaVersion": 2, "mediaType": MANIFEST, "config": config, "layers": layers}
        return json.dumps(value, indent=2).encode()

    @property
    def foreign_layer(self) -> Json:
        """The descriptor of the lowest layer; nothing listens at its address."""
        suffix = f"+{self.compression}" if self.compression else ""
        return descriptor(self.blobs[0], FOREIGN + suffix, urls=["https://127.0.0.1:1/layer"])

    @property
    def members(self) -> list[Entry]:
        return [blob(raw) for raw in (*self.blobs, self.config, self.manifest)]

    @property
    def entry(self) -> Json:
        """Its descriptor in an index."""
        return descriptor(self.manifest, MANIFEST, platform=self.platform)

    @property
    def top(self) -> Json:
        """Its descriptor in index.json, without its name."""
        return self.entry


@attrs.frozen
class Platforms(Made):
    """An image of several platforms, as buildx writes it: two present ones and an absent one.

    The attributes of `Made` are those of the image for amd64.
    """

    other: Made = attrs.field(factory=lambda: Made("", platform=ARM64, compression="gzip"))
    absent: Made = attrs.field(factory=lambda: Made("", platform=S390X))

    @property
    def index(self) -> bytes:
        about = {
            ATTESTATION: "attestation-manifest",
            "vnd.docker.reference.digest": self.entry["digest"],
        }
        attested = {**self._attestation.entry, "annotations": about}
        return index(self.absent.entry, self.other.entry, self.entry, attested)

    @property
    def _attestation(self) -> Made:
        return Made("", (b'{"_type":"in-toto"}',), platform=UNKNOWN, label="")

    @property
    def members(self) -> list[Entry]:
        own = super().members
        return [*own, *self.other.members, *self._attestation.members, blob(self.index)]

    @property
    def top(self) -> Json:
        return descriptor(self.index, INDEX)


def old(images: Sequence[Made]) -> list[Entry]:
    """Return a docker-archive as Docker up to 24, crane and Bazel write it."""
    entries: dict[str, bytes | str] = {}
    listed: list[Json] = []
    for image in images:
        paths = [f"{secrets.token_hex(32)}/layer.tar" for _ in image.layers]
        entries |= zip(paths, image.blobs, strict=True)
        config = f"{Digest.parse(image.image_id).hex}.json"
        entries[config] = image.config
        names = [image.name] if image.name else None
        listed.append({"Config": config, "RepoTags": names, "Layers": paths, **_sources(image)})
    return [*entries.items(), ("manifest.json", encode(listed))]


def new(images: Sequence[Made]) -> list[Entry]:
    """Return a docker-archive as Docker 25 and later write it: also an OCI layout."""
    listed = [
        {
            "Config": blob(image.config)[0],
            "RepoTags": [image.name] if image.name else None,
            "Layers": [blob(raw)[0] for raw in image.blobs],
            **_sources(image),
        }
        for image in images
    ]
    return [*oci(images), ("manifest.json", encode(listed))]


def _sources(image: Made) -> Json:
    """Return Docker's entry for foreign layers."""
    return {"LayerSources": {str(image.diff_ids[0]): image.foreign_layer}} if image.foreign else {}


def oci(images: Sequence[Made]) -> list[Entry]:
    """Return an OCI layout as buildx writes it."""
    tops = [{**image.top, "annotations": _notes(image.name)} for image in images]
    blobs = dict(member for image in images for member in image.members)
    layout = encode({"imageLayoutVersion": "1.0.0"})
    return [*blobs.items(), ("index.json", index(*tops)), ("oci-layout", layout)]


def _notes(name: str) -> Json:
    full = {IMAGE_NAME: f"docker.io/library/{name}", REF_NAME: name.rpartition(":")[2]}
    return full if name else {}


def saved(archive: bytes) -> tuple[str, str | None]:
    """Return the image ID and the chain ID of an archive's image, the first one of an index."""
    with tarfile.open(fileobj=io.BytesIO(archive)) as tar:
        files = {m.name: tar.extractfile(m) for m in tar if m.isreg()}
        read = {name: file.read() for name, file in files.items() if file}
    config = read[_config_path(read)]
    diff_ids = tuple(map(Digest.parse, json.loads(config)["rootfs"]["diff_ids"] or ()))
    return str(Digest.of(config)), str(chain_ids(diff_ids)[-1]) if diff_ids else None


def _config_path(files: dict[str, bytes]) -> str:
    if "manifest.json" in files:
        return str(json.loads(files["manifest.json"])[0]["Config"])
    document = json.loads(files["index.json"])
    while "manifests" in document:  # attestations come last
        document = json.loads(files[_path(document["manifests"][0])])
    return _path(document["config"])


def _path(described: Json) -> str:
    return f"blobs/{described['digest'].replace(':', '/')}"
