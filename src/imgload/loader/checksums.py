"""Deep verification: hashes every blob of an image on a node again.

containerd verifies a blob only when it receives it. It does not notice if a full disk, a crash or a
user changes the blob later, and serves it unchecked.
"""

from __future__ import annotations

import attrs

from imgload.clusters.nodes.base import NodeRuntime
from imgload.clusters.nodes.batch import keepalive_command
from imgload.clusters.nodes.containerd import content_command
from imgload.clusters.nodes.survey import SurveyQuery
from imgload.core.errors import ImgloadError, NodeUnusable, NotVerified
from imgload.loader.report import NodeResult
from imgload.oci.digest import Digest


def verify_blobs(node: NodeRuntime, name: str, result: NodeResult) -> NodeResult:
    """Add to the result of the other checks that of hashing the blobs of a name's image.

    A failed result stays as it is. A node need not store the blobs of unpacked layers (CRI's
    setting ``discard_unpacked_layers``): then the result's content is partial.
    """
    if not result.ok or result.proof is None:
        return result
    try:
        damaged = _damaged_blobs(node, name)
    except ImgloadError as error:
        return attrs.evolve(result, error=error)
    refusal = None
    if damaged:
        blobs = list(map(str, damaged))
        remove = node.exec_command("ctr", "-n", "k8s.io", "content", "rm", *blobs)
        refusal = NotVerified(
            f"{node.name} has {name} with damaged content: {' '.join(blobs)}",
            hint=f"{remove}, and load it again with --complete",
            node=node.name,
            image=name,
        )
    proof = attrs.evolve(result.proof, content=not damaged)
    return attrs.evolve(result, proof=proof, error=refusal)


def _damaged_blobs(node: NodeRuntime, name: str) -> list[Digest]:
    survey = node.survey(SurveyQuery((name,), ()))
    target = survey.records.get(name)
    blobs = sorted(survey.content.blobs_under(target), key=str) if target else []
    reads = [node.resolve_command(content_command(blob)) for blob in blobs]
    progress = "now=$(cat /proc/$work/stat 2>/dev/null)"  # of sha256sum: large blobs take minutes
    outputs = node.run_all([keepalive_command('"$@" | sha256sum', progress, *r) for r in reads])
    if any(output.exit_status for output in outputs):
        message = f"{node.name}: sha256sum failed in it"
        raise NodeUnusable(message, hint="verify without the deep check")
    sums = [output.text.partition(" ")[0].strip() for output in outputs]
    return [blob for blob, value in zip(blobs, sums, strict=True) if value != blob.hex]
