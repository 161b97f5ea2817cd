"""Which layers of an image nodes lack."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from imgload.oci.digest import Digest, chain_ids


def missing_layers(diff_ids: Sequence[Digest], snapshots: Iterable[frozenset[Digest]]) -> list[int]:
    """Return the places of the layers that at least one node lacks, bottom up.

    What counts is the chain ID: the same layer upon another parent is another snapshot.

    Args:
        diff_ids: the image's layers.
        snapshots: the chain IDs that each node has unpacked.

    """
    chains = chain_ids(tuple(diff_ids))
    there = list(snapshots)
    return [i for i, chain in enumerate(chains) if any(chain not in node for node in there)]


def layers_everywhere(
    diff_ids: Sequence[Digest], snapshots: Iterable[frozenset[Digest]]
) -> frozenset[Digest]:
    """Return the diff IDs that no node lacks at any place where the image has them."""
    missing = {diff_ids[place] for place in missing_layers(diff_ids, snapshots)}
    return frozenset(diff_ids) - missing
