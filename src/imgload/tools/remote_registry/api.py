"""The one-call functions for registries."""

from __future__ import annotations

import shlex
from collections.abc import Sequence
from typing import Any

import attrs

from imgload.clusters.nodes.node import Node
from imgload.core.arguments import optional_string, require_strings
from imgload.core.errors import JSON_VERSION, UsageError
from imgload.engines.discovery.discover import with_discovery_errors
from imgload.loader.session import Session
from imgload.sources.locate import locate, named, require_names
from imgload.tools.remote_registry.client import RegistryClient
from imgload.tools.remote_registry.config_map import Hosting, publish, remove
from imgload.tools.remote_registry.configure import NodeWiring, connect_nodes, disconnect_nodes
from imgload.tools.remote_registry.push import PushedImage, push_image
from imgload.tools.remote_registry.url import RegistryUrl, registry_names


@attrs.frozen
class RegistryReport:
    """The result of connecting nodes to a registry, or of disconnecting them.

    Args:
        registry: the registry's URL; empty for all registries.
        names: the registries, as in image names, whose images the nodes pull from it.
        nodes: the result on each node.
        hosting: the state of the cluster's ConfigMap; None when single nodes were selected.

    """

    registry: str
    names: tuple[str, ...]
    nodes: tuple[NodeWiring, ...]
    hosting: Hosting | None = None

    @property
    def ok(self) -> bool:
        """Whether no node has an error."""
        return all(node.ok for node in self.nodes)

    def to_json(self) -> dict[str, Any]:
        """Return the document of ``--output json``."""
        return {
            "version": JSON_VERSION,
            "registry": self.registry or None,
            "names": list(self.names),
            "nodes": [node.to_json() for node in self.nodes],
            "hosting": self.hosting.to_json() if self.hosting else None,
            "ok": self.ok,
        }


@attrs.frozen
class PushReport:
    """The result of a push, image by image."""

    registry: str
    images: tuple[PushedImage, ...]

    @property
    def ok(self) -> bool:
        """Whether the registry has every image."""
        return all(image.ok for image in self.images)

    def to_json(self) -> dict[str, Any]:
        """Return the document of ``--output json``."""
        images = [image.to_json() for image in self.images]
        return {"version": JSON_VERSION, "registry": self.registry, "images": images, "ok": self.ok}


def connect_registry(
    url: str,
    *,
    mirrors: Sequence[str] = (),
    cluster: str | None = None,
    nodes: Sequence[str] = (),
    restart_containerd: bool = False,
) -> RegistryReport:
    """Make the nodes of a cluster pull from a registry.

    Args:
        url: ``http://host:port`` or ``https://host``, as the nodes reach it.
        mirrors: other registries whose images the nodes try to pull from there first:
            ``docker.io``, or ``localhost:5001`` if that is the registry's name on this machine.
        cluster: the cluster's name; None for the kube context's, or else the only one.
        nodes: names of the nodes; empty for all nodes of the cluster.
        restart_containerd: where CRI reads no hosts.toml files, set its ``config_path`` in
            containerd's configuration and restart containerd; containers keep running. Otherwise
            such a node gets an error and stays unchanged.

    Returns:
        the result on each node; `ok` only when every node is configured and reaches the registry.

    Raises:
        UsageError: when the URL or a mirror is not valid.
        ImgloadError: when the nodes cannot be selected.

    """
    address = RegistryUrl.parse(url)
    names = registry_names(address, require_strings(mirrors, "mirrors"))
    if address.is_loopback:
        raise UsageError(
            f"{address} is the node itself, as seen from a node",
            hint="use the address at which the nodes reach the registry, and add its name on this"
            " machine as a mirror: imgload registry connect http://REGISTRY:5000"
            f" --mirror {shlex.quote(address.host)}",
        )
    with Session.open() as connections:
        selected, context = _select(connections, cluster, nodes)
        results = connect_nodes(selected, address, names, restart=restart_containerd)
        changed = any(node.files for node in results)
        hosting = publish(context, address, names) if context and changed else None
    return RegistryReport(str(address), names, tuple(results), hosting)


def disconnect_registry(
    url: str | None = None,
    *,
    cluster: str | None = None,
    nodes: Sequence[str] = (),
) -> RegistryReport:
    """Restore the nodes' configuration from before `connect_registry`.

    Args:
        url: the registry's URL, as in `connect_registry`; None for all registries.
        cluster: the cluster's name; None for the kube context's, or else the only one.
        nodes: names of the nodes; empty for all nodes of the cluster.

    Raises:
        UsageError: when the URL is not valid.
        ImgloadError: when the nodes cannot be selected.

    """
    address = RegistryUrl.parse(url) if url is not None else None
    with Session.open() as connections:
        selected, context = _select(connections, cluster, nodes)
        results = disconnect_nodes(selected, address)
        changed = any(node.files for node in results)
        hosting = remove(context, address) if context and changed else None
    return RegistryReport(str(address or ""), (), tuple(results), hosting)


def push_to_registry(
    images: str | Sequence[str],
    url: str,
    *,
    source: str | None = None,
    tag: str | None = None,
) -> PushReport:
    """Push images to a registry, sending only the blobs that it lacks, and read them back.

    Args:
        images: one or several image names or IDs.
        url: ``http://host:port`` or ``https://host``, as this machine reaches it.
        source: ``docker``, ``podman`` or an engine's URL; None for all engines.
        tag: the name to push a single image under, instead of its own.

    Returns:
        the result for each image; `ok` only when the registry returned every manifest.

    Raises:
        UsageError: when the URL or a name is not valid.
        RegistryError: when no registry answers at the URL.
        ImgloadError: when an image is not found, or is ambiguous.

    """
    client = RegistryClient(RegistryUrl.parse(url))
    queries = require_strings(images, "images")
    tag = optional_string(tag, "tag")
    require_names(queries, tag)
    client.check()
    with Session.open(source) as connections:
        with with_discovery_errors(connections.discovery.unreachable):
            images_ = named(locate(queries, connections.sources, None), tag)
        pushed = [push_image(image, client) for image in images_]
    return PushReport(str(client.url), tuple(pushed))


def _select(
    connections: Session, cluster: str | None, names: Sequence[str]
) -> tuple[Sequence[Node], str]:
    """Return the nodes, and kubectl's context if they are a whole cluster."""
    if names := require_strings(names, "nodes"):
        return connections.select_nodes(cluster, names), ""
    selected = connections.select_cluster(cluster)
    return selected.nodes, selected.context
