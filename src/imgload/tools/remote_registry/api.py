"""The one-call forms for registries."""

from __future__ import annotations

import shlex
from collections.abc import Sequence
from typing import Any

import attrs

from imgload.clusters.nodes.node import Node
from imgload.core.errors import JSON_VERSION, UsageError
from imgload.engines.discovery.discover import explained
from imgload.loader.session import Connections
from imgload.oci.reference import string_or_none, strings
from imgload.sources.locate import locate, named, require_names
from imgload.tools.remote_registry.client import RegistryClient
from imgload.tools.remote_registry.config_map import Hosting, announce, withdraw
from imgload.tools.remote_registry.configure import NodeWiring, connect_nodes, disconnect_nodes
from imgload.tools.remote_registry.push import PushedImage, push_image
from imgload.tools.remote_registry.url import RegistryUrl, registry_names


@attrs.frozen
class RegistryReport:
    """What was done to make nodes know a registry, or forget it.

    Args:
        registry: its URL; empty for every one.
        names: the registries whose images come from it, as in image names.
        nodes: what was done on each.
        hosting: what became of the cluster's ConfigMap; None where single nodes were meant.

    """

    registry: str
    names: tuple[str, ...]
    nodes: tuple[NodeWiring, ...]
    hosting: Hosting | None = None

    @property
    def ok(self) -> bool:
        """Whether every node is as it should be."""
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
    """What came of a push."""

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
        url: ``http://host:port`` or ``https://host``, as the nodes see it.
        mirrors: other registries whose images are to come from there first: ``docker.io``, or
            ``localhost:5001`` where that is the registry's name on this machine.
        cluster: the cluster's name; None for the kube context's, or else the only one.
        nodes: names of the nodes; empty for all of the cluster.
        restart_containerd: where CRI reads no files about registries, set its ``config_path`` in
            containerd's configuration and restart containerd; running containers go on. Otherwise
            such a node is left as it is, with an error.

    Returns:
        what was done; `ok` only when every node is set up and reaches the registry.

    Raises:
        UsageError: when the URL or a mirror makes no sense.
        ImgloadError: when the nodes could not be settled on.

    """
    address = RegistryUrl.parse(url)
    names = registry_names(address, strings(mirrors, "mirrors"))
    if address.is_loopback:
        raise UsageError(
            f"{address} is the node itself, as seen from a node",
            hint="give the address at which the nodes see it, and the name on this machine as a"
            " mirror: imgload registry connect http://REGISTRY:5000"
            f" --mirror {shlex.quote(address.host)}",
        )
    with Connections.open() as connections:
        chosen, context = _chosen(connections, cluster, nodes)
        wired = connect_nodes(chosen, address, names, restart=restart_containerd)
        known = any(node.files for node in wired)
        hosting = announce(context, address, names) if context and known else None
    return RegistryReport(str(address), names, tuple(wired), hosting)


def disconnect_registry(
    url: str | None = None,
    *,
    cluster: str | None = None,
    nodes: Sequence[str] = (),
) -> RegistryReport:
    """Leave the nodes' configuration as it was before a registry was connected.

    Args:
        url: the registry, as it was connected; None for every one.
        cluster: the cluster's name; None for the kube context's, or else the only one.
        nodes: names of the nodes; empty for all of the cluster.

    Raises:
        UsageError: when the URL makes no sense.
        ImgloadError: when the nodes could not be settled on.

    """
    address = RegistryUrl.parse(url) if url is not None else None
    with Connections.open() as connections:
        chosen, context = _chosen(connections, cluster, nodes)
        wired = disconnect_nodes(chosen, address)
        known = any(node.files for node in wired)
        hosting = withdraw(context, address) if context and known else None
    return RegistryReport(str(address or ""), (), tuple(wired), hosting)


def push_to_registry(
    images: str | Sequence[str],
    url: str,
    *,
    source: str | None = None,
    name: str | None = None,
) -> PushReport:
    """Put images into a registry; only what it lacks moves, and it is read back.

    Args:
        images: one or several names or image IDs.
        url: ``http://host:port`` or ``https://host``, as this machine sees it.
        source: ``docker``, ``podman`` or an engine's URL; None asks every engine.
        name: the name to push one image under, in place of its own.

    Returns:
        what happened, image by image; `ok` only when the registry returned every manifest.

    Raises:
        UsageError: when the URL or a name makes no sense.
        RegistryError: when no registry answers there.
        ImgloadError: when the images could not be settled on.

    """
    client = RegistryClient(RegistryUrl.parse(url))
    texts = strings(images, "images")
    name = string_or_none(name, "name")
    require_names(texts, name)
    client.check()
    with Connections.open(source) as connections:
        with explained(connections.found.silent):
            found = named(locate(texts, connections.sources, None), name)
        pushed = [push_image(image, client) for image in found]
    return PushReport(str(client.url), tuple(pushed))


def _chosen(
    connections: Connections, cluster: str | None, names: Sequence[str]
) -> tuple[Sequence[Node], str]:
    """Return the nodes, and kubectl's context where they are a whole cluster."""
    names = strings(names, "nodes")
    if names:
        return connections.select_nodes(cluster, names), ""
    chosen = connections.select_cluster(cluster)
    return chosen.nodes, chosen.context
