"""The manifest of an image among all that was pushed for it."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from contextlib import suppress

import attrs

from imgload.core.errors import ArchiveInvalid
from imgload.oci.digest import Digest
from imgload.oci.document import Index, Manifest, parse_json
from imgload.sources.base import Image


def manifest_for(pushed: Mapping[Digest, bytes], image: Image) -> Manifest | None:
    """Return the manifest whose digest the engine reports, directly or through its index.

    Others than the engine may have pushed as well, so that nothing else makes a manifest the
    image's.

    Args:
        pushed: documents by their own digests.
        image: as the engine reports it.

    """
    found = _parsed(pushed[digest] for digest in _reported(pushed, image))
    fitting = [m for m in found if len(m.layers) == len(image.diff_ids)]
    return fitting[0] if len(fitting) == 1 else None


def documents_for(pushed: Mapping[Digest, bytes], image: Image) -> dict[Digest, bytes]:
    """Return what a registry needs of all that was pushed: children first, the image itself last.

    Empty when the image itself was not pushed.
    """
    if not image.stored:
        top = _only_of(pushed, image)
        return {top: pushed[top]} if top else {}
    top = image.target if image.target in pushed else image.manifest_digest
    if top is None or top not in pushed:
        return {}
    wanted = [top]
    for digest in wanted:  # grows: an index may list others
        document = parse_json(pushed[digest], "a manifest")
        if "manifests" in document:
            listed = (entry.digest for entry in Index.parse(pushed[digest]).manifests)
            wanted += [each for each in listed if each in pushed and each not in wanted]
    return {digest: pushed[digest] for digest in reversed(wanted)}


def _only_of(pushed: Mapping[Digest, bytes], image: Image) -> Digest | None:
    """Return the one manifest whose config the engine reports."""
    config = str(image.image_id).encode()
    raws = [raw for raw in pushed.values() if image.image_id and config in raw]
    found = [m.digest for m in _parsed(raws) if m.config.digest == image.image_id]
    return found[0] if len(found) == 1 else None


def _parsed(raws: Iterable[bytes]) -> Iterator[Manifest]:
    """Yield the image manifests; an index may list others, such as artifacts and indexes."""
    for raw in raws:
        with suppress(ArchiveInvalid):
            yield Manifest.parse(raw)


def _reported(pushed: Mapping[Digest, bytes], image: Image) -> Iterator[Digest]:
    """Yield the manifests that may be the image's, by what the engine reports."""
    top = pushed.get(image.target)
    if top is None:
        listed = [image.manifest_digest] if image.manifest_digest else []
    elif "config" in parse_json(top, "a manifest"):
        listed = [image.target]
    else:
        entries = [e for e in Index.parse(top).manifests if not e.is_attestation]
        listed = [e.digest for e in entries if e.platform in {None, image.platform}]
    for digest in dict.fromkeys(listed):
        if digest in pushed and image.manifest_digest in {None, digest}:
            yield digest


def identify_by_save(image: Image) -> Image:
    """Read a whole save for the sake of the image ID, where nothing else tells it.

    Raises:
        SourceError: when the image is not in what is saved.

    """
    from imgload.oci.archive import choose  # noqa: PLC0415 - start-up
    from imgload.oci.scan import scan  # noqa: PLC0415

    with image.origin.save([image]) as archive:
        known = [image.manifest_digest] if image.manifest_digest else []
        manifest = choose(scan(archive), image.target, image.platform, known).manifest
    return attrs.evolve(image, manifest=manifest, image_id=manifest.config.digest)
