"""The manifest of an image among all that an engine has pushed for it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from imgload.oci.digest import Digest
from imgload.oci.document import Index, Manifest, parse_json
from imgload.sources.base import Found


def manifest_for(pushed: Mapping[Digest, bytes], image: Found) -> Manifest | None:
    """Return the one manifest among those pushed that is the image."""
    fitting = [m for m in _manifests_for(pushed, image) if len(m.layers) == len(image.diff_ids)]
    return fitting[0] if len(fitting) == 1 else None


def _manifests_for(pushed: Mapping[Digest, bytes], image: Found) -> Iterator[Manifest]:
    for digest, raw in pushed.items():
        document = parse_json(raw, "a manifest")
        if "config" in document and _is_for(digest, pushed, image):
            yield Manifest.parse(raw)


def _is_for(digest: Digest, pushed: Mapping[Digest, bytes], image: Found) -> bool:
    """Whether a manifest is listed for the image's platform, or by nothing at all."""
    indexes = [Index.parse(r) for r in pushed.values() if "manifests" in parse_json(r, "an index")]
    listed = [entry for index in indexes for entry in index.manifests if entry.digest == digest]
    return all(e.platform in {None, image.platform} and not e.is_attestation for e in listed)
