"""Image archives in memory, in the formats of the tools that write them."""

import gzip
import hashlib
import io
import json
import tarfile
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

import attrs

from imgload.core.parallel import Task
from imgload.oci.archive import ArchiveSender, Wanted
from imgload.oci.content import Chunk, ImageContent
from imgload.oci.digest import Digest
from imgload.oci.document import CONFIG, IMAGE_NAME, INDEX, LAYER, MANIFEST
from imgload.transports.layout import Feed, LayoutWriter, StreamAborted

Entry = tuple[str, bytes | str]
"""A member: the content of a file as bytes, or the target of a symbolic link as a string."""
Json = dict[str, Any]

NAME = "docker.io/library/app:v1"


def encode(value: object) -> bytes:
    return json.dumps(value).encode()


def pack(entries: Iterable[Entry], form: int = tarfile.PAX_FORMAT) -> bytes:
    """Return a tar with these members, in this order."""
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w", format=form) as archive:
        for path, content in entries:
            member = tarfile.TarInfo(path)
            if isinstance(content, str):
                member.type, member.linkname = tarfile.SYMTYPE, content
                archive.addfile(member)
            else:
                member.size = len(content)
                archive.addfile(member, io.BytesIO(content))
    return buffer.getvalue()


def write_folder(folder: Path, entries: Iterable[Entry]) -> Path:
    """Write the members of an archive, all of them files, into a folder; return the folder."""
    for path, content in entries:
        assert isinstance(content, bytes)
        (folder / path).parent.mkdir(parents=True, exist_ok=True)
        (folder / path).write_bytes(content)
    return folder


def layer(text: str) -> bytes:
    """Return an uncompressed layer with one file."""
    return pack([("app.txt", text.encode())])


@attrs.frozen
class Image:
    """An image to put into archives; `gzipped` or `zstd` compress its layers, as OCI tools do."""

    layers: tuple[bytes, ...] = (layer("base"), layer("app"))
    name: str = "app:v1"
    platform: str = "linux/amd64"
    gzipped: bool = False
    zstd: Callable[[bytes], bytes] | None = None

    @property
    def config(self) -> bytes:
        os, architecture = self.platform.split("/")
        rootfs = {"type": "layers", "diff_ids": [str(Digest.of(raw)) for raw in self.layers]}
        return encode({"os": os, "architecture": architecture, "rootfs": rootfs})

    @property
    def image_id(self) -> Digest:
        return Digest.of(self.config)

    @property
    def blobs(self) -> tuple[bytes, ...]:
        if self.gzipped:
            return tuple(gzip.compress(raw, mtime=0) for raw in self.layers)
        return tuple(map(self.zstd, self.layers)) if self.zstd else self.layers

    @property
    def manifest(self) -> bytes:
        kind = LAYER + ("+gzip" if self.gzipped else "+zstd" if self.zstd else "")
        described = [descriptor(blob, kind) for blob in self.blobs]
        config = descriptor(self.config, CONFIG)
        value = {"schemaVersion": 2, "mediaType": MANIFEST, "config": config, "layers": described}
        return json.dumps(value, indent=3).encode()  # not as imgload would write it

    @property
    def digest(self) -> Digest:
        return Digest.of(self.manifest)

    @property
    def entry(self) -> Json:
        """The image's descriptor in an index."""
        os, architecture = self.platform.split("/")
        platform = {"os": os, "architecture": architecture}
        return descriptor(self.manifest, MANIFEST, platform=platform)

    @property
    def members(self) -> list[Entry]:
        """All blobs of the image, as members of an OCI layout."""
        return [blob(raw) for raw in (*self.blobs, self.config, self.manifest)]


def descriptor(raw: bytes, media_type: str, **extra: object) -> Json:
    return {"mediaType": media_type, "digest": str(Digest.of(raw)), "size": len(raw), **extra}


def blob(raw: bytes) -> Entry:
    return f"blobs/sha256/{Digest.of(raw).hex}", raw


def index(*entries: Json) -> bytes:
    return encode({"schemaVersion": 2, "mediaType": INDEX, "manifests": entries})


def unique(entries: Iterable[Entry]) -> list[Entry]:
    return list(dict(entries).items())


def oci(*images: Image) -> list[Entry]:
    """Return an archive as `skopeo copy … oci-archive:` and buildx write it."""
    named = [{**i.entry, "annotations": {IMAGE_NAME: i.name}} for i in images]
    blobs = unique(member for image in images for member in image.members)
    layout = encode({"imageLayoutVersion": "1.0.0"})
    return [*blobs, ("index.json", index(*named)), ("oci-layout", layout)]


def docker20(*images: Image) -> list[Entry]:
    """Return an archive as `docker save` up to 24 writes it, with links for repeated layers."""
    seen: dict[bytes, str] = {}
    entries: list[Entry] = []
    manifest: list[Json] = []
    for image in images:
        paths = []
        for position, raw in enumerate(image.layers):
            folder = hashlib.sha256(image.config + bytes([position])).hexdigest()
            paths.append(f"{folder}/layer.tar")
            entries += [(f"{folder}/VERSION", b"1.0"), (f"{folder}/json", encode({"id": folder}))]
            entries.append((paths[-1], f"../{seen[raw]}/layer.tar" if raw in seen else raw))
            seen.setdefault(raw, folder)
        config = f"{image.image_id.hex}.json"
        entries.append((config, image.config))
        manifest.append({"Config": config, "RepoTags": [image.name], "Layers": paths})
    return [*entries, ("manifest.json", encode(manifest)), ("repositories", encode({"app": {}}))]


def podman(*images: Image) -> list[Entry]:
    """Return an archive as `podman save` writes it, with legacy folders that link to layers."""
    entries: list[Entry] = []
    manifest: list[Json] = []
    for image in images:
        paths = [f"{Digest.of(raw).hex}.tar" for raw in image.layers]
        for path, raw in zip(paths, image.layers, strict=True):
            legacy = hashlib.sha256(path.encode()).hexdigest()
            entries += [(path, raw), (f"{legacy}/layer.tar", f"../{path}")]
            entries += [(f"{legacy}/VERSION", b"1.0"), (f"{legacy}/json", b'{"id":"x"}')]
        config = f"{image.image_id.hex}.json"
        entries.append((config, image.config))
        manifest.append({"Config": config, "RepoTags": [image.name], "Layers": paths})
    entries += [("repositories", encode({})), ("manifest.json", encode(manifest))]
    return unique(entries)


def docker25(*images: Image) -> list[Entry]:
    """Return an archive as `docker save` since 25 writes it: an OCI layout with manifest.json."""
    manifest = [
        {
            "Config": blob(image.config)[0],
            "RepoTags": [image.name],
            "Layers": [blob(raw)[0] for raw in image.blobs],
        }
        for image in images
    ]
    return [*oci(*images), ("manifest.json", encode(manifest)), ("repositories", encode({}))]


def custom(
    config: bytes,
    *layers: bytes,
    kinds: Sequence[str] = (),
    config_kind: str = CONFIG,
    **extra: object,
) -> bytes:
    """Return a manifest with other media types or fields; `kinds` are those of the layers."""
    described = [
        descriptor(raw, kind)
        for raw, kind in zip(layers, kinds or [LAYER] * len(layers), strict=True)
    ]
    value = {"schemaVersion": 2, "mediaType": MANIFEST, "config": descriptor(config, config_kind)}
    return encode({**value, "layers": described, **extra})


def listed(
    manifest: bytes, *others: bytes, name: str = "", **extra: object
) -> tuple[Json, list[Entry]]:
    """Return a manifest's entry of an index, and the members of the manifest and other blobs."""
    notes = {"annotations": {IMAGE_NAME: name}} if name else {}
    return {**descriptor(manifest, MANIFEST), **notes, **extra}, [*map(blob, (manifest, *others))]


def signature(subject: bytes = b"an image") -> tuple[Json, list[Entry]]:
    """Return what `cosign save` writes beside an image: config and layer are those of an image."""
    payload = encode({"critical": str(Digest.of(subject))})
    rootfs = {"type": "layers", "diff_ids": [str(Digest.of(payload))]}
    config = encode({"architecture": "", "os": "", "rootfs": rootfs})
    kind = "application/vnd.dev.cosign.simplesigning.v1+json"
    return listed(custom(config, payload, kinds=[kind]), config, payload)


def artifact(name: str = "") -> tuple[Json, list[Entry]]:
    """Return what `oras push` writes: a file with an empty config."""
    content, config = layer("a file"), b"{}"
    kind = "application/vnd.oci.empty.v1+json"
    manifest = custom(config, content, config_kind=kind, artifactType="application/vnd.acme.rocket")
    return listed(manifest, config, content, name=name)


def layout(*entries: tuple[Json, list[Entry]]) -> list[Entry]:
    """Return an OCI layout of entries with their members."""
    members = unique(member for _, files in entries for member in files)
    version = encode({"imageLayoutVersion": "1.0.0"})
    return [*members, ("index.json", index(*(e for e, _ in entries))), ("oci-layout", version)]


def named(image: Image) -> tuple[Json, list[Entry]]:
    """Return an image's entry with its name, and its members."""
    return {**image.entry, "annotations": {IMAGE_NAME: image.name}}, image.members


FORMS = {"docker20": docker20, "podman": podman, "docker25": docker25, "oci": oci}


@attrs.frozen
class Layout:
    """A repacked stream as tarfile reads it."""

    paths: tuple[str, ...]
    blobs: dict[Digest, bytes]
    index: Json

    @classmethod
    def read(cls, data: bytes) -> "Layout":
        with tarfile.open(fileobj=io.BytesIO(data)) as archive:
            members = [(m.name, m, archive.extractfile(m)) for m in archive.getmembers()]
            contents = {name: file.read() for name, _, file in members if file}
        assert all(member.isreg() for _, member, _ in members)
        blobs = {Digest.of(c): c for path, c in contents.items() if path.startswith("blobs/")}
        paths = tuple(name for name, _, _ in members)
        return cls(paths, blobs, json.loads(contents["index.json"]))

    @property
    def names(self) -> list[str]:
        return [entry["annotations"][IMAGE_NAME] for entry in self.index["manifests"]]

    def manifest(self, name: str = NAME) -> bytes:
        """Return the raw manifest with a name."""
        entry = self.index["manifests"][self.names.index(name)]
        raw = self.blobs[Digest.parse(entry["digest"])]
        assert entry["size"] == len(raw)
        return raw

    def image_id(self, name: str = NAME) -> Digest:
        """Return the ID of the image with a name; assert that all of its blobs exist."""
        value = json.loads(self.manifest(name))
        for described in (value["config"], *value["layers"]):
            assert len(self.blobs[Digest.parse(described["digest"])]) == described["size"]
        return Digest.parse(value["config"]["digest"])

    def layers(self, name: str = NAME) -> tuple[bytes, ...]:
        described = json.loads(self.manifest(name))["layers"]
        return tuple(self.blobs[Digest.parse(entry["digest"])] for entry in described)


def split(data: bytes, size: int) -> Iterator[bytes]:
    return (data[i : i + size] for i in range(0, len(data), size))


class Repack:
    """The layout that a node gets from a saved archive, as a stream; iterate it once.

    Args:
        archive: the saved archive.
        wanted: the images to select.
        unneeded: layers that may be omitted.

    """

    def __init__(
        self, archive: Iterable[bytes], wanted: Sequence[Wanted], unneeded: Collection[Digest] = ()
    ) -> None:
        self._saved = ArchiveSender(archive, wanted, unneeded)
        self.images: dict[Digest, ImageContent] = {}
        self.sizes: dict[Digest, int] = {}

    def __iter__(self) -> Iterator[Chunk]:
        feed = Feed()
        task = Task(lambda: self._write(feed))
        with suppress(StreamAborted):
            yield from feed
        task.result()

    def _write(self, feed: Feed) -> None:
        layout = LayoutWriter({"node": feed})
        try:
            self.images = self._saved.send(layout)
            layout.close()
            feed.complete()
        except BaseException:
            feed.abort()
            raise
        self.sizes = layout.sent["node"]


def repacked(archive: bytes, *wanted: Wanted, chunk: int = 1 << 20) -> bytes:
    """Return the stream that containerd receives."""
    return b"".join(Repack(split(archive, chunk), wanted))


def repack(archive: bytes, *wanted: Wanted, chunk: int = 1 << 20) -> Layout:
    """Return the layout that containerd receives, as tarfile reads it."""
    return Layout.read(repacked(archive, *wanted, chunk=chunk))


def wanted(image: Image, names: Sequence[str] = (NAME,)) -> Wanted:
    return Wanted(image.image_id, tuple(names))
