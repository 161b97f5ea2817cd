"""The one-call forms of the library."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

from imgload.loader.events import Event
from imgload.loader.loader import Loader, require_options
from imgload.loader.prepare import Request
from imgload.loader.report import Report
from imgload.oci.reference import strings

if TYPE_CHECKING:
    from os import PathLike

    from imgload.clusters.list import ClusterList
    from imgload.loader.plan import Verify
    from imgload.sources.choose import TransportOption


def load(
    images: str | Sequence[str],
    *,
    cluster: str | None = None,
    nodes: Sequence[str] = (),
    source: str | PathLike[str] | None = None,
    name: str | None = None,
    also: Sequence[str] = (),
    platform: str | None = None,
    transport: TransportOption = "auto",
    verify: Verify = "cri",
    dry_run: bool = False,
    on_event: Callable[[Event], None] = lambda _: None,
) -> Report:
    """Put images on every node of a cluster, and prove that they are there.

    Args:
        images: one or several names or image IDs.
        cluster: the cluster's name; None for the kube context's, or else the only one.
        nodes: names of the nodes to load; empty for all of the cluster.
        source: ``docker``, ``podman``, an engine's URL, or a path to an archive; None asks every
            engine that can be reached.
        name: the name to load one image under, in place of its own.
        also: names that the one image gets beside that, in the same transfer.
        transport: ``archive`` (whole images), ``delta`` (what is missing) or ``auto``.
        platform: ``os/arch[/variant]`` out of a multi-platform image.
        verify: ``cri`` (what containerd and CRI say), or ``deep`` (and every blob that a node keeps
            of the images is read again, and hashed there).
        dry_run: plan only; nothing is changed.
        on_event: told what happens, as values of `imgload.Event`, from several threads.

    Returns:
        what happened, image by image and node by node.

    Raises:
        LoadFailed: when a node was not proven; its `report` says which.
        ImgloadError: when nothing could be loaded at all; the tree is drawn in `core.errors`.

    """
    texts = strings(images, "images")
    require_options(transport, verify, on_event)
    Request.of(texts, name, also, platform)  # refuses what it can before an engine is looked for
    with Loader.connect(cluster, nodes=nodes, source=source) as loader:
        return loader.load(
            texts,
            name=name,
            also=also,
            platform=platform,
            transport=transport,
            verify=verify,
            dry_run=dry_run,
            on_event=on_event,
        )


def verify(
    images: str | Sequence[str],
    *,
    cluster: str | None = None,
    nodes: Sequence[str] = (),
    source: str | PathLike[str] | None = None,
    name: str | None = None,
    platform: str | None = None,
    deep: bool = False,
    on_event: Callable[[Event], None] = lambda _: None,
) -> Report:
    """Read back whether every node of a cluster has exactly these images; nothing is changed.

    Args:
        images: one or several names or image IDs; the source tells which image that is.
        cluster: the cluster's name; None for the kube context's, or else the only one.
        nodes: names of the nodes to ask; empty for all of the cluster.
        source: as for `load`.
        name: the name that one image has on the nodes, in place of its own.
        platform: ``os/arch[/variant]`` out of a multi-platform image.
        deep: also read every blob that a node keeps of them again, and hash it there.
        on_event: told each result, as values of `imgload.Event`.

    Returns:
        what was read back, image by image and node by node.

    Raises:
        LoadFailed: when a node lacks an image, or has another one under its name.
        ImgloadError: when the images or the nodes could not be settled on.

    """
    texts = strings(images, "images")
    Request.of(texts, name, (), platform)  # as for `load`
    with Loader.connect(cluster, nodes=nodes, source=source) as loader:
        return loader.verify(texts, name=name, platform=platform, deep=deep, on_event=on_event)


def find_clusters() -> ClusterList:
    """Return the clusters of kind, k3d and minikube on every engine that can be reached.

    Raises:
        EngineError: when no engine can be.

    """
    from imgload.clusters.list import list_clusters  # noqa: PLC0415 - start-up
    from imgload.loader.session import Connections  # noqa: PLC0415

    with Connections.open() as connections:
        errors = [attempt.error for attempt in connections.found.silent if attempt.error]
        return list_clusters(connections.engines, errors)
