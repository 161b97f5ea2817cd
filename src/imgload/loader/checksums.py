"""The deep proof: what a node keeps of an image is read again, and hashed there.

containerd checks a blob when it comes, and never again: what a full disk, a crash or a hand has
changed since is unpacked and handed out as it is.
"""

from __future__ import annotations

import shlex
from collections.abc import Sequence

import attrs

from imgload.clusters.nodes.batch import Output
from imgload.clusters.nodes.containerd import content_of
from imgload.clusters.nodes.node import Node
from imgload.clusters.nodes.survey import Question, Survey
from imgload.core.errors import ImgloadError, NodeUnusable, NotProven
from imgload.loader.report import NodeResult
from imgload.oci.digest import Digest

_HASH = """
every=$1
shift
"$@" | sha256sum & work=$!
while sleep "$every" >/dev/null && now=$(cat /proc/$work/stat 2>/dev/null)
do [ "$now" = "$was" ] || echo; was=$now; done </dev/null 2>/dev/null & watch=$!
wait $work
status=$?
kill $watch
exit $status
"""
"""Says something now and then while sha256sum gets on: large blobs take minutes."""
SAY_SECONDS = 20.0


def deepened(node: Node, name: str, result: NodeResult) -> NodeResult:
    """Return a result with what reading the content again has shown; a failure stays what it is.

    Blobs that the node does not keep are not missed: unpacked layers do without (CRI's setting
    ``discard_unpacked_layers``, and a delta).

    Args:
        node: the node.
        name: of the image's record there.
        result: what was proven before.

    """
    if not result.ok or result.proof is None:
        return result
    try:
        damaged = _damaged(node, node.survey(Question((name,), ())), name)
    except ImgloadError as error:
        return attrs.evolve(result, error=error)
    proof = attrs.evolve(result.proof, content=not damaged)
    refusal = _refusal(node, name, damaged) if damaged else None
    return attrs.evolve(result, proof=proof, error=refusal)


def _damaged(node: Node, survey: Survey, name: str) -> list[Digest]:
    target = survey.records.get(name)
    blobs = sorted(survey.content.there_under(target), key=str) if target else []
    outputs = node.run_all([_hash_command(node, blob) for blob in blobs])
    return [b for b, out in zip(blobs, outputs, strict=True) if _hash(node, out) != b.hex]


def _hash_command(node: Node, blob: Digest) -> tuple[str, ...]:
    words = (f"{SAY_SECONDS:g}", *node.spelled(content_of(blob)))
    return ("sh", "-c", _HASH, "imgload", *words)


def _hash(node: Node, output: Output) -> str:
    if output.exit_status:
        raise NodeUnusable(f"{node.name}: sha256sum failed in it", hint="leave the deep proof out")
    return output.text.partition(" ")[0].strip()


def _refusal(node: Node, name: str, damaged: Sequence[Digest]) -> NotProven:
    blobs = shlex.join(map(str, damaged))
    return NotProven(
        f"{node.name} has {name} with damaged content: {blobs}",
        hint=f"{node.engine.name} exec {node.name} ctr -n k8s.io content rm {blobs},"
        " and load it again",
    )
