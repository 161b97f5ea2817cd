"""The one-call forms of the library."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

from imgload.events import Event
from imgload.loader import Loader
from imgload.report import Report

if TYPE_CHECKING:
    from imgload.transports.choose import TransportOption


def load(
    images: str | Sequence[str],
    *,
    cluster: str | None = None,
    nodes: Sequence[str] = (),
    source: str | None = None,
    name: str | None = None,
    platform: str | None = None,
    transport: TransportOption = "auto",
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
        transport: ``archive`` (whole images), ``delta`` (what is missing) or ``auto``.
        platform: ``os/arch[/variant]`` out of a multi-platform image.
        dry_run: plan only; nothing is changed.
        on_event: told what happens, as values of `imgload.Event`, from several threads.

    Returns:
        what happened, image by image and node by node.

    Raises:
        LoadFailed: when a node was not proven; its `report` says which.
        ImgloadError: when nothing could be loaded at all; the tree is drawn in `imgload.errors`.

    """
    wanted = [images] if isinstance(images, str) else list(images)
    with Loader.connect(cluster, nodes=nodes, source=source) as loader:
        return loader.load(
            wanted,
            name=name,
            platform=platform,
            transport=transport,
            dry_run=dry_run,
            on_event=on_event,
        )


def verify(
    images: str | Sequence[str],
    *,
    cluster: str | None = None,
    nodes: Sequence[str] = (),
    source: str | None = None,
    name: str | None = None,
    platform: str | None = None,
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
        on_event: told each result, as values of `imgload.Event`.

    Returns:
        what was read back, image by image and node by node.

    Raises:
        LoadFailed: when a node lacks an image, or has another one under its name.
        ImgloadError: when the images or the nodes could not be settled on.

    """
    wanted = [images] if isinstance(images, str) else list(images)
    with Loader.connect(cluster, nodes=nodes, source=source) as loader:
        return loader.verify(wanted, name=name, platform=platform, on_event=on_event)
