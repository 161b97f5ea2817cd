"""Functions that connect, do one task, and disconnect."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

from imgload.core.arguments import require_callback, require_flags, require_strings
from imgload.loader.events import Event
from imgload.loader.loader import Loader
from imgload.loader.prepare import LoadOptions, Request
from imgload.loader.report import Report

if TYPE_CHECKING:
    from os import PathLike
    from typing import Unpack

    from imgload.clusters.listing import ClusterList


def load(
    images: str | Sequence[str] = (),
    *,
    archives: str | PathLike[str] | Sequence[str | PathLike[str]] = (),
    cluster: str | Sequence[str] | None = None,
    nodes: str | Sequence[str] = (),
    address: str | None = None,
    source: str | PathLike[str] | None = None,
    follow_links: bool = False,
    dry_run: bool = False,
    restart: bool = False,
    on_event: Callable[[Event], None] = lambda _: None,
    **options: Unpack[LoadOptions],
) -> Report:
    """Load images into every node of a cluster, and verify them there.

    Args:
        images: one or several names or image IDs, or tags without a repository in an OCI layout;
            none for all images of an archive.
        archives: paths of archives or folders of images, to load with all of their images, in
            addition to `images`.
        cluster: one or several names; none for the kube context's cluster, or else the only one.
        nodes: names of the nodes to load, ends of names, patterns with ``*`` and ``?``, or
            ``ssh://user@host``; empty for all of the cluster. The full name may be that of any
            container with containerd.
        address: the path of containerd's socket on the nodes; None to find it.
        source: ``docker``, ``podman``, an engine's URL, or a path to an archive; None for every
            reachable engine.
        follow_links: whether symbolic links may lead out of a source that is a folder.
        dry_run: plan only; nothing is changed.
        restart: restart the deployments, stateful sets and daemon sets of the cluster whose pod
            templates name an image that changed on a node, by ``kubectl rollout restart``.
        on_event: called with values of `imgload.Event`, from several threads.
        options: see `imgload.LoadOptions`.

    Returns:
        The result, image by image and node by node.

    Raises:
        UsageError: if the transport is ``delta`` and a source cannot push.
        LoadFailed: if an image could not be verified on a node; see its `report`.
        RestartFailed: if all images were loaded, but a workload was not restarted; in a dry run, if
            the workloads cannot be listed.
        ImgloadError: if nothing could be loaded at all; `core.errors` has the tree of errors.

    """
    require_callback(on_event, "on_event")
    require_flags(dry_run=dry_run, restart=restart)
    texts = Request(images, **options).texts  # refuses wrong values before discovery
    with Loader.connect(
        cluster,
        nodes=nodes,
        address=address,
        source=source,
        follow_links=follow_links,
        images=texts,
        archives=require_strings(archives, "archives"),
    ) as loader:
        return loader.load(texts, dry_run=dry_run, restart=restart, on_event=on_event, **options)


def verify(
    images: str | Sequence[str] = (),
    *,
    archives: str | PathLike[str] | Sequence[str | PathLike[str]] = (),
    cluster: str | Sequence[str] | None = None,
    nodes: str | Sequence[str] = (),
    address: str | None = None,
    source: str | PathLike[str] | None = None,
    tag: str | None = None,
    platform: str | None = None,
    follow_links: bool = False,
    deep: bool = False,
    files: bool = False,
    contents: bool = False,
    complete: bool = False,
    strict_platform: bool | None = None,
    on_event: Callable[[Event], None] = lambda _: None,
) -> Report:
    """Verify that every node of a cluster has exactly these images; nothing is changed.

    Args:
        images: one or several names or image IDs; the source determines which image that is.
        archives: as for `load`, and so are the next three.
        cluster: one or several names.
        nodes: names of the nodes.
        address: the path of containerd's socket.
        source: the source of the images.
        tag: the name of one image on the nodes, if it is not its own.
        platform: ``os/arch[/variant]`` out of a multi-platform image.
        follow_links: as for `load`.
        deep: also hash every blob of the images that the nodes store.
        files: also compare the unpacked files with the source's layers.
        contents: as `files`, and hash the content of the files.
        complete: also require that the content stores have all layers.
        strict_platform: as for `load`.
        on_event: called with each result, from several threads.

    Returns:
        The result, image by image and node by node.

    Raises:
        LoadFailed: if a node lacks an image or a required layer, or has another image under its
            name.
        ImgloadError: if an image or a node is not found, or is ambiguous.

    """
    require_flags(deep=deep, files=files, contents=contents, complete=complete)
    texts = Request(images, tag, platform=platform, strict_platform=strict_platform).texts
    with Loader.connect(
        cluster,
        nodes=nodes,
        address=address,
        source=source,
        follow_links=follow_links,
        images=texts,
        archives=require_strings(archives, "archives"),
    ) as loader:
        return loader.verify(
            texts,
            tag=tag,
            platform=platform,
            deep=deep,
            files=files,
            contents=contents,
            complete=complete,
            strict_platform=strict_platform,
            on_event=on_event,
        )


def find_clusters() -> ClusterList:
    """Return the local clusters: on every reachable engine, and in virtual machines.

    Raises:
        EngineError: if no engine can be reached, and no cluster is in a machine.

    """
    from imgload.clusters.listing import list_clusters  # noqa: PLC0415 - start-up
    from imgload.loader.session import Session  # noqa: PLC0415

    with Session.open(has_images=False) as session:
        errors = [attempt.error for attempt in session.discovery.unreachable if attempt.error]
        listing = list_clusters(session.engines, errors)
        if not listing.clusters:
            session.discovery.require()
        return listing
