"""Loads images that each have options of their own, in one run with one report."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import TYPE_CHECKING, TypeVar

import attrs

from imgload.core.arguments import (
    optional_string,
    require_callback,
    require_flags,
    require_strings,
)
from imgload.core.errors import (
    ImageNotFound,
    ImgloadError,
    ManifestMissing,
    UsageError,
    printable,
)
from imgload.engines.discovery.discover import with_discovery_errors
from imgload.loader.entries import ImageEntry
from imgload.loader.events import Event, Note, NoteCollector
from imgload.loader.list_file import read_list
from imgload.loader.loader import Loader, finish, require_clusters
from imgload.loader.manifests import read_manifests
from imgload.loader.prepare import LoadOptions, Request
from imgload.loader.report import LoadFailed, Report
from imgload.oci.platform import Platform
from imgload.sources.locate import locate

if TYPE_CHECKING:
    from os import PathLike
    from typing import Unpack

T = TypeVar("T")


def load_list(  # noqa: PLR0913 - options
    images: str | ImageEntry | Iterable[str | ImageEntry] = (),
    *,
    files: str | PathLike[str] | Sequence[str | PathLike[str]] = (),
    manifests: str | PathLike[str] | Sequence[str | PathLike[str]] = (),
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
    """Load images that each have options of their own; an image that fails stops no other.

    Images with the same options are loaded in one transfer, in the order of their first one.

    Args:
        images: names of images, or images with options.
        files: paths of YAML files with lists of images; ``-`` for standard input. Paths of archives
            in a file are relative to its folder.
        manifests: YAML or JSON files with Kubernetes manifests, folders of such files, ``-`` for
            standard input, or objects in the cluster, such as ``deployment/app``, which the user's
            kubectl reads. The images that they name are not `required`.
        cluster: as for `imgload.load`, for images without an own one, and so are the next four.
        nodes: names of nodes.
        address: the path of containerd's socket.
        source: the source of the images.
        follow_links: whether symbolic links may lead out of a folder.
        dry_run: plan only; nothing is changed.
        restart: as for `imgload.load`, once after all loads.
        on_event: called with values of `imgload.Event`, from several threads.
        options: see `imgload.LoadOptions`; without `tag` and `extra_tags`.

    Returns:
        The results of all images.

    Raises:
        LoadFailed: if an image was not verified on a node; the `errors` of its `report` say which
            images could not be loaded at all.
        RestartFailed: if all images were loaded, but a workload was not restarted.
        ImgloadError: if nothing could be loaded, for one reason.

    """
    require_callback(on_event, "on_event")
    require_flags(dry_run=dry_run, restart=restart)
    if options.get("tag") is not None or options.get("extra_tags"):
        hint = "set it in the list: {name: app:dev, tag: app:v1}"
        raise UsageError("one name cannot be given to several images", hint=hint)
    defaults = ImageEntry(
        "default",
        source=optional_string(source, "source"),
        cluster=() if cluster is None else cluster,
        nodes=nodes,
        platform=options.pop("platform", None),
    )
    Request((), **options)  # refuses wrong values before discovery
    entries = _entries(images)
    files, manifests = require_strings(files, "files"), require_strings(manifests, "manifests")
    is_read = "-" in {source, *(image.source for image in entries)}
    if [*files, *manifests].count("-") + is_read > 1:
        raise UsageError("standard input can be read only once", hint="use a file for the other")
    entries += [image for file in files for image in read_list(file)]
    entries += [image for path in manifests for image in read_manifests(path, defaults.cluster)]
    listed = _distinct([_with_defaults(image, defaults) for image in entries])
    results = _Results(NoteCollector(on_event))
    for (clusters, names, origin), group in _grouped(listed, _destination).items():
        try:
            with Loader.connect(
                clusters or None,
                nodes=names,
                address=address,
                source=origin,
                follow_links=follow_links,
                images=[image.name for image in group if image.name],
            ) as loader:
                if restart:
                    require_clusters(loader.clusters)
                for part in _grouped(group, _naming).values():
                    results.load(loader, part, dry_run=dry_run, **options)
        except ImgloadError as error:
            results.add_error(error, group)
    return finish(results.report(dry_run=dry_run), results.on_event, restart=restart)


def _entries(images: object) -> list[ImageEntry]:
    several = (images,) if isinstance(images, str | ImageEntry) else images
    if not isinstance(several, Iterable):
        raise UsageError(f"images must be one or several images, not {images!r:.100}")
    entries = [ImageEntry(image) if isinstance(image, str) else image for image in several]
    for entry in entries:
        if not isinstance(entry, ImageEntry):
            raise UsageError(f"an image must be a name or an ImageEntry, not {entry!r:.100}")
    return entries


def _with_defaults(image: ImageEntry, defaults: ImageEntry) -> ImageEntry:
    return attrs.evolve(
        image,
        source=image.source or defaults.source,
        cluster=image.cluster or defaults.cluster,
        nodes=image.nodes or defaults.nodes,
        platform=image.platform or defaults.platform,
    )


def _distinct(images: Iterable[ImageEntry]) -> list[ImageEntry]:
    """Return each image once, without those that are not required and are also listed as required.

    UsageError is raised if two images have one name on the same nodes, or there is no image.
    """
    required = dict.fromkeys(image for image in images if image.required)
    first: dict[tuple[str, object], ImageEntry] = {}
    for image in required:
        key = image.name_on_nodes, (image.cluster, image.nodes)
        if image.name_on_nodes and first.setdefault(key, image) != image:
            message = f"two images of the list are to have the name {image.name_on_nodes}"
            raise UsageError(message, hint="remove one, or load them onto different nodes")
    names = {image.name_on_nodes for image in required}
    others = (i for i in images if not i.required and i.name_on_nodes not in names)
    if not (distinct := list(dict.fromkeys((*required, *others)))):
        raise UsageError("the list has no image", hint="list an image: - name: app:dev")
    return distinct


def _destination(image: ImageEntry) -> tuple[tuple[str, ...], tuple[str, ...], str | None]:
    return image.cluster, image.nodes, image.source


def _naming(image: ImageEntry) -> object:
    """Return equal values for images of one load, in which a tag or an archive is alone."""
    return image.platform, image if image.tag is not None or not image.name else None


def _grouped(
    images: Iterable[ImageEntry], key: Callable[[ImageEntry], T]
) -> dict[T, list[ImageEntry]]:
    groups: dict[T, list[ImageEntry]] = {}
    for image in images:
        groups.setdefault(key(image), []).append(image)
    return groups


@attrs.define
class _Results:
    """The reports of the loads, and the errors that stopped others, with the images by message."""

    on_event: NoteCollector
    reports: list[Report] = attrs.field(factory=list)
    errors: dict[str, tuple[ImgloadError, list[ImageEntry]]] = attrs.field(factory=dict)

    def add_error(self, error: ImgloadError, images: Sequence[ImageEntry]) -> None:
        self.errors.setdefault(error.message, (error, []))[1].extend(images)

    def load(
        self,
        loader: Loader,
        images: Sequence[ImageEntry],
        *,
        dry_run: bool,
        **options: Unpack[LoadOptions],
    ) -> None:
        """Load images with equal options in one transfer, without those that no source has."""
        platform = Request((), platform=images[0].platform).platform
        located, absent = list[ImageEntry](), list[str]()
        for image in images:
            if image.name and not image.required and not _is_found(image.name, loader, platform):
                absent.append(image.name)
                continue
            try:
                with with_discovery_errors(loader.unreachable):
                    texts = [image.name] if image.name else []
                    locate(texts, loader.sources, platform, loader.settle)
                located.append(image)
            except ImgloadError as error:
                self.add_error(error, [image])
        if absent:
            text = f"not loaded, because no source has them: {', '.join(absent)}"
            self.on_event(Note(f"{text}; the nodes pull them from their registries"))
        if not located:
            return
        options |= {"tag": images[0].tag, "platform": images[0].platform}
        texts = [image.name for image in located if image.name]
        try:
            report = loader.load(texts, dry_run=dry_run, on_event=self.on_event, **options)
            self.reports.append(report)
        except LoadFailed as failure:
            self.reports.append(failure.report)
        except ImgloadError as error:
            self.add_error(error, located)

    def report(self, *, dry_run: bool) -> Report:
        """Return one report; if nothing was loaded for one reason, that error is raised."""
        if not self.reports and len(self.errors) < 2:  # noqa: PLR2004
            hint = "build them first, or select their source with --from"
            absent = ImageNotFound("no source has any of the images", hint=hint)
            raise next((error for error, _ in self.errors.values()), absent)
        for error, images in self.errors.values():
            if not error.image:
                names = ", ".join(image.tag or image.name or image.source or "" for image in images)
                error.message = printable(f"{names}: {error.message}")
        changed: dict[str, frozenset[str]] = {}
        for context, names_on in (item for r in self.reports for item in r.changed.items()):
            changed[context] = changed.get(context, frozenset()) | names_on
        return Report(
            tuple(image for report in self.reports for image in report.images),
            dry_run,
            errors=tuple(error for error, _ in self.errors.values()),
            changed=changed,
        )


def _is_found(name: str, loader: Loader, platform: Platform | None) -> bool:
    """Whether a source has an image with the manifest that its name may demand."""
    for source in loader.sources:
        try:
            if source.find(name, platform):
                return True
        except ManifestMissing:  # the nodes can pull it
            continue
        except ImgloadError:  # `locate` raises it again
            return True
    return False
