"""Deep verification: hashes every blob of an image on a node again.

containerd verifies a blob only when it receives it. It does not notice if a full disk, a crash or a
user changes the blob later, and serves it unchecked. Docker and CRI-O recreate their layers.
"""

from __future__ import annotations

import attrs

from imgload.clusters.nodes.base import NodeRuntime
from imgload.core.errors import ImgloadError, NotVerified
from imgload.loader.report import NodeResult


def verify_blobs(node: NodeRuntime, name: str, result: NodeResult) -> NodeResult:
    """Add to the result of the other checks that of hashing the blobs of a name's image.

    A failed result stays as it is. A node need not store the blobs of unpacked layers (CRI's
    setting ``discard_unpacked_layers``): then the result's content is partial.
    """
    if not result.ok or result.proof is None:
        return result
    try:
        damaged = node.damaged_blobs(name)
    except ImgloadError as error:
        return attrs.evolve(result, error=error)
    refusal = None
    if damaged:
        refusal = NotVerified(
            f"{node.name} has {name} with damaged content: {' '.join(map(str, damaged))}",
            hint=node.repair_hint(name, damaged),
            node=node.name,
            image=name,
        )
    proof = attrs.evolve(result.proof, content=not damaged)
    return attrs.evolve(result, proof=proof, error=refusal)
