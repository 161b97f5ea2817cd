"""Programs that make clusters of containers, known by the labels that they give these."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import NamedTuple

import attrs

from imgload.clusters.nodes.runtime import CONTAINERD, Runtime
from imgload.engines.base import Container, Engine


class Member(NamedTuple):
    """A container that is a node, and of which cluster."""

    cluster: str
    role: str
    container: Container


@attrs.frozen
class Tool:
    """A program that makes clusters.

    Args:
        name: the program's.
        label: which all its containers have, ``key`` or ``key=value``.
        context_prefix: what the kube context of a cluster has before the cluster's name.
        members: which of the containers with the label are nodes.
        runtime: where containerd is in them.

    """

    name: str
    label: str
    context_prefix: str
    members: Callable[[Sequence[Container]], Iterator[Member]]
    runtime: Runtime = CONTAINERD

    def find(self, engine: Engine) -> dict[str, list[Member]]:
        """Return the nodes of each cluster that an engine runs, stopped ones too."""
        clusters: dict[str, list[Member]] = {}
        containers = sorted(engine.containers(self.label), key=lambda c: c.name)
        for member in self.members(containers):
            clusters.setdefault(member.cluster, []).append(member)
        return clusters
