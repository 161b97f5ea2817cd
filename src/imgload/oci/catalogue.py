"""The catalogue of an archive, whichever tool saved it: images and other entries.

Three formats exist: the docker-archive (``manifest.json``; layers named by ID in Docker up to 24
and Podman), the OCI layout (``index.json``, image-layout.md), and both, from Docker 25 on. The two
halves of such an archive complete each other, joined by the digests of configs. Docker's
graphdriver store indexes only one of several images saved by ID (moby #51389), and in 25.0.0 lists
no layers or lists them in another order (moby #47065, #47150).
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from itertools import zip_longest
from typing import Any

import attrs

from imgload.core.compression import Compression
from imgload.core.errors import (
    ArchiveInvalid,
    DigestMismatch,
    NotAnImage,
    PlatformMissing,
    SourceError,
)
from imgload.oci.digest import Digest
from imgload.oci.document import (
    IMAGE_NAME,
    LAYER,
    MAX_LAYERS,
    MAX_MANIFESTS,
    REF_NAME,
    Artifact,
    Descriptor,
    ImageConfig,
    Index,
    Manifest,
    config_type,
    is_document_type,
    is_manifest_type,
    layer_type,
    load_json,
    parse_listed,
)
from imgload.oci.members import (
    Blob,
    Blobs,
    claimed_digest,
    digits_of,
    other_digest,
    sha256_of,
)
from imgload.oci.platform import ANY_PLATFORM, Platform
from imgload.oci.tar import Member

_MAX_NESTING = 4
_MOST_LAYERS = 50_000


@attrs.frozen
class ArchivedImage:
    """An image of an archive.

    Args:
        manifest: as in the archive, corrected, or built; its sizes are guesses if layers of a
            docker-archive were skipped.
        config: its config.
        names: from every place of the archive; some may be no valid names.
        indexes: the digests of the indexes above the manifest.
        listed: its platform in an index, which its config may lack.
        absent: platforms of the same index without content.
        layers_named: whether the paths of layers contain their digests, so that some can be
            skipped.
        listed_manifest: the digest of the archive's own manifest.
        correction: why `manifest` is not the archive's own; empty if it is.
        absent_layers: the layers that are not in the archive, by diff ID; with the reason if the
            archive has other content in the place of a layer.

    """

    manifest: Manifest
    config: ImageConfig
    names: tuple[str, ...] = ()
    indexes: tuple[Digest, ...] = ()
    listed: Platform | None = None
    absent: frozenset[Platform] = frozenset()
    layers_named: bool = True
    listed_manifest: Digest | None = None
    correction: str = ""
    absent_layers: Mapping[Digest, str] = attrs.field(factory=dict)

    @property
    def platform(self) -> Platform:
        return self.listed or self.config.platform

    @property
    def digests(self) -> frozenset[Digest]:
        """The digests of its config, its manifest, and the indexes above it."""
        own = (self.config.digest, self.manifest.digest, self.listed_manifest)
        return frozenset(filter(None, (*own, *self.indexes)))


@attrs.frozen
class Unusable:
    """An entry of an archive that cannot be loaded: a damaged image, or no image (NotAnImage)."""

    names: tuple[str, ...]
    digests: frozenset[Digest]
    error: SourceError
    platform: Platform | None = None


@attrs.frozen
class Catalogue:
    """The images of an archive, and its other entries.

    `tags` are tags without a repository, with the digest of their entry: skopeo, umoci, oras and
    Buildah give them to the images of a layout.
    """

    images: tuple[ArchivedImage, ...]
    unusable: tuple[Unusable, ...] = ()
    tags: tuple[tuple[str, Digest], ...] = ()


def scan(archive: Iterable[bytes]) -> Catalogue:
    """Return the catalogue of an archive, whose layers are skipped if it is `tar.Seekable`."""
    blobs = Blobs()
    blobs.read(archive, _skip)
    return catalogue_of(blobs)


def _skip(member: Member, compression: Compression, chunks: Iterator[memoryview]) -> Blob:
    digest = sha256_of(chunks) if other_digest(member.path) else None
    return Blob(digest, member.size, compression)


def catalogue_of(blobs: Blobs) -> Catalogue:
    """Return the catalogue of an archive that was read to its end.

    ArchiveInvalid is raised if it is no image archive, or exceeds a limit.
    """
    index, docker_list = blobs.get("index.json"), blobs.get("manifest.json")
    if index is None and docker_list is None:
        raise ArchiveInvalid(
            "not an image archive: it has neither manifest.json nor index.json",
            hint="make one with: docker save IMAGE -o FILE, or podman save IMAGE -o FILE; make an"
            " image of a root file system with: docker import FILE IMAGE",
        )
    layout, docker = _Layout(blobs), _DockerList(blobs)
    listed: Sequence[_Listed] = ()
    failure: ArchiveInvalid | None = None
    try:
        listed = tuple(layout.read(index)) if index else ()
    except ArchiveInvalid as error:
        failure = error
    try:
        images = tuple(docker.read(docker_list)) if docker_list else ()
    except ArchiveInvalid as error:
        failure, images = failure or error, ()
    if failure and not (listed or images):
        raise failure
    joined = tuple(_join(listed, images, docker.unusable))
    return Catalogue(
        _merge(image for image in joined if isinstance(image, ArchivedImage)),
        (*layout.unusable, *docker.unusable, *(x for x in joined if isinstance(x, Unusable))),
        tuple(layout.tags),
    )


def choose(
    catalogue: Catalogue,
    target: Digest,
    platform: Platform | None,
    exact: Sequence[Digest] = (),
) -> ArchivedImage:
    """Return the image with a digest and a platform; see `Wanted` for the arguments."""
    for digest in exact:
        for image in catalogue.images:
            if digest in {image.manifest.digest, image.config.digest, image.listed_manifest}:
                return image
    named = [image for image in catalogue.images if target in image.digests]
    if not named:
        errors = (entry.error for entry in catalogue.unusable if target in entry.digests)
        raise next(errors, ArchiveInvalid(f"the archive does not have the image {target}"))
    for accepted in (platform, ANY_PLATFORM):
        for image in named:
            if accepted in {None, image.platform}:
                return image
    available = ", ".join(sorted({str(image.platform) for image in named}))
    raise PlatformMissing(
        f"the image has no {platform}; it has {available}",
        hint="build it for that platform, or choose another one with --platform",
    )


_Listed = tuple[ArchivedImage, str]
"""An image of an index, and how its manifest contradicts its config; empty if it does not."""


@attrs.define(eq=False, repr=False)
class _Layout:
    """Reads the indexes of an OCI layout; an image may be listed several times."""

    blobs: Blobs
    unusable: list[Unusable] = attrs.field(factory=list)
    tags: list[tuple[str, Digest]] = attrs.field(factory=list)
    _entries: int = 0
    _images: dict[Digest, _Listed] = attrs.field(factory=dict)
    """Images by their manifests, without names."""

    def read(self, index: Blob) -> Iterator[_Listed]:
        if index.data is None:
            raise ArchiveInvalid("index.json is too large to be an image index")
        return self._walk(Index.parse(index.data))

    def _walk(
        self, index: Index, above: tuple[Digest, ...] = (), names: tuple[str, ...] = ()
    ) -> Iterator[_Listed]:
        if len(above) > _MAX_NESTING or index.digest in above:
            raise ArchiveInvalid("the archive's indexes are nested without end")
        above = (*above, index.digest)
        self._count(len(index.malformed))
        for notes, error in index.malformed:
            self.unusable.append(Unusable(names or _names(notes), frozenset(above[-1:]), error))
        images: list[_Listed] = []
        absent: dict[tuple[str, ...], list[Descriptor]] = {}
        for entry in index.manifests:
            self._count(1)
            if not entry.is_attestation:
                own_names = names or _names(entry.annotations)
                if not own_names and REF_NAME in entry.annotations:
                    self.tags.append((entry.annotations[REF_NAME], entry.digest))
                found = self._read_entry(entry, above, own_names)
                if found is None:
                    absent.setdefault(own_names, []).append(entry)
                images += found or []
        for own_names in absent.keys() - {image.names for image, _ in images}:
            for entry in absent[own_names]:
                lacking = ArchiveInvalid(f"the archive lacks its content ({entry.digest})")
                digests = frozenset((entry.digest, *above[1:]))
                self.unusable.append(Unusable(own_names, digests, lacking, entry.platform))
        for image, contradiction in images:
            others = {e.platform for e in absent.get(image.names, ()) if e.platform}
            yield attrs.evolve(image, absent=image.absent | others), contradiction

    def _read_entry(
        self, entry: Descriptor, above: tuple[Digest, ...], names: tuple[str, ...]
    ) -> list[_Listed] | None:
        """Return the images of an entry; None if its content is absent (kind #3795)."""
        digests = {entry.digest, *above[1:]}
        try:
            document = self._parse(entry)
            listed = None
            if isinstance(document, Manifest):
                digests.add(document.config.digest)
                listed = self._image(document)
        except (ArchiveInvalid, DigestMismatch, NotAnImage) as error:
            self.unusable.append(Unusable(names, frozenset(digests), error, entry.platform))
            return []
        if isinstance(document, Index):
            return list(self._walk(document, above, names))
        if listed is None:
            return None
        _limit_layers(sum(len(image.manifest.layers) for image, _ in self._images.values()))
        image, contradiction = listed
        named = attrs.evolve(image, names=names, indexes=above, listed=entry.platform)
        return [(named, contradiction)]

    def _count(self, entries: int) -> None:
        self._entries += entries
        if self._entries > MAX_MANIFESTS:
            raise ArchiveInvalid(f"the archive's indexes have over {MAX_MANIFESTS} entries")

    def _parse(self, entry: Descriptor) -> Manifest | Index | None:
        """Parse the document of an entry; None if it is absent."""
        blob = self.blobs.by_digest(entry.digest)
        if blob is None:
            return None
        if blob.data is None and not is_document_type(entry.media_type):
            raise _not_an_image(Artifact.of(entry.media_type))
        if blob.data is None:
            raise ArchiveInvalid("its manifest is not a JSON document")
        document = self.blobs.parsed(blob, parse_listed)
        if isinstance(document, Artifact):
            raise _not_an_image(document)
        return document

    def _image(self, manifest: Manifest) -> _Listed | None:
        """Return the image of a manifest; None if its config is absent."""
        if manifest.digest in self._images:
            return self._images[manifest.digest]
        blob = self.blobs.by_digest(manifest.config.digest)
        if blob is None:
            return None
        if blob.data is None:
            raise ArchiveInvalid("its config is not a JSON document")
        config = self.blobs.parsed(blob, ImageConfig.parse)
        if manifest.layers and not config.diff_ids and not config.has_rootfs:
            raise _not_an_image(Artifact("artifact", "a config without layers"))
        right, correction = _correct(self.blobs, manifest, config)
        image = ArchivedImage(
            right,
            config,
            listed_manifest=manifest.digest,
            correction=correction,
            absent_layers=_absent_layers(self.blobs, manifest, right, config),
        )
        self._images[manifest.digest] = image, _contradiction(right, config)
        return self._images[manifest.digest]


def _not_an_image(artifact: Artifact) -> NotAnImage:
    article = "an" if artifact.kind.startswith("a") else "a"
    kind = "not an image" if artifact.kind == "unknown" else f"{article} {artifact.kind}"
    hint = "load the image that it describes: docker save IMAGE | imgload load --from -"
    if artifact.kind in {"artifact", "unknown"}:
        hint = "copy its files into an image (FROM scratch, COPY . /), and load that"
    return NotAnImage(f"it is {kind}: {artifact.type:.200}", hint=hint, content=artifact.kind)


def _names(annotations: Mapping[str, str]) -> tuple[str, ...]:
    """Return the name of an entry; a bare tag is no name (ctr makes up import-DATE for it)."""
    name, reference = annotations.get(IMAGE_NAME, ""), annotations.get(REF_NAME, "")
    if name and reference and ":" not in name.rpartition("/")[2] and not {":", "/"} & {*reference}:
        return (f"{name}:{reference}",)
    return (name,) if name else (reference,) if {":", "/"} & {*reference} else ()


def _limit_layers(count: int) -> None:
    if count > _MOST_LAYERS:
        raise ArchiveInvalid(f"the archive's images have more than {_MOST_LAYERS} layers")


def _correct(blobs: Blobs, manifest: Manifest, config: ImageConfig) -> tuple[Manifest, str]:
    """Return a manifest with the sizes and media types of its blobs, and why it was changed.

    Tools count characters instead of bytes (rules_oci), or describe a config before they change it
    (go-containerregistry #1725). containerd stores blobs by sha256 only.
    """
    expected = config.diff_ids if len(config.diff_ids) == len(manifest.layers) else ()
    layers = tuple(
        _described(blobs, layer, diff_id, expected)
        for layer, diff_id in zip_longest(manifest.layers, expected)
    )
    kind = config_type(manifest.config.media_type)
    right = Descriptor(kind, config.digest, len(config.raw))
    changes = [
        _change(old, new)
        for old, new in zip((manifest.config, *manifest.layers), (right, *layers), strict=True)
        if (old.digest, old.size, old.media_type) != (new.digest, new.size, new.media_type)
    ]
    if not is_manifest_type(manifest.media_type):
        changes.append(f"its media type is {manifest.media_type:.100}")
    return (Manifest.build(config, layers), changes[0]) if changes else (manifest, "")


def _described(
    blobs: Blobs, layer: Descriptor, diff_id: Digest | None, expected: Collection[Digest]
) -> Descriptor:
    """Return the blob of a layer as it is, or the right blob if it has other content.

    The digest of an uncompressed layer is its diff ID; tools write one empty blob for several
    layers (pack #2490).
    """
    blob = blobs.by_digest(layer.digest)
    is_plain = (blob and not blob.compression) or layer.digest in expected
    if diff_id and is_plain and diff_id not in {layer.digest, blob and blob.digest}:
        return _plain_layer(blobs, diff_id)
    if blob is None:
        return layer
    digest = layer.digest
    if digest.algorithm != "sha256" and blob.digest:
        digest = blob.digest
        blobs.add_layer(digest, blob)
    kind = layer_type(layer.media_type, blob.compression)
    return attrs.evolve(layer, media_type=kind, digest=digest, size=blob.size)


def _change(old: Descriptor, new: Descriptor) -> str:
    if old.digest.algorithm != new.digest.algorithm:
        return f"containerd does not support the digest {old.digest}"
    if old.digest != new.digest:
        return f"it has the layer {old.digest} where its config has {new.digest}"
    if old.size != new.size:
        return f"it declares {old.size} bytes for {old.digest}, which has {new.size}"
    declared = old.media_type or "no media type"
    return f"it declares {declared:.100} for {old.digest}, which is {new.media_type}"


def _plain_layer(blobs: Blobs, diff_id: Digest) -> Descriptor:
    """Describe the uncompressed blob of a layer; if it is absent, the nodes may have it."""
    blob = blobs.layer(diff_id)
    return Descriptor(LAYER, diff_id, blob.size if blob else 0)


def _contradiction(manifest: Manifest, config: ImageConfig) -> str:
    """Return how a manifest contradicts its config by the number of layers; empty if not."""
    layers, diff_ids = manifest.layers, config.diff_ids
    if len(layers) == len(diff_ids):
        return ""
    return f"its manifest has {len(layers)} layers, and its config {len(diff_ids)}"


def _absent_layers(
    blobs: Blobs, listed: Manifest, right: Manifest, config: ImageConfig
) -> Mapping[Digest, str]:
    """Return the absent layers as in `ArchivedImage`, of a manifest as listed and as corrected."""
    layers = zip(listed.layers, right.layers, config.diff_ids, strict=False)
    return {
        diff_id: _other_content(old.digest) if blobs.layer(old.digest) else ""
        for old, new, diff_id in layers
        if not blobs.layer(new.digest)
    }


def _other_content(content: Digest | str) -> str:
    return f"the archive has {content} in its place"


@attrs.define(eq=False, repr=False)
class _DockerList:
    """Reads ``manifest.json`` and ``repositories``."""

    blobs: Blobs
    unusable: list[Unusable] = attrs.field(factory=list)

    def read(self, listing: Blob) -> Iterator[ArchivedImage]:
        layers, names = 0, _names_by_layer(self.blobs)
        entries = _docker_entries(listing.data or b"")
        tops = Counter(map(_top_layer, entries))
        for entry in entries:
            paths = entry.get("Layers")
            layers += len(paths) if isinstance(paths, list) else 0
            _limit_layers(layers)
            own_names: tuple[str, ...] = ()
            config: ImageConfig | None = None
            try:
                own_names = _strings(entry.get("RepoTags"), MAX_MANIFESTS)
                config = self._config(entry.get("Config"))
                image = self._image(config, _strings(paths, MAX_LAYERS))
            except (ArchiveInvalid, DigestMismatch) as error:
                digests = frozenset([config.digest] if config else [])
                self.unusable.append(Unusable(own_names, digests, error))
                continue
            top = _top_layer(entry)
            if not own_names and tops[top] == 1:
                own_names = tuple(names.get(top, ()))
            yield attrs.evolve(image, names=own_names)

    def _config(self, path: object) -> ImageConfig:
        if not isinstance(path, str):
            raise ArchiveInvalid("manifest.json names no config")
        blob = self.blobs.get(path)
        if blob is None or blob.data is None:
            raise ArchiveInvalid(f"the archive lacks its config {path!r:.200}")
        return self.blobs.parsed(blob, ImageConfig.parse)

    def _image(self, config: ImageConfig, paths: tuple[str, ...]) -> ArchivedImage:
        if len(paths) != len(config.diff_ids):
            raise ArchiveInvalid(
                f"manifest.json has {len(paths)} layers, and its config {len(config.diff_ids)}"
            )
        pairs = list(zip(paths, config.diff_ids, strict=True))
        uses = Counter(id(self.blobs.get(path)) for path, _ in dict.fromkeys(pairs))
        layers = [
            self._layer(path, diff_id, is_shared=uses[id(self.blobs.get(path))] > 1)
            for path, diff_id in pairs
        ]
        absent = {
            diff_id: _other_content(f"{path!r:.200}") if self.blobs.get(path) else ""
            for (path, diff_id), layer in zip(pairs, layers, strict=True)
            if not self.blobs.layer(layer.digest)
        }
        named = {digits_of(path) for path in paths} <= {digest.hex for digest in config.diff_ids}
        manifest = Manifest.build(config, tuple(layers))
        return ArchivedImage(manifest, config, layers_named=named, absent_layers=absent)

    def _layer(self, path: str, diff_id: Digest, *, is_shared: bool) -> Descriptor:
        """Return a layer by its path; if it `is_shared`, the file stands for several layers."""
        blob = self.blobs.get(path)
        if blob is None:
            return _plain_layer(self.blobs, diff_id)
        claimed = Digest.try_parse(f"sha256:{digits_of(path)}") if is_shared else diff_id
        digest = blob.digest or claimed_digest(path) or claimed
        if not blob.compression and digest != diff_id:
            return _plain_layer(self.blobs, diff_id)
        digest = digest or diff_id
        self.blobs.add_layer(digest, blob)
        suffix = f"+{blob.compression}" if blob.compression else ""
        return Descriptor(LAYER + suffix, digest, blob.size)


def _docker_entries(raw: bytes) -> list[dict[str, Any]]:
    try:
        entries = load_json(raw)
    except ValueError as error:
        raise ArchiveInvalid(f"manifest.json is not valid JSON: {error}") from error
    if isinstance(entries, dict) and "schemaVersion" in entries:
        raise ArchiveInvalid(
            "manifest.json is that of a dir: folder, which no tool loads as a tar",
            hint="unpack it, and load the folder: mkdir images && tar -xf FILE -C images"
            " && imgload load --from images",
        )
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
    if not isinstance(value, list) or len(value) > limit or not all(map(_is_string, value)):
        raise ArchiveInvalid("manifest.json is malformed")
    return tuple(value)


def _is_string(value: object) -> bool:
    return isinstance(value, str)


def _top_layer(entry: Mapping[str, Any]) -> str:
    """Return the name of an image's top layer, as in ``repositories``."""
    paths = entry.get("Layers")
    top = str(paths[-1]) if isinstance(paths, list) and paths else ""
    return digits_of(top.removesuffix("/layer.tar"))


def _names_by_layer(blobs: Blobs) -> Mapping[str, list[str]]:
    """Return the names in ``repositories``, by the name of the top layer."""
    names: dict[str, list[str]] = {}
    blob = blobs.get("repositories")
    try:
        repositories = load_json(blob.data or b"") if blob else {}
    except ValueError:
        return names
    for repository, tags in repositories.items() if isinstance(repositories, dict) else ():
        for tag, layer in tags.items() if isinstance(tags, dict) else ():
            names.setdefault(str(layer), []).append(f"{repository}:{tag}")
    return names


def _join(
    listed: Sequence[_Listed], images: Sequence[ArchivedImage], damaged: Sequence[Unusable]
) -> Iterator[ArchivedImage | Unusable]:
    """Join the images of an index with those of ``manifest.json``, by their configs.

    `damaged` are further entries of ``manifest.json``, whose names count.
    """
    by_config = {image.config.digest: image for image in _merge(images)}
    further = {digest: image.names for digest, image in by_config.items()}
    for entry in damaged:
        further |= {d: (*further.get(d, ()), *entry.names) for d in entry.digests}
    children = {image.manifest.digest for image, _ in listed if len(image.indexes) > 1}
    names: dict[object, dict[str, None]] = {}
    for image, _ in listed:
        own_names = (*image.names, *further.get(image.config.digest, ()))
        names.setdefault(_top(image), {}).update(dict.fromkeys(own_names))
    for image, contradiction in listed:
        if not image.names and len(image.indexes) == 1 and image.manifest.digest in children:
            continue
        own = attrs.evolve(image, names=tuple(names[_top(image)]))
        other = by_config.get(image.config.digest)
        problem = contradiction or _other_order(image, other)
        if problem and other:
            yield attrs.evolve(
                own,
                manifest=other.manifest,
                layers_named=other.layers_named,
                absent_layers=other.absent_layers,
                correction=problem,
            )
        elif problem:
            digests = own.digests - {*own.indexes[:1]}
            yield Unusable(own.names, digests, ArchiveInvalid(problem), own.platform)
        else:
            yield own
    known = {image.config.digest for image, _ in listed}
    yield from (image for digest, image in by_config.items() if digest not in known)


def _other_order(image: ArchivedImage, listed: ArchivedImage | None) -> str:
    """Describe that ``manifest.json`` has the same layers in another order: the right one."""
    ours, theirs = ([x.digest for x in i.manifest.layers] if i else [] for i in (image, listed))
    is_other = ours != theirs and sorted(ours) == sorted(theirs)
    return "manifest.json has its layers in another order" if is_other else ""


def _top(image: ArchivedImage) -> object:
    """Identify the images that have the same names: those of an index below ``index.json``."""
    return image.indexes[1:2] or (image.manifest.digest, image.names)


def _merge(images: Iterable[ArchivedImage]) -> tuple[ArchivedImage, ...]:
    """Return each image once, with all of its names."""
    merged: dict[object, ArchivedImage] = {}
    for image in images:
        key = image.manifest.digest, image.indexes, image.listed
        first = merged.setdefault(key, image)
        names = dict.fromkeys((*first.names, *image.names))
        merged[key] = attrs.evolve(first, names=tuple(names))
    return tuple(merged.values())
