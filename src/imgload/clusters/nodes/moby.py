"""A node whose pods run on Docker, which keeps its images in containerd.

Docker's containerd image store is a namespace of containerd, from which Docker reads its images for
each request. It names them as CRI does, so imgload reads and writes them with ctr as on other
nodes. Docker and cri-dockerd report the digest of a manifest as the ID of an image.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import ClassVar

import attrs

from imgload.clusters.nodes.base import PreviousNames
from imgload.clusters.nodes.batch import Output
from imgload.clusters.nodes.containerd import CTR, DANGLING
from imgload.clusters.nodes.docker import DockerNode
from imgload.clusters.nodes.node import Node
from imgload.clusters.nodes.survey import NodeTraits, Survey, SurveyQuery
from imgload.engines.base import Chunk

_KEEP = rf"""
ctr=$1 names=$2
shift 2
kept=
for name in $names; do
    row=$($ctr images ls "name==\"$name\"" </dev/null)
    target=$(printf %s "$row" | sed -n 's/.* \(sha256:[0-9a-f]*\) .*/\1/p')
    [ -n "$target" ] || continue
    $ctr images tag --force -- "$name" "{DANGLING}$target" </dev/null >/dev/null || exit
    kept="$kept $target"
done
"$@"
status=$?
for target in $kept; do
    if $ctr images ls -q "target.digest==$target" | grep -qv '^{DANGLING}'
    then $ctr images rm "{DANGLING}$target" >/dev/null; fi
done
exit $status
"""
"""Runs a command, after which an image that has lost its last name has the one that Docker gives to
such images; without a name, it would be deleted."""


@attrs.define(eq=False, repr=False)
class MobyNode(Node):
    """A node whose `runtime` is the containerd of its Docker."""

    runtime_name: ClassVar[str] = DockerNode.runtime_name

    def _read_survey(
        self, question: SurveyQuery, traits: NodeTraits, outputs: Sequence[Output]
    ) -> Survey:
        """Read a survey, in which CRI's image IDs are those of configs, and no label is CRI's."""
        traits = attrs.evolve(traits, runtime="Docker's containerd")
        survey = super()._read_survey(question, traits, outputs)
        cri = {}
        for name, answer in survey.cri.items():
            configs = survey.content.configs_under(answer.image_id) if answer.image_id else ()
            image_id = next(iter(configs)) if len(configs) == 1 else answer.image_id
            cri[name] = attrs.evolve(answer, image_id=image_id)
        return attrs.evolve(survey, cri=cri, not_in_cri=frozenset())

    def _change(
        self,
        command: Sequence[str],
        action: str,
        question: SurveyQuery,
        before: PreviousNames,
        stdin: Iterable[Chunk] | None = None,
    ) -> Survey:
        words = (" ".join(self.resolve_command(CTR)), " ".join(question.names))
        command = ("sh", "-c", _KEEP, "imgload", *words, *command)
        return super()._change(command, action, question, before, stdin)

    pins_images = DockerNode.pins_images
    pin_requirement = DockerNode.pin_requirement
    log_command = DockerNode.log_command
    list_command = DockerNode.list_command
