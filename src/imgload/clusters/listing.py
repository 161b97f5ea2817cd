"""The clusters on all engines, for `imgload clusters`."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import attrs

from imgload.clusters.cluster import find_clusters
from imgload.clusters.kubeconfig import current_context
from imgload.clusters.provider import NodeContainer
from imgload.core.errors import JSON_VERSION, EngineError, error_json
from imgload.engines.base import ContainerHost

_STOPPED = {"exited", "created", "configured", "dead", "stopped"}
"""The states of a container that does not run and can be started, in Docker and Podman."""


@attrs.frozen
class EngineInfo:
    """A container engine, or a machine that is a node.

    Args:
        kind: ``docker``, ``podman``, or ``ssh`` for a machine.
        url: its address.
        origin: where the address was found, such as ``DOCKER_HOST`` or ``Colima``.

    """

    kind: str
    url: str
    origin: str

    def __str__(self) -> str:
        return self.url if self.kind == "ssh" else f"{self.kind} at {self.url}"


@attrs.frozen
class NodeInfo:
    """A node.

    Args:
        name: the name of its container or machine; for one named by its address, the address.
        role: its role in the cluster, such as ``control-plane`` or ``agent``.
        state: ``running``, ``paused``, ``stopped``, or another state that the engine reports.

    """

    name: str
    role: str
    state: str


@attrs.frozen
class ClusterInfo:
    """A cluster.

    Args:
        name: its name.
        tool: the program that made it, such as ``kind`` or ``colima``.
        context: its kube context.
        current: whether that is the current kube context.
        engine: the engine that runs its nodes; of a cluster of machines, the first machine, with
            the kind ``ssh``.
        nodes: its nodes.

    """

    name: str
    tool: str
    context: str
    current: bool
    engine: EngineInfo
    nodes: tuple[NodeInfo, ...]


@attrs.frozen
class ClusterList:
    """The clusters on all engines.

    Args:
        clusters: on the engines that answered.
        engines: those that answered.
        errors: of the engines that did not.

    """

    clusters: tuple[ClusterInfo, ...]
    engines: tuple[EngineInfo, ...]
    errors: tuple[EngineError, ...] = ()

    def to_json(self) -> dict[str, Any]:
        """Return the document that ``imgload clusters --output json`` prints."""
        return {
            "version": JSON_VERSION,
            "clusters": [attrs.asdict(cluster) for cluster in self.clusters],
            "engines": [attrs.asdict(engine) for engine in self.engines],
            "errors": [error_json(error) for error in self.errors],
            "ok": True,
        }


def list_clusters(
    engines: Sequence[ContainerHost], errors: Sequence[EngineError] = ()
) -> ClusterList:
    """Return every cluster on some engines, with the errors of others."""
    context = current_context()
    clusters = tuple(
        ClusterInfo(
            name=cluster.name,
            tool=cluster.tool.name,
            context=cluster.context,
            current=cluster.context == context,
            engine=_engine_info(cluster.engine),
            nodes=tuple(_node_info(member.node) for member in cluster.members),
        )
        for cluster in find_clusters(engines)
    )
    return ClusterList(clusters, tuple(map(_engine_info, engines)), tuple(errors))


def _engine_info(engine: ContainerHost) -> EngineInfo:
    return EngineInfo(engine.endpoint.kind, engine.endpoint.url, engine.endpoint.origin)


def _node_info(node: NodeContainer) -> NodeInfo:
    state = node.container.state
    return NodeInfo(node.container.name, node.role, "stopped" if state in _STOPPED else state)
