"""Loads images that each have options of their own, in one run with one report."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import TYPE_CHECKING, TypeVar

import attrs

from imgload.core.arguments import (
    optional_string,
    require_callback,
    require_flags,
    require_strings,
)
from imgload.core.errors import ImageNotFound, ImgloadError, UsageError
from imgload.engines.discovery.discover import with_discovery_errors
from imgload.loader.events import Event, Note, NoteCollector
from imgload.loader.loader import Loader, finish, require_clusters
from imgload.loader.prepare import LoadOptions, Request
from imgload.loader.report import LoadFailed, Report
from imgload.oci.reference import parse_unless_id
from imgload.sources.locate import locate

if TYPE_CHECKING:
    from os import PathLike
    from typing import Unpack

T = TypeVar("T")


_OPTION = "an option of a listed image"


def _text(value: object) -> str | None:
    return optional_string(value, _OPTION)


def _texts(values: object) -> tuple[str, ...]:
    return require_strings(values, _OPTION)


@attrs.frozen
class ListedImage:
    """An image in a list, and its options; those of the run apply where it has none.

    Args:
        name: its name or image ID; None for all images of an archive, which is the `source`.
        source: ``docker``, ``podman``, an engine's URL, or the path of an archive.
        tag: its name on the nodes, instead of its own.
        cluster: one or several names.
        nodes: as for `imgload.load`.
        platform: ``os/arch[/variant]`` out of a multi-platform image.
        required: whether it is an error that no source has it, instead of a note.

    Raises:
        ReferenceInvalid: if a name is invalid.
        UsageError: if an option has a wrong value, or there is neither a name nor a source.

    """

    name: str | None = attrs.field(default=None, converter=_text)
    source: str | None = attrs.field(default=None, converter=_text)
    tag: str | None = attrs.field(default=None, converter=_text)
    cluster: tuple[str, ...] = attrs.field(default=(), converter=_texts)
    nodes: tuple[str, ...] = attrs.field(default=(), converter=_texts)
    platform: str | None = attrs.field(default=None, converter=_text)
    required: bool = True

    def __attrs_post_init__(self) -> None:
        require_flags(required=self.required)
        if not (self.name or self.source):
            raise UsageError("an image of a list needs a name, or the path of an archive")
        Request(self.name or (), self.tag, platform=self.platform)  # refuses wrong values

    @property
    def name_on_nodes(self) -> str:
        """Its name as on the nodes; empty if its source determines that."""
        name = self.tag or self.name
        reference = parse_unless_id(name) if name else None
        return reference.record if reference else ""


def load_list(  # noqa: PLR0913 - options
    images: Iterable[ListedImage],
    *,
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
        images: the images.
        cluster: as for `imgload.load`, for images without an own one, and so are the next four.
        nodes: the nodes.
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
        raise UsageError("tag is for one image: set it for an image of the list")
    defaults = ListedImage(
        "default",
        source=optional_string(source, "source"),
        cluster=() if cluster is None else cluster,
        nodes=nodes,
        platform=options.pop("platform", None),
    )
    Request((), **options)  # refuses wrong values before discovery
    listed = _distinct([_with_defaults(image, defaults) for image in images])
    notes, reports = NoteCollector(on_event), list[Report]()
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
                    reports += _load(loader, part, notes, dry_run=dry_run, **options)
        except ImgloadError as error:
            reports.append(Report((), errors=(error,)))
    return finish(_joined(reports, dry_run=dry_run), notes, restart=restart)


def _with_defaults(image: ListedImage, defaults: ListedImage) -> ListedImage:
    return attrs.evolve(
        image,
        source=image.source or defaults.source,
        cluster=image.cluster or defaults.cluster,
        nodes=image.nodes or defaults.nodes,
        platform=image.platform or defaults.platform,
    )


def _distinct(images: Iterable[ListedImage]) -> list[ListedImage]:
    """Return each image once, without those that are not required and are also listed as required.

    UsageError is raised if two images have one name on the same nodes, or there is no image.
    """
    required = dict.fromkeys(image for image in images if image.required)
    first: dict[tuple[str, object], ListedImage] = {}
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


def _destination(image: ListedImage) -> tuple[tuple[str, ...], tuple[str, ...], str | None]:
    return image.cluster, image.nodes, image.source


def _naming(image: ListedImage) -> object:
    """Return equal values for images of one load, in which a tag or an archive is alone."""
    return image.platform, image if image.tag is not None or not image.name else None


def _grouped(
    images: Iterable[ListedImage], key: Callable[[ListedImage], T]
) -> dict[T, list[ListedImage]]:
    groups: dict[T, list[ListedImage]] = {}
    for image in images:
        groups.setdefault(key(image), []).append(image)
    return groups


def _load(
    loader: Loader,
    images: Sequence[ListedImage],
    on_event: Callable[[Event], None],
    *,
    dry_run: bool,
    **options: Unpack[LoadOptions],
) -> Iterator[Report]:
    """Load images that have the same options in one transfer, without those that no source has."""
    options |= {"tag": images[0].tag, "platform": images[0].platform}
    platform = Request((), platform=images[0].platform).platform
    located, absent = list[ListedImage](), list[str]()
    for image in images:
        try:
            texts = [image.name] if image.name else []
            with with_discovery_errors(loader.unreachable):
                locate(texts, loader.sources, platform, loader.settle)
            located.append(image)
        except ImgloadError as error:
            if image.name and not image.required and isinstance(error, ImageNotFound):
                absent.append(image.name)
            else:
                yield Report((), errors=(error,))
    if absent:
        text = f"not loaded, because no source has them: {', '.join(absent)}"
        on_event(Note(f"{text}; the nodes pull them when they run them"))
    if not located:
        return
    texts = [image.name for image in located if image.name]
    try:
        yield loader.load(texts, dry_run=dry_run, on_event=on_event, **options)
    except LoadFailed as failure:
        yield failure.report
    except ImgloadError as error:
        yield Report((), errors=(error,))


def _joined(reports: Sequence[Report], *, dry_run: bool) -> Report:
    """Return one report of several loads; an error that stopped all of them is raised."""
    images = tuple(image for report in reports for image in report.images)
    errors = {error.message: error for report in reports for error in report.errors}
    if not images and len(errors) < 2:  # noqa: PLR2004 - one reason
        hint = "build them first, or select their source with --from"
        missing = ImageNotFound("no source has any of the images", hint=hint)
        raise next(iter(errors.values()), missing)
    changed: dict[str, frozenset[str]] = {}
    for context, names in (item for report in reports for item in report.changed.items()):
        changed[context] = changed.get(context, frozenset()) | names
    return Report(images, dry_run, errors=tuple(errors.values()), changed=changed)
