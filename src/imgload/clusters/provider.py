"""Providers: programs that make clusters of containers, such as kind."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from typing import ClassVar, NamedTuple

from imgload.clusters.nodes.runtime import CONTAINERD, Containerd
from imgload.engines.base import Container, ContainerHost


class NodeContainer(NamedTuple):
    """A container that is a node, the name of its cluster, and its role there."""

    cluster: str
    role: str
    container: Container


class ClusterProvider(ABC):
    """A program that makes clusters whose nodes are containers.

    To support another program, subclass this and pass an instance to `register`.

    Attributes:
        name: the program's name.
        label: a label that all its nodes have, ``key`` or ``key=value``.
        context_prefix: precedes the cluster's name in the name of its kube context; may be empty.
        runtime: where containerd is on its nodes.

    """

    name: ClassVar[str]
    label: ClassVar[str]
    context_prefix: ClassVar[str] = ""
    runtime: ClassVar[Containerd] = CONTAINERD

    @abstractmethod
    def nodes(self, containers: Sequence[Container]) -> Iterator[NodeContainer]:
        """Yield the nodes among the containers that have the label, in the same order.

        A container inherits its image's labels, so labels alone prove nothing. An image cannot
        choose its container's name: check that as well.
        """

    def owns_context(self, context: str) -> bool:
        """Return whether a kube context is named like those of this provider's clusters."""
        return self.context_prefix != "" and context.startswith(self.context_prefix)

    def absence_hint(self, context: str | None) -> str:  # noqa: ARG002 - for subclasses
        """Return how to load where no engine runs the cluster of a kube context; may be empty.

        Args:
            context: the kube context, None where it does not matter.

        """
        return ""

    def find(self, engine: ContainerHost) -> dict[str, list[NodeContainer]]:
        """Return the nodes of each cluster on an engine, stopped ones too, sorted by name."""
        clusters: dict[str, list[NodeContainer]] = {}
        for node in self.nodes(sorted(engine.containers(self.label), key=lambda c: c.name)):
            clusters.setdefault(node.cluster, []).append(node)
        return clusters


_PROVIDERS: list[ClusterProvider] = []


def register(provider: ClusterProvider) -> None:
    """Have imgload look for the clusters of a provider, after those of earlier ones."""
    _PROVIDERS.append(provider)


def providers() -> tuple[ClusterProvider, ...]:
    """Return the registered providers, in their order."""
    return tuple(_PROVIDERS)
