"""Digests (OCI image spec, descriptor.md#digests)."""

from __future__ import annotations

import hashlib
import re

import attrs

from imgload.core.errors import ArchiveInvalid

_DIGITS = {"sha256": 64, "sha384": 96, "sha512": 128, "blake3": 64}
"""Hexadecimal digits by algorithm; Python may lack blake3, whose digests are then invalid."""
_DIGEST = re.compile(
    "|".join(
        rf"{algorithm}:[0-9a-f]{{{count}}}"
        for algorithm, count in _DIGITS.items()
        if algorithm in hashlib.algorithms_available
    )
)


@attrs.frozen(order=True)
class Digest:
    """A content digest, valid by construction.

    Args:
        algorithm: ``sha256``, ``sha384``, ``sha512``, or ``blake3`` if Python has it.
        hex: the lower-case hexadecimal sum.

    Raises:
        ArchiveInvalid: if it is malformed.

    """

    algorithm: str
    hex: str

    def __attrs_post_init__(self) -> None:
        if not _DIGEST.fullmatch(str(self)):
            raise ArchiveInvalid(f"not a digest: {str(self)!r:.160}")

    @classmethod
    def parse(cls, text: object) -> Digest:
        """Parse ``algorithm:hex``."""
        if not isinstance(text, str):
            raise ArchiveInvalid(f"not a digest: {text!r:.80}")
        algorithm, _, value = text.partition(":")
        return cls(algorithm, value)

    @classmethod
    def try_parse(cls, text: object) -> Digest | None:
        """Parse ``algorithm:hex``; return None if it is malformed."""
        try:
            return cls.parse(text)
        except ArchiveInvalid:
            return None

    @classmethod
    def of(cls, data: bytes, algorithm: str = "sha256") -> Digest:
        """Return the digest of some bytes."""
        return cls(algorithm, hashlib.new(algorithm, data).hexdigest())

    @classmethod
    def from_engine_id(cls, text: str) -> Digest:
        """Parse an engine's image ID; Podman's lacks the ``sha256:``."""
        return cls.parse(text if ":" in text else f"sha256:{text}")

    @property
    def short(self) -> str:
        """The first twelve digits, as engines print image IDs."""
        return self.hex[:12]

    def __str__(self) -> str:
        return f"{self.algorithm}:{self.hex}"


def chain_ids(diff_ids: tuple[Digest, ...]) -> tuple[Digest, ...]:
    """Return the chain ID of each layer, bottom up (OCI image spec, config.md#layer-chainid).

    containerd stores an unpacked snapshot under the chain ID of its top layer.
    """
    chain: list[Digest] = []
    for diff_id in diff_ids:
        chain.append(Digest.of(f"{chain[-1]} {diff_id}".encode()) if chain else diff_id)
    return tuple(chain)
