"""One image under one name."""

from __future__ import annotations

import attrs

from imgload.oci.digest import Digest
from imgload.oci.platform import Platform
from imgload.oci.reference import pinned


@attrs.frozen
class Image:
    """An image to load under one name.

    Args:
        name: full name, as containerd stores it and as the kubelet resolves a pod spec's name.
        target: digest by which the source identifies the image.
        image_id: digest of the config; None if it becomes known only during the transfer.
        diff_ids: of its layers, bottom up.
        platform: of the image.
        size: bytes, as counted by the source.
        source: name of the source, for the report.

    """

    name: str
    target: Digest
    image_id: Digest | None
    diff_ids: tuple[Digest, ...]
    platform: Platform
    size: int
    source: str

    @property
    def pin(self) -> Digest | None:
        """The manifest digest that the name demands, or None."""
        return pinned(self.name)
