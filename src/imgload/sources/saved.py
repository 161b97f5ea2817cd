"""The manifest of an image out of what its source saves, where nothing else tells it."""

from __future__ import annotations

import attrs

from imgload.oci.archive import choose
from imgload.oci.scan import scan
from imgload.sources.base import Found, Source


def identified(source: Source, image: Found) -> Found:
    """Read a whole save for the sake of the image ID.

    Raises:
        SourceError: when what is saved is not the image.

    """
    with source.save([image]) as archive:
        known = [image.manifest_digest] if image.manifest_digest else []
        manifest = choose(scan(archive), image.target, image.platform, known).manifest
    return attrs.evolve(image, manifest=manifest, image_id=manifest.config.digest)
