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
        name: as containerd keeps it, and as a pod spec's name is resolved to.
        target: the digest that the source knows it by.
        image_id: digest of the config; None where only the transfer will tell.
        diff_ids: its layers, bottom up.
        platform: what it runs on.
        size: bytes, as the source counts them.
        source: the name of the source, for the report.

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
