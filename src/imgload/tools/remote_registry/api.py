"""The one-call functions for registries."""

from __future__ import annotations

import json
import shlex
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import attrs

from imgload.clusters.kubectl import run_kubectl
from imgload.clusters.nodes.node import containerd_nodes
from imgload.clusters.select import Selection
from imgload.core.arguments import optional_string, require_strings
from imgload.core.errors import JSON_VERSION, ClusterError, UsageError
from imgload.core.parallel import in_parallel
from imgload.engines.discovery.discover import with_discovery_errors
from imgload.loader.session import Session
from imgload.oci.document import dig, load_json
from imgload.sources.locate import locate, named, require_names
from imgload.tools.remote_registry.configure import (
    NodeWiring,
    RegistryUrl,
    connect_node,
    disconnect_node,
    registry_names,
)
from imgload.tools.remote_registry.push import PushedImage, RegistryClient, push_image

_NAMESPACE, _NAME = "kube-public", "local-registry-hosting"
_MANAGER = "app.kubernetes.io/managed-by"
_HELP = "https://kind.sigs.k8s.io/docs/user/local-registry/"


@attrs.frozen
class Hosting:
    """Whether imgload wrote the cluster's ConfigMap; `note` is the reason if it did not."""

    written: bool
    note: str = ""

    def to_json(self) -> dict[str, Any]:
        """Return the ConfigMap's part of the document."""
        return {"written": self.written, "note": self.note or None}


@attrs.frozen
class RegistryReport:
    """The result of connecting nodes to a registry, or of disconnecting them.

    Args:
        registry: the registry's URL; empty for all registries.
        names: the registries, as in image names, whose images the nodes pull from it.
        nodes: the result on each node.
        hosting: the state of the clusters' ConfigMaps; None when single nodes were selected.
        notes: lines of information for the user.

    """

    registry: str
    names: tuple[str, ...]
    nodes: tuple[NodeWiring, ...]
    hosting: Hosting | None = None
    notes: tuple[str, ...] = ()

    @property
    def ok(self) -> bool:
        """Whether no node has an error."""
        return all(node.ok for node in self.nodes)

    def to_json(self) -> dict[str, Any]:
        """Return the document of ``--output json``."""
        nodes = [node.to_json() for node in self.nodes]
        hosting = self.hosting.to_json() if self.hosting else None
        report = {"registry": self.registry or None, "names": list(self.names), "nodes": nodes}
        return {
            "version": JSON_VERSION,
            **report,
            "hosting": hosting,
            "notes": list(self.notes),
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
    mirrors: str | Sequence[str] = (),
    cluster: str | Sequence[str] | None = None,
    nodes: str | Sequence[str] = (),
    restart_containerd: bool = False,
) -> RegistryReport:
    """Make the nodes of a cluster pull from a registry.

    Args:
        url: ``http://host:port`` or ``https://host``, as the nodes reach it.
        mirrors: other registries whose images the nodes try to pull from there first:
            ``docker.io``, or ``localhost:5001`` if that is the registry's name on this machine.
        cluster: the cluster's name, or several; None for the kube context's, or else the only one.
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
    with Session.open() as session:
        selection = session.select(cluster, nodes)
        connect = partial(connect_node, url=address, names=names, restart=restart_containerd)
        selected = containerd_nodes(selection.nodes)
        results = tuple(in_parallel([partial(connect, node) for node in selected]))
        publish = partial(_publish, url=address, names=names)
        hosting = _hosting(publish, selection, nodes, results)
    return RegistryReport(str(address), names, results, hosting, selection.notes)


def disconnect_registry(
    url: str | None = None,
    *,
    cluster: str | Sequence[str] | None = None,
    nodes: str | Sequence[str] = (),
) -> RegistryReport:
    """Restore the nodes' configuration from before `connect_registry`.

    Args:
        url: the registry's URL, as in `connect_registry`; None for all registries.
        cluster: the cluster's name, or several; None for the kube context's, or else the only one.
        nodes: names of the nodes; empty for all nodes of the cluster.

    Raises:
        UsageError: when the URL is not valid.
        ImgloadError: when the nodes cannot be selected.

    """
    address = RegistryUrl.parse(url) if url is not None else None
    with Session.open() as session:
        selection = session.select(cluster, nodes)
        selected = containerd_nodes(selection.nodes)
        disconnect = partial(disconnect_node, url=address)
        results = tuple(in_parallel([partial(disconnect, node) for node in selected]))
        hosting = _hosting(partial(_remove, url=address), selection, nodes, results)
    return RegistryReport(str(address or ""), (), results, hosting, selection.notes)


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
    with Session.open(source) as session, with_discovery_errors(session.discovery.unreachable):
        images_ = named(locate(queries, session.sources, None), tag)
        pushed = [push_image(image, client) for image in images_]
    return PushReport(str(client.url), tuple(pushed))


def _hosting(
    change: Callable[[str], Hosting],
    selection: Selection,
    names: Sequence[str],
    results: Sequence[NodeWiring],
) -> Hosting | None:
    """Change the ConfigMap of each whole cluster of which any node was changed."""
    changed = {result.node for result in results if result.files}
    clusters = () if names else selection.clusters
    contexts = [c.context for c in clusters if changed & {node.name for node in c.nodes}]
    hostings = [change(context) for context in contexts]
    notes = dict.fromkeys(hosting.note for hosting in hostings if hosting.note)
    written = all(hosting.written for hosting in hostings)
    return Hosting(written, "; ".join(notes)) if hostings else None


def _publish(context: str, url: RegistryUrl, names: Sequence[str]) -> Hosting:
    """Announce a registry in the cluster's ConfigMap (KEP-1755), unless somebody else wrote one."""
    local_name = next((n for n in names if RegistryUrl("http", n).is_loopback), url.host)
    hosting = {"host": local_name, "hostFromClusterNetwork": url.host, "help": _HELP}
    lines = "".join(f"{key}: {json.dumps(value)}\n" for key, value in hosting.items())
    annotations = {"imgload/registry": str(url)}
    config_map = {
        "apiVersion": "v1",
        "kind": "ConfigMap",
        "metadata": {"name": _NAME, "labels": {_MANAGER: "imgload"}, "annotations": annotations},
        "data": {"localRegistryHosting.v1": lines},
    }
    try:
        metadata = _metadata(context)
        if metadata and dig(metadata, "labels", _MANAGER) != "imgload":
            note = f"{_NAMESPACE}/{_NAME} was not written by imgload and is kept"
            return Hosting(written=False, note=note)
        options = ("replace" if metadata else "create", "--validate=false", "-f", "-")
        _kubectl(context, *options, stdin=json.dumps(config_map))
    except (ClusterError, ValueError) as error:
        return Hosting(written=False, note=f"{_NAMESPACE}/{_NAME} is not written: {error}")
    return Hosting(written=True)


def _remove(context: str, url: RegistryUrl | None) -> Hosting:
    """Delete the ConfigMap if imgload wrote it for this registry; None for any registry."""
    try:
        metadata = _metadata(context)
        is_ours = dig(metadata, "labels", _MANAGER) == "imgload"
        registry = dig(metadata, "annotations", "imgload/registry")
        if is_ours and (url is None or registry == str(url)):
            _kubectl(context, "delete", "configmap", _NAME, "--ignore-not-found", "--wait=false")
    except (ClusterError, ValueError) as error:
        return Hosting(written=False, note=f"{_NAMESPACE}/{_NAME} is not deleted: {error}")
    return Hosting(written=False)


def _metadata(context: str) -> Any:
    """Return the ConfigMap's metadata; None without a ConfigMap."""
    text = _kubectl(context, "get", "configmap", _NAME, "--ignore-not-found", "-o", "json")
    return dig(load_json(text), "metadata") if text.strip() else None


def _kubectl(context: str, *arguments: str, stdin: str = "") -> str:
    return run_kubectl(context, f"--namespace={_NAMESPACE}", *arguments, stdin=stdin)
