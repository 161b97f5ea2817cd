"""The record of the images that were loaded into each cluster, for `imgload.restore`.

A cluster is known by its provider, its name and its engine, which stay the same when it is created
again. Each has one file, in a subfolder of the cache folder that `imgload prune --cache` keeps.
Loads never fail because of it: a file that cannot be written is omitted, and logged.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Collection, Iterable, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

import attrs

from imgload.core import trace
from imgload.core.errors import ImgloadError
from imgload.core.state import locked_folder, read_own_file, replace_file, state_folder
from imgload.oci.digest import Digest
from imgload.oci.document import load_json
from imgload.oci.platform import Platform
from imgload.oci.reference import Reference, parse_unless_id

if TYPE_CHECKING:
    from imgload.clusters.cluster import Cluster
    from imgload.loader.prepare import Request
    from imgload.loader.report import Report
    from imgload.sources.base import Image

_FOLDER = "loads"
_FORMAT = 1
_MAX_BYTES = 1 << 20
_MAX_IMAGES = 500
_MAX_CLUSTERS = 100
STDIN = "-"
"""The source of an image whose archive came from standard input."""


@attrs.frozen
class RecordedImage:
    """An image that was loaded into a cluster.

    Args:
        name: its full name on the nodes, or its ID if it has none.
        source: the address of an engine, the absolute path of an archive or folder, or `STDIN`.
        image: its name or ID in the source; empty for the only image of an archive.
        image_id: its ID, if the load has determined it.
        platform: the requested platform; None if none was.
        nodes: the names of the nodes; empty for all of the cluster.

    """

    name: str
    source: str
    image: str
    image_id: Digest | None = None
    platform: Platform | None = None
    nodes: tuple[str, ...] = ()

    @classmethod
    def parse(cls, value: Mapping[str, Any]) -> RecordedImage:
        """Read an entry of a file; an exception of any kind is raised if it is invalid."""
        name, source, image = (str(value[key]) for key in ("name", "source", "image"))
        for text in filter(None, (name, image)):
            parse_unless_id(text)
        image_id, platform = value["image_id"], value["platform"]
        return cls(
            name,
            source,
            image,
            Digest.parse(image_id) if image_id is not None else None,
            Platform.parse(platform) if platform is not None else None,
            tuple(map(str, value["nodes"])),
        )

    def to_json(self) -> dict[str, Any]:
        """Return the entry in the file."""
        return {
            "name": self.name,
            "source": self.source,
            "image": self.image,
            "image_id": str(self.image_id) if self.image_id else None,
            "platform": str(self.platform) if self.platform else None,
            "nodes": list(self.nodes),
        }


def read_record(cluster: Cluster) -> dict[str, RecordedImage]:
    """Return the images that were loaded into a cluster by name, in the order of their loads."""
    with suppress(OSError, ValueError, ImgloadError, LookupError, TypeError, AttributeError):
        document = load_json(read_own_file(record_path(cluster), _MAX_BYTES))
        if document["version"] == _FORMAT and document["cluster"] == _identity(cluster):
            images = map(RecordedImage.parse, document["images"])
            return {image.name: image for image in images}
    return {}


def record_load(
    cluster: Cluster,
    nodes: Collection[str],
    images: Mapping[str, Image],
    request: Request,
    report: Report,
) -> None:
    """Record the images of a load that are verified on at least one node of a cluster.

    Args:
        cluster: the cluster.
        nodes: the names of the nodes of the load, also of other clusters.
        images: the images of the load, by name.
        request: the request of the load.
        report: the result of the load.

    """
    members = {member.name for member in cluster.members}
    targets = members.intersection(nodes)
    subset = () if targets == members else tuple(sorted(targets))
    loaded = [
        RecordedImage(
            result.reference,
            _address(images[result.reference]),
            _name_in_source(images[result.reference], request),
            result.image_id,
            request.platform,
            subset,
        )
        for result in report.images
        if any(node.ok and node.node in targets for node in result.nodes)
    ]
    change_record(cluster, added=loaded)


def change_record(
    cluster: Cluster,
    *,
    added: Sequence[RecordedImage] = (),
    removed: Collection[str] = (),
) -> None:
    """Add images to the record of a cluster, and remove others by name.

    The file is not written if that changes nothing.
    """
    if _changed(stored := read_record(cluster), added, removed) == stored:
        return
    path = record_path(cluster)
    try:
        path.parent.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        with locked_folder(path.parent):
            images = _changed(read_record(cluster), added, removed)
            _remove_oldest(path)
            replace_file(path, _text(cluster, list(images.values())[-_MAX_IMAGES:]))
    except OSError as error:
        trace.log(f"{cluster}: the load is not recorded in {path}: {error.strerror or error}")


def record_path(cluster: Cluster) -> Path:
    """Return the file of a cluster, which may not exist."""
    key = json.dumps(_identity(cluster)).encode()
    return state_folder() / _FOLDER / f"{hashlib.sha256(key).hexdigest()[:16]}.json"


def _identity(cluster: Cluster) -> list[str]:
    """Return provider, name and engine; a machine of a cluster may get another port."""
    endpoint = cluster.engine.endpoint
    url = "" if endpoint.kind == "ssh" else endpoint.url
    if url.startswith("unix://"):  # /var/run and contexts of Docker Desktop are links
        url = f"unix://{os.path.realpath(url.removeprefix('unix://'))}"
    return [cluster.tool.name, cluster.name, url]


def _address(image: Image) -> str:
    address = image.origin.address
    if address != STDIN and "://" not in address:
        with suppress(OSError):  # the current folder may have been removed
            return os.path.abspath(address)  # noqa: PTH100
    return address


def _name_in_source(image: Image, request: Request) -> str:
    """Return how to find an image again; by name, if it was requested by its ID under its own."""
    given = [text for text in (request.tag, *request.extra_tags) if text is not None]
    is_own = image.name not in {Reference.parse(text).record for text in given}
    if is_own and not (image.query and parse_unless_id(image.query)):
        return image.name
    return image.query or ("" if request.tag is not None else image.names[0])


def _changed(
    stored: Mapping[str, RecordedImage],
    added: Iterable[RecordedImage],
    removed: Collection[str],
) -> dict[str, RecordedImage]:
    """Return the images after a change; changed ones come last."""
    images = {name: image for name, image in stored.items() if name not in removed}
    for image in added:
        earlier = images.get(image.name)
        if earlier and earlier.nodes != image.nodes:
            both = () if () in {earlier.nodes, image.nodes} else {*earlier.nodes, *image.nodes}
            image = attrs.evolve(image, nodes=tuple(sorted(both)))  # noqa: PLW2901
        if earlier != image:
            images.pop(image.name, None)
            images[image.name] = image
    return images


def _text(cluster: Cluster, images: Sequence[RecordedImage]) -> str:
    """Return a file's content with at most `_MAX_BYTES`, without the oldest images beyond that."""
    entries = [image.to_json() for image in images]
    document = {"version": _FORMAT, "cluster": _identity(cluster), "images": entries}
    text = json.dumps(document)
    return text if len(text) <= _MAX_BYTES else _text(cluster, images[(len(images) + 1) // 2 :])


def _remove_oldest(path: Path) -> None:
    """Remove the files of clusters that were not loaded lately, to make room for a new one."""
    files = [file for file in path.parent.glob("*.json") if file != path]
    files.sort(key=lambda file: file.stat().st_mtime)
    for file in files[: -_MAX_CLUSTERS + 1]:
        file.unlink(missing_ok=True)
