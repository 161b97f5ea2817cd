"""The images of an archive, whichever tool saved it.

Three formats exist: the docker-archive (``manifest.json``; layers named by ID in Docker up to 24
and Podman), the OCI layout (``index.json``, image-layout.md), and both, from Docker 25 on.
Then ``index.json`` wins, and ``manifest.json`` adds the images that the index lacks: Docker's
graphdriver store indexes only one of several images saved by ID (moby #51389), and none in 25.0.0
(moby #47210).
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from functools import partial
from itertools import chain
from typing import Any, TypeVar

import attrs

from imgload.core.compression import Compression, compression_of
from imgload.core.errors import ArchiveInvalid, DigestMismatch, ManifestMissing, PlatformMissing
from imgload.core.files import read_at
from imgload.oci.content import Chunk, ImageContent, Receiver
from imgload.oci.digest import Digest
from imgload.oci.document import (
    DOCKER_INDEX,
    IMAGE_NAME,
    INDEX,
    LAYER,
    MAX_DOCUMENT,
    MAX_LAYERS,
    MAX_MANIFESTS,
    REF_NAME,
    Descriptor,
    ImageConfig,
    Index,
    Manifest,
    load_json,
)
from imgload.oci.platform import Platform
from imgload.oci.reference import pinned
from imgload.oci.tar import Member, Place, read_tar

MAX_KEPT = 32 << 20
"""Bytes of all small members together, which are kept in memory."""
_MAX_LINKS = 20
_MAX_NESTING = 4
_MOST_LAYERS = 50_000
_MAGIC_LENGTH = 4

Document = TypeVar("Document")


@attrs.frozen
class Blob:
    """A member: `size` in bytes; `digest` is None if it was skipped, `data` if it was not kept."""

    digest: Digest | None
    size: int
    compression: Compression = ""
    data: bytes | None = attrs.field(default=None, repr=False)
    place: Place | None = attrs.field(default=None, eq=False)


ReadOther = Callable[[Member, Compression, Iterator[memoryview]], Blob | None]
"""Reads a member that is no document."""


@attrs.define(eq=False, repr=False)
class Blobs:
    """The members of an archive by path: of large ones, only digest and size are kept."""

    _by_path: dict[str, Blob] = attrs.field(factory=dict)
    _links: dict[str, str] = attrs.field(factory=dict)
    _parsed: dict[object, Any] = attrs.field(factory=dict)
    _layers: dict[Digest, Blob] = attrs.field(factory=dict)
    _kept: int = 0

    def add(self, path: str, blob: Blob) -> None:
        known = self._by_path.setdefault(path, blob)
        if known.digest != blob.digest:
            raise ArchiveInvalid(f"the archive has two different members named {path!r:.200}")
        self._kept += len(blob.data or b"")
        if self._kept > MAX_KEPT:
            raise ArchiveInvalid(f"the archive has more than {MAX_KEPT} bytes of metadata")

    def link(self, path: str, target: str) -> None:
        self._links[path] = target

    def get(self, path: str) -> Blob | None:
        for _ in range(_MAX_LINKS):
            if path in self._by_path or path not in self._links:
                return self._by_path.get(path)
            path = self._links[path]
        raise ArchiveInvalid(f"the archive's links form a cycle at {path!r:.200}")

    def parsed(self, blob: Blob, parse: Callable[[bytes], Document]) -> Document:
        """Return a kept document, parsed once however often the archive lists it."""
        if (blob.digest, parse) not in self._parsed:
            self._parsed[blob.digest, parse] = parse(blob.data or b"")
        document: Document = self._parsed[blob.digest, parse]
        return document

    def by_digest(self, digest: Digest) -> Blob | None:
        """Return a blob of an OCI layout, whose path is its digest (image-layout.md#blobs)."""
        path = f"blobs/{digest.algorithm}/{digest.hex}"
        blob = self.get(path)
        if blob is None:
            return None
        actual = blob.digest
        if digest.algorithm != "sha256":
            actual = Digest.of(blob.data, digest.algorithm) if blob.data is not None else None
        if actual not in {None, digest}:
            raise DigestMismatch(f"{path} has the content of {blob.digest}")
        return blob

    def add_layer(self, digest: Digest, blob: Blob) -> None:
        """Record the digest of a layer whose path does not contain it."""
        self._layers[digest] = blob

    def placed(self, digest: Digest) -> Blob | None:
        """Return a layer that can be read at any time, because the archive is a file."""
        blob = self.by_digest(digest) or self._layers.get(digest)
        return blob if blob and blob.place else None

    def documents(self) -> dict[Digest, bytes]:
        """Return the kept members by digest."""
        blobs = self._by_path.values()
        return {b.digest: b.data for b in blobs if b.digest and b.data is not None}

    def read(self, archive: Iterable[bytes], read_other: ReadOther) -> bool:
        """Read an archive; return False if `read_other` did not read a member."""
        for member, body in read_tar(archive):
            if member.kind == "link":
                self.link(member.path, member.target)
            elif member.kind == "file":
                start, chunks = _peek(body)
                if may_be_document(member.path, member.size, start):
                    data = b"".join(chunks)
                    blob: Blob | None = Blob(Digest.of(data), len(data), "", data)
                else:
                    blob = read_other(member, compression_of(start), chunks)
                if blob is None:
                    return False
                self.add(member.path, blob)
        return True


def _peek(body: Iterable[memoryview]) -> tuple[bytes, Iterator[memoryview]]:
    """Return a member's first four bytes, and all its chunks."""
    chunks = iter(body)
    first: list[memoryview] = []
    while sum(map(len, first)) < _MAGIC_LENGTH and (chunk := next(chunks, None)) is not None:
        first.append(chunk)
    return b"".join(first)[:_MAGIC_LENGTH], chain(first, chunks)


def _digits_of(path: str) -> str:
    """Return the name of a layer in its path: its digest, or an ID of its own in older Docker's."""
    return path.rpartition("/")[2].removesuffix(".tar")


def _claimed_digest(path: str) -> Digest | None:
    """Return the digest in the path of a blob of an OCI layout."""
    return Digest.try_parse(path.removeprefix("blobs/").replace("/", ":", 1))


def may_be_document(path: str, size: int, start: bytes) -> bool:
    """Whether a member may be a JSON document of an image, and is small enough to keep."""
    named = path.endswith("json") or path in {"oci-layout", "repositories"}
    return size <= MAX_DOCUMENT and (named or start.startswith(b"{"))


@attrs.frozen
class ArchivedImage:
    """An image of an archive.

    Its manifest is a guess if layers of a docker-archive were skipped. `indexes` are the indexes
    above the manifest, `listed` is its platform in an index, which its config may lack, and
    `absent` are platforms of the same index without content. If `layers_named`, the paths of layers
    contain their digests, so that some can be skipped.
    """

    manifest: Manifest
    config: ImageConfig
    names: tuple[str, ...] = ()
    indexes: tuple[Digest, ...] = ()
    listed: Platform | None = None
    absent: frozenset[Platform] = frozenset()
    layers_named: bool = True

    @property
    def platform(self) -> Platform:
        return self.listed or self.config.platform

    def is_called(self, target: Digest) -> bool:
        """Whether a digest is that of its config, its manifest, or an index above it."""
        return target in {self.config.digest, self.manifest.digest, *self.indexes}


def images_in(blobs: Blobs) -> tuple[ArchivedImage, ...]:
    """Return the images of an archive that was read to its end."""
    index, docker_list = blobs.get("index.json"), blobs.get("manifest.json")
    if index is None and docker_list is None:
        raise ArchiveInvalid(
            "not an image archive: it has neither manifest.json nor index.json",
            hint="make one with: docker save IMAGE -o FILE, or podman save IMAGE -o FILE",
        )
    listed: tuple[ArchivedImage, ...] = ()
    if index:
        if index.data is None:
            raise ArchiveInvalid("index.json is too large to be an image index")
        listed = tuple(_Layout(blobs).walk(Index.parse(index.data)))
    if docker_list is None:
        return listed
    return (*listed, *_from_docker(blobs, docker_list.data or b"", listed))


def choose(
    images: Sequence[ArchivedImage],
    target: Digest,
    platform: Platform | None,
    exact: Sequence[Digest] = (),
) -> ArchivedImage:
    """Return the image with a digest and a platform; see `Wanted` for the arguments."""
    for digest in exact:
        for image in images:
            if digest in {image.manifest.digest, image.config.digest}:
                return image
    named = [image for image in images if image.is_called(target)]
    if not named:
        raise ArchiveInvalid(f"the archive does not have the image {target}")
    for image in named:
        if platform in {None, image.platform}:
            return image
    available = ", ".join(sorted({str(image.platform) for image in named}))
    raise PlatformMissing(
        f"the image has no {platform}; it has {available}",
        hint="build it for that platform, or choose another one with --platform",
    )


def _pinned_index(
    name: str, image: ArchivedImage, documents: Mapping[Digest, bytes]
) -> bytes | None:
    """Return the index that a name with a digest demands; None if the image's manifest suffices."""
    digest = pinned(name) or image.manifest.digest
    if digest == image.manifest.digest:
        return None
    if digest in image.indexes and digest in documents:
        return documents[digest]
    raise ManifestMissing(
        f"the image has the manifest {image.manifest.digest}, and not the one that {name} demands",
        hint="name it without the digest; or load from a store that keeps manifests: Docker's"
        " containerd image store, or an OCI archive",
    )


@attrs.define(eq=False, repr=False)
class _Layout:
    """Reads the indexes of an OCI layout; an image may be listed several times."""

    blobs: Blobs
    entries: int = 0
    layers: dict[Digest, int] = attrs.field(factory=dict)
    """The number of layers of each manifest."""

    def walk(
        self, index: Index, above: tuple[Digest, ...] = (), names: tuple[str, ...] = ()
    ) -> Iterator[ArchivedImage]:
        if len(above) > _MAX_NESTING or index.digest in above:
            raise ArchiveInvalid("the archive's indexes are nested without end")
        above = (*above, index.digest)
        images: list[ArchivedImage] = []
        absent: dict[tuple[str, ...], set[Platform]] = {}
        for entry in index.manifests:
            self.entries += 1
            if self.entries > MAX_MANIFESTS:
                raise ArchiveInvalid(f"the archive's indexes have over {MAX_MANIFESTS} entries")
            if entry.is_attestation:
                continue
            own_names = names or _names(entry)
            of_entry = tuple(self._images(entry, above, own_names))
            images += of_entry
            if not of_entry and entry.platform:
                absent.setdefault(own_names, set()).add(entry.platform)
        for image in images:
            yield attrs.evolve(image, absent=image.absent | absent.get(image.names, set()))

    def _images(
        self, entry: Descriptor, above: tuple[Digest, ...], names: tuple[str, ...]
    ) -> Iterator[ArchivedImage]:
        """Yield the images of an entry; an index may list content that is absent (kind #3795)."""
        blob = self.blobs.by_digest(entry.digest)
        if blob is None or blob.data is None:
            return
        if entry.media_type in {INDEX, DOCKER_INDEX}:
            yield from self.walk(self.blobs.parsed(blob, Index.parse), above, names)
            return
        manifest = self.blobs.parsed(blob, Manifest.parse)
        config = self.blobs.by_digest(manifest.config.digest)
        if config is None or config.data is None:
            return
        self.layers[manifest.digest] = len(manifest.layers)
        _limit_layers(sum(self.layers.values()))
        parsed = self.blobs.parsed(config, ImageConfig.parse)
        yield ArchivedImage(manifest, parsed, names, above, entry.platform)


def _names(entry: Descriptor) -> tuple[str, ...]:
    """Return the name of an entry; a bare tag is not a name (ctr makes up import-DATE for it)."""
    name = entry.annotations.get(IMAGE_NAME) or entry.annotations.get(REF_NAME, "")
    return (name,) if "/" in name or ":" in name else ()


def _limit_layers(count: int) -> None:
    if count > _MOST_LAYERS:
        raise ArchiveInvalid(f"the archive's images have more than {_MOST_LAYERS} layers")


def _from_docker(
    blobs: Blobs, raw: bytes, listed: Sequence[ArchivedImage]
) -> Iterator[ArchivedImage]:
    """Yield the images of ``manifest.json`` that the index does not list.

    Beside an index, an image without its config is skipped, as in the index.
    """
    known, layers = {image.config.digest for image in listed}, 0
    for entry in _docker_entries(raw):
        path = entry.get("Config")
        if not isinstance(path, str):
            raise ArchiveInvalid("manifest.json names no config")
        blob = blobs.get(path)
        if blob is None or blob.data is None:
            if listed:
                continue
            raise ArchiveInvalid(f"the archive lacks its config {path!r:.200}")
        config = blobs.parsed(blob, ImageConfig.parse)
        if config.digest in known:
            continue
        paths = _strings(entry.get("Layers"), MAX_LAYERS)
        layers += len(paths)
        _limit_layers(layers)
        manifest = Manifest.build(config, tuple(_layers(blobs, config, paths)))
        names = _strings(entry.get("RepoTags"), MAX_MANIFESTS)
        named = {_digits_of(path) for path in paths} <= {digest.hex for digest in config.diff_ids}
        yield ArchivedImage(manifest, config, names, layers_named=named)


def _docker_entries(raw: bytes) -> list[dict[str, Any]]:
    try:
        entries = load_json(raw)
    except ValueError as error:
        raise ArchiveInvalid(f"manifest.json is not valid JSON: {error}") from error
    if not isinstance(entries, list) or not all(isinstance(entry, dict) for entry in entries):
        raise ArchiveInvalid("manifest.json is not a list of images")
    if len(entries) > MAX_MANIFESTS:
        raise ArchiveInvalid(
            f"the archive has {len(entries)} images, more than {MAX_MANIFESTS}",
            hint="save them into several archives",
        )
    return entries


def _strings(value: object, limit: int) -> tuple[str, ...]:
    if value is None:
        return ()
    if not isinstance(value, list) or len(value) > limit:
        raise ArchiveInvalid("manifest.json is malformed")
    return tuple(map(str, value))


def _layers(blobs: Blobs, config: ImageConfig, paths: tuple[str, ...]) -> Iterator[Descriptor]:
    if len(paths) != len(config.diff_ids):
        raise ArchiveInvalid(
            f"the archive has {len(paths)} layers where its config has {len(config.diff_ids)}"
        )
    for path, diff_id in zip(paths, config.diff_ids, strict=True):
        blob = blobs.get(path)
        if blob is None:
            raise ArchiveInvalid(f"the archive lacks the layer {path!r:.200}")
        digest = blob.digest or diff_id
        if not blob.compression and digest != diff_id:
            raise DigestMismatch(f"the layer {path!r:.200} is {digest}, not {diff_id}")
        blobs.add_layer(digest, blob)
        suffix = f"+{blob.compression}" if blob.compression else ""
        yield Descriptor(LAYER + suffix, digest, blob.size)


def scan(archive: Iterable[bytes]) -> tuple[ArchivedImage, ...]:
    """Return the images of an archive, whose layers are skipped if it is `tar.Seekable`."""
    blobs = Blobs()
    blobs.read(archive, lambda member, compression, _: Blob(None, member.size, compression))
    return images_in(blobs)


@attrs.frozen
class Wanted:
    """An image to take out of an archive, with its full names on the nodes.

    `target` is the digest of its config, its manifest, or an index above it; `platform` is to
    choose from an index. `exact` are digests of its own manifest or config, if known: Docker saves
    one platform of an index without the index.
    """

    target: Digest
    names: tuple[str, ...]
    platform: Platform | None = None
    exact: tuple[Digest, ...] = ()


class ArchiveSender:
    """Sends images while their archive is read.

    Layers are passed on as they arrive, unless the archive is a file or a folder: its layers are
    sent once the images are known. The manifests and configs of a stream are known only at its end.
    `unneeded` are layers that no node lacks, by blob digest or diff ID; they are skipped if their
    paths in the archive contain these digests. `plain_sizes` are those that are known before.
    """

    def __init__(
        self,
        archive: Iterable[bytes],
        wanted: Sequence[Wanted],
        unneeded: Collection[Digest] = (),
        plain_sizes: Mapping[Digest, int] | None = None,
    ) -> None:
        self._archive = archive
        self._plain_sizes = plain_sizes or {}
        self._wanted = wanted
        self._unneeded = {digest.hex: digest for digest in unneeded}
        self._blobs = Blobs()
        self._sizes: dict[Digest, int] = {}
        self._skipped: set[Digest] = set()

    def send(self, receiver: Receiver) -> dict[Digest, ImageContent]:
        """Send the images; return them by target, or nothing if no node reads any more."""
        if not self._blobs.read(self._archive, partial(self._layer, receiver)):
            return {}
        images, contents = images_in(self._blobs), dict[Digest, ImageContent]()
        for wanted in self._wanted:
            content = self._finish(wanted, images, receiver)
            if content is None:
                return {}
            contents[wanted.target] = content
        return contents

    def _layer(
        self,
        receiver: Receiver,
        member: Member,
        compression: Compression,
        chunks: Iterator[memoryview],
    ) -> Blob | None:
        """Skip a layer or pass it on; return None if no node reads any more."""
        unneeded = self._unneeded.get(_digits_of(member.path))
        if compression and not member.path.startswith("blobs/"):
            unneeded = None  # a diff ID is the digest of an uncompressed tar
        if unneeded:
            self._skipped.add(unneeded)
            return Blob(None, member.size, compression) if receiver.is_open else None
        claimed = _claimed_digest(member.path)
        if member.place and (claimed or not compression):
            return Blob(claimed, member.size, compression, place=member.place)
        digest = _write(receiver, member.size, chunks)
        if digest is None:
            return None
        self._sizes[digest] = member.size
        return Blob(digest, member.size, compression)

    def _finish(
        self, wanted: Wanted, images: Sequence[ArchivedImage], receiver: Receiver
    ) -> ImageContent | None:
        image = choose(images, wanted.target, wanted.platform, wanted.exact)
        manifest, config = image.manifest, image.config
        if len(manifest.layers) != len(config.diff_ids):
            raise ArchiveInvalid("a manifest and its config have different numbers of layers")
        if manifest.config.size != len(config.raw):
            raise DigestMismatch("a config has another size than its manifest says")
        kept = self._blobs.documents()
        sizes = {**{digest: len(data) for digest, data in kept.items()}, **self._sizes}
        placed = {x.digest: blob for x in manifest.layers if (blob := self._blobs.placed(x.digest))}
        sizes |= {digest: blob.size for digest, blob in placed.items()}
        for layer in manifest.layers:
            self._check(layer, sizes)
        if len(placed) == len(set(manifest.layers)):
            receiver.announce(manifest, config.diff_ids, wanted.names)
        for layer, diff_id in zip(manifest.layers, config.diff_ids, strict=True):
            blob = placed.get(layer.digest)
            if blob and not _send_placed(receiver, blob, layer.digest, diff_id):
                return None
        for digest in dict.fromkeys((*(layer.digest for layer in manifest.layers), config.digest)):
            if digest in kept and digest not in self._skipped and digest not in self._sizes:
                writer = receiver.blob(len(kept[digest]), digest)
                writer.write(kept[digest])
                writer.finish(digest)
        raws = (_pinned_index(name, image, kept) for name in wanted.names)
        indexes = {Digest.of(raw): raw for raw in raws if raw is not None}
        known = {**self._plain_sizes, **sizes}
        plain = {d: known[d] for d in config.diff_ids if d in known and d not in kept}
        content = ImageContent(manifest, config, wanted.names, image.platform, indexes, plain)
        receiver.image(content)
        return content

    def _check(self, layer: Descriptor, sizes: Mapping[Digest, int]) -> None:
        self._blobs.by_digest(layer.digest)
        if layer.digest in self._skipped and layer.digest not in self._sizes:
            return
        if layer.digest not in sizes:
            foreign, hint = "", "save it again; it may be incomplete"
            if layer.is_foreign:
                foreign = ", which is a foreign one"
                hint = "save the image with a tool that keeps foreign layers, such as docker save"
            raise ArchiveInvalid(f"the archive lacks the layer {layer.digest}{foreign}", hint=hint)
        if (size := sizes[layer.digest]) != layer.size:
            raise DigestMismatch(f"the layer {layer.digest} has {size} bytes, not {layer.size}")


def _send_placed(receiver: Receiver, blob: Blob, digest: Digest, diff_id: Digest) -> bool:
    """Send a layer of an archive that is a file; return False if no node reads any more."""
    assert blob.place is not None  # noqa: S101 - see `Blobs.placed`
    if not receiver.lacks(digest, diff_id):
        return receiver.is_open
    file, offset = blob.place
    if receiver.place(file, offset, blob.size, digest):
        return receiver.is_open
    chunks = read_at(file, offset, blob.size)
    return _write(receiver, blob.size, chunks, digest, diff_id) is not None


def _write(
    receiver: Receiver,
    size: int,
    chunks: Iterable[Chunk],
    digest: Digest | None = None,
    diff_id: Digest | None = None,
) -> Digest | None:
    """Write a blob; return its digest, or None if no node reads any more."""
    writer = receiver.blob(size, digest, diff_id)
    try:
        for chunk in chunks:
            writer.write(chunk)
            if not receiver.is_open:
                return None
        return writer.finish(digest)
    finally:
        writer.abandon()
