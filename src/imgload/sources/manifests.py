"""Selects an image's manifest among the pushed documents."""

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

    Other processes may have pushed too, so no other property identifies the image's manifest.

    Args:
        pushed: documents by digest.
        image: as the engine reports it.

    """
    reported = _parsed(pushed[digest] for digest in _reported(pushed, image))
    manifests = [m for m in reported if len(m.layers) == len(image.diff_ids)]
    return manifests[0] if len(manifests) == 1 else None


def documents_for(pushed: Mapping[Digest, bytes], image: Image) -> dict[Digest, bytes]:
    """Return the pushed documents that a registry needs: children first, the image itself last.

    Empty if the image itself was not pushed.
    """
    if not image.stored:
        config = str(image.image_id).encode()
        raws = [raw for raw in pushed.values() if image.image_id and config in raw]
        tops = [m.digest for m in _parsed(raws) if m.config.digest == image.image_id]
        return {tops[0]: pushed[tops[0]]} if len(tops) == 1 else {}
    top = image.target if image.target in pushed else image.manifest_digest
    if top is None or top not in pushed:
        return {}
    wanted = [top]
    for digest in wanted:  # grows: an index may list others
        document = parse_json(pushed[digest], "a manifest")
        if "manifests" in document:
            listed = (entry.digest for entry in Index.parse(pushed[digest]).manifests)
            wanted += [child for child in listed if child in pushed and child not in wanted]
    return {digest: pushed[digest] for digest in reversed(wanted)}


def _parsed(raws: Iterable[bytes]) -> Iterator[Manifest]:
    """Yield the image manifests; an index may list others, such as artifacts and indexes."""
    for raw in raws:
        with suppress(ArchiveInvalid):
            yield Manifest.parse(raw)


def _reported(pushed: Mapping[Digest, bytes], image: Image) -> Iterator[Digest]:
    """Yield the manifests that the engine reports, directly or through its index."""
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
    """Read a whole save to determine the image ID, if there is no cheaper way.

    Raises:
        SourceError: if the saved archive does not contain the image.

    """
    from imgload.oci.archive import choose  # noqa: PLC0415 - start-up
    from imgload.oci.scan import scan  # noqa: PLC0415

    with image.origin.save([image]) as archive:
        known = [image.manifest_digest] if image.manifest_digest else []
        manifest = choose(scan(archive), image.target, image.platform, known).manifest
    return attrs.evolve(image, manifest=manifest, image_id=manifest.config.digest)
