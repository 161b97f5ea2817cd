"""The clusters that there are, as plain values."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import attrs

from imgload.clusters.kubeconfig import current_context
from imgload.clusters.nodes.node import Node
from imgload.clusters.select import Cluster, find_clusters
from imgload.core.errors import JSON_VERSION, EngineError, error_json
from imgload.engines.base import Engine

_STOPPED = {"exited", "created", "configured", "dead", "stopped"}
"""What Docker and Podman call a container that does not run and can be started."""


@attrs.frozen
class EngineInfo:
    """An engine.

    Args:
        kind: ``docker`` or ``podman``.
        url: its address.
        origin: where the address was found, as ``DOCKER_HOST`` or ``Colima``.

    """

    kind: str
    url: str
    origin: str

    def __str__(self) -> str:
        return f"{self.kind} at {self.url}"


@attrs.frozen
class NodeInfo:
    """A node.

    Args:
        name: of its container.
        role: what the cluster's tool calls its part, as ``control-plane`` or ``agent``.
        state: ``running``, ``paused``, ``stopped``, or what else the engine says of it.

    """

    name: str
    role: str
    state: str


@attrs.frozen
class ClusterInfo:
    """A cluster.

    Args:
        name: as its tool has it.
        tool: ``kind``, ``k3d`` or ``minikube``.
        context: its kube context.
        current: whether the current kube context is this one.
        engine: that runs its nodes.
        nodes: of it.

    """

    name: str
    tool: str
    context: str
    current: bool
    engine: EngineInfo
    nodes: tuple[NodeInfo, ...]


@attrs.frozen
class ClusterList:
    """The clusters on every engine that answered.

    Args:
        clusters: of all engines.
        engines: that were asked.
        errors: why others could not be, which were meant to be.

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


def list_clusters(engines: Sequence[Engine], errors: Sequence[EngineError] = ()) -> ClusterList:
    """Return every cluster on every engine.

    Args:
        engines: to ask.
        errors: of those that could not be.

    """
    context = current_context()
    clusters = tuple(_cluster(cluster, context) for cluster in find_clusters(engines))
    return ClusterList(clusters, tuple(map(_engine, engines)), tuple(errors))


def _cluster(cluster: Cluster, context: str | None) -> ClusterInfo:
    return ClusterInfo(
        name=cluster.name,
        tool=cluster.tool.name,
        context=cluster.context,
        current=cluster.context == context,
        engine=_engine(cluster.engine),
        nodes=tuple(map(node_info, cluster.nodes)),
    )


def _engine(engine: Engine) -> EngineInfo:
    return EngineInfo(engine.endpoint.kind, engine.endpoint.url, engine.endpoint.origin)


def node_info(node: Node) -> NodeInfo:
    """Return what is to be told of a node."""
    state = node.container.state
    return NodeInfo(node.name, node.role, "stopped" if state in _STOPPED else state)
