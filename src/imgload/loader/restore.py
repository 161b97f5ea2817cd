"""Loads images again that were loaded into a cluster, such as before it was created again."""

from __future__ import annotations

import shlex
from collections.abc import Callable, Iterator, Sequence

import attrs

from imgload.clusters.cluster import Cluster, find_clusters
from imgload.core.arguments import require_flags, require_strings
from imgload.core.errors import ImageNotFound, ImgloadError
from imgload.loader.entries import ImageEntry
from imgload.loader.events import Event, Note, NoteCollector
from imgload.loader.lists import load_list
from imgload.loader.record import (
    STDIN,
    RecordedImage,
    change_record,
    read_record,
    record_path,
)
from imgload.loader.report import LoadFailed, Report
from imgload.loader.session import Session
from imgload.oci.reference import is_full_image_id, matches, parse_patterns, parse_unless_id


def restore(
    images: str | Sequence[str] = (),
    *,
    cluster: str | Sequence[str] | None = None,
    forget: bool = False,
    dry_run: bool = False,
    on_event: Callable[[Event], None] = lambda _: None,
) -> Report:
    """Load the images again that were loaded into a cluster, such as after it was created again.

    Each image is loaded from the source of its last load, as it is there now; a note reports an
    image that has changed since then. An image that its source does not have stops no other.

    Args:
        images: names or repositories, with ``*`` and ``?``; empty for all.
        cluster: one or several names; none for the kube context's cluster, or else the only one.
        forget: remove the images from the record instead of loading them; notes name them.
        dry_run: plan only; nothing is changed.
        on_event: called with values of `imgload.Event`, from several threads.

    Returns:
        The results, image by image and node by node.

    Raises:
        ImageNotFound: if no load of such images into these clusters is recorded, or no source has
            any of them.
        LoadFailed: if an image was not verified on a node, or a source does not have one; see its
            `report`.
        ClusterError: if there is no such cluster, or several match.

    """
    require_flags(forget=forget, dry_run=dry_run)
    notes = NoteCollector(on_event)
    clusters = _read(require_strings(images, "images"), cluster, notes)
    if forget:
        for recorded in clusters:
            _forget(recorded, notes, dry_run=dry_run)
        return Report((), dry_run, tuple(notes.texts))
    for image in (image for recorded in clusters for image in recorded.images):
        if image.source == STDIN:
            text = f"{image.name} was loaded from standard input"
            notes(Note(f"{text}; searching the engines for an image of this name"))
    listed = [_listed(image, recorded) for recorded in clusters for image in recorded.images]
    try:
        report = load_list(listed, dry_run=dry_run, on_event=notes)
    except LoadFailed as failure:
        report = failure.report
    for text in _changes(report, clusters):
        notes(Note(text))
    report = attrs.evolve(report, notes=tuple(notes.texts))
    if not report.ok:
        raise LoadFailed(report)
    return report


@attrs.frozen
class _Recorded:
    """The selected images of a cluster's record; `name` selects the cluster."""

    cluster: Cluster
    name: str
    images: tuple[RecordedImage, ...]


def _read(
    texts: Sequence[str],
    cluster: str | Sequence[str] | None,
    on_event: Callable[[Event], None],
) -> list[_Recorded]:
    """Read the records of the selected clusters; ImageNotFound if no image matches."""
    patterns = parse_patterns(texts)
    with Session.open(has_images=False) as session:
        selection = session.select(cluster, ())
        names = [known.name for known in find_clusters(session.engines)]
    for note in selection.notes:
        on_event(Note(note))
    clusters: list[_Recorded] = []
    for chosen in selection.clusters:
        # a name that several clusters have is ambiguous
        name = chosen.name if names.count(chosen.name) == 1 else chosen.context
        stored = read_record(chosen).values()
        images = [i for i in stored if not patterns or matches(i.name, patterns)]
        clusters.append(_Recorded(chosen, name, tuple(images)))
    if not any(recorded.images for recorded in clusters):
        raise _nothing_recorded(texts, selection.clusters)
    for recorded in clusters:
        if not recorded.images:
            on_event(Note(f"no load of such an image into {recorded.cluster} is recorded"))
    return clusters


def _forget(recorded: _Recorded, on_event: Callable[[Event], None], *, dry_run: bool) -> None:
    cluster, names = recorded.cluster, [image.name for image in recorded.images]
    if not dry_run:
        change_record(cluster, removed=names)
        if not read_record(cluster).keys().isdisjoint(names):
            path = record_path(cluster)
            hint = f"check the permissions: ls -la {shlex.quote(str(path.parent))}"
            raise ImgloadError(f"cannot change the record {path}", hint=hint)
    for name in names:
        removed = "would be removed" if dry_run else "removed"
        on_event(Note(f"{removed} from the record of {cluster}: {name}"))


def _listed(image: RecordedImage, recorded: _Recorded) -> ImageEntry:
    """Return how to load a recorded image, into those of its nodes that still exist.

    An image from standard input is searched in the engines by its name on the nodes.
    """
    in_source = image.image or (image.name if image.source == STDIN else "")
    reference = parse_unless_id(in_source) if in_source else None
    is_own_name = is_full_image_id(image.name) or (reference and reference.record == image.name)
    members = {member.name for member in recorded.cluster.members}
    return ImageEntry(
        name=in_source or None,
        source=None if image.source == STDIN else image.source,
        tag=None if is_own_name else image.name,
        cluster=recorded.name,
        nodes=[node for node in image.nodes if node in members] or image.nodes,
        platform=str(image.platform) if image.platform else None,
    )


def _changes(report: Report, clusters: Sequence[_Recorded]) -> Iterator[str]:
    """Yield a line for each image that is not the recorded one."""
    earlier = {
        (image.name, member.name): image.image_id
        for recorded in clusters
        for member in recorded.cluster.members
        for image in recorded.images
    }
    for image in report.images:
        before, now = earlier.get((image.reference, image.nodes[0].node)), image.image_id
        if before and now and before != now:
            ids = f"it was {before.short}, and is {now.short}"
            yield f"{image.reference} has changed in {image.source} since it was loaded: {ids}"


def _nothing_recorded(texts: Sequence[str], clusters: Sequence[Cluster]) -> ImageNotFound:
    into, first = " and ".join(map(str, clusters)), shlex.quote(clusters[0].name)
    if texts and any(map(read_record, clusters)):
        wanted = " or ".join(map(repr, texts))
        hint = f"list the recorded images: imgload restore --dry-run --cluster {first}"
        return ImageNotFound(f"no load of {wanted:.300} into {into} is recorded", hint=hint)
    folder = record_path(clusters[0]).parent
    hint = f"load the images first: imgload load IMAGE --cluster {first}"
    return ImageNotFound(f"no load into {into} is recorded in {folder}", hint=hint)
