"""Which images, layers and names a node has: the query, the commands, and the parsed result."""

from __future__ import annotations

import re
import time
from collections.abc import Mapping, Sequence
from typing import Protocol

import attrs

from imgload.clusters.nodes import containerd, kubelet
from imgload.clusters.nodes.batch import Output
from imgload.clusters.nodes.containerd import CONTAINERD, Containerd, ContentStore, CriAnswer
from imgload.clusters.nodes.kubelet import Kubelet
from imgload.core.errors import ArchiveInvalid, NodeUnusable
from imgload.oci.digest import Digest
from imgload.oci.document import ImageConfig
from imgload.oci.platform import Platform

_SPACE = re.compile(r"^\S.*?\s+(\d{1,18})\s+\d+\s+(\d{1,18})\s+\d+%", re.MULTILINE)


class NamedImage(Protocol):
    """An image under one name, in full, with its image ID if that is known."""

    @property
    def name(self) -> str: ...

    @property
    def image_id(self) -> Digest | None: ...


@attrs.frozen
class SurveyQuery:
    """The images to survey on a node.

    Args:
        names: their names, in full.
        image_ids: their image IDs, whose configs are read back.
        targets: digests of manifests or indexes, whose names are read as well.
        loaded: the names with their image IDs, where these are known; an import labels them.
        asks_cri: whether to query CRI for the names, too.

    """

    names: tuple[str, ...]
    image_ids: tuple[Digest, ...]
    targets: tuple[Digest, ...] = ()
    loaded: tuple[tuple[str, Digest], ...] = ()
    asks_cri: bool = True

    @classmethod
    def about(cls, images: Sequence[NamedImage], *, loaded: bool = False) -> SurveyQuery:
        """Return the query for images, each under one name; `loaded` if an import labels them."""
        return cls(
            tuple(dict.fromkeys(image.name for image in images)),
            tuple(dict.fromkeys(image.image_id for image in images if image.image_id)),
            loaded=tuple((i.name, i.image_id) for i in images if i.image_id and loaded),
        )

    def commands(self, snapshotter: str) -> list[list[Sequence[str]]]:
        """Return the commands whose output `Survey.read` parses, in groups to run in parallel."""
        return [
            [
                *(containerd.content_command(image_id) for image_id in self.image_ids),
                *(containerd.inspect_image(name) for name in self.names if self.asks_cri),
            ],
            [
                containerd.images_command(self.names, self.targets),
                containerd.CONTENT,
                containerd.snapshots_command(snapshotter),
            ],
        ]


NOTHING = SurveyQuery((), ())
"""Reads only the node's traits."""


@attrs.frozen
class NodeTraits:
    """Properties of a node that only change when its runtime restarts.

    `version` is that of the runtime with the name `runtime`. `snapshotter` is CRI's, or Docker's
    storage driver. `free` and `total` are the disk space in bytes, None when unknown. `start`
    identifies this start of containerd; it is empty when unknown. `kubelet` is None when the node
    has none.
    """

    version: tuple[int, int]
    snapshotter: str
    platform: Platform
    free: int | None
    start: str = attrs.field(default="", eq=False)
    total: int | None = attrs.field(default=None, eq=False)
    kubelet: Kubelet | None = attrs.field(default=None, eq=False)
    runtime: str = "containerd"

    @staticmethod
    def commands(runtime: Containerd = CONTAINERD) -> list[Sequence[str]]:
        version, machine = ("ctr", "version"), ("uname", "-m")
        return [version, runtime.dump, machine, runtime.free, runtime.start, kubelet.READ]

    @classmethod
    def read(
        cls, outputs: Sequence[Output], see_config: str = "", snapshotter: str | None = None
    ) -> NodeTraits:
        """Parse the outputs of `commands`; `see_config` shows a user containerd's configuration.

        `snapshotter` is known if it is not CRI's. NodeUnusable when containerd does not answer, or
        when CRI's snapshotter cannot be read: pods cannot use an image unpacked for another one.
        """
        version, config, machine, space, start, of_kubelet = outputs
        if version.exit_status:
            raise NodeUnusable("containerd does not answer: ctr version failed")
        if not snapshotter and not config.exit_status:
            snapshotter = containerd.parse_snapshotter(config.text)
        if not snapshotter:
            why = f"exit status {config.exit_status}" if config.exit_status else "cannot parse it"
            raise NodeUnusable(
                f"CRI's snapshotter cannot be read from containerd's configuration: {why}",
                hint=see_config and f"check it: {see_config}",
            )
        return cls(
            version=containerd.parse_version(version.text),
            snapshotter=snapshotter,
            platform=Platform.of("linux", machine.text.strip()),
            free=None,
            start=parse_start(start),
            kubelet=Kubelet.parse(of_kubelet.text),
        ).with_space(space)

    def with_space(self, output: Output) -> NodeTraits:
        """Return the traits with the disk space from the output of ``df -Pk``."""
        total, free = parse_space(output.text) or (None, None)
        return attrs.evolve(self, total=total, free=free)


@attrs.frozen
class Survey:
    """Images, layers and names on a node.

    Args:
        records: the requested image records: names with the digests they point to.
        snapshots: chain IDs unpacked in CRI's snapshotter.
        configs: the requested configs that the node has, as read back.
        cri: CRI's answer for each requested name; empty where the node has no crictl.
        not_in_cri: names of records that CRI has not registered, according to containerd's labels.
        pinned: names of records that are pinned, according to the same.
        fresh: whether it was read for this load, and is not left from the one before.
        at: when it was read, by the monotonic clock.

    """

    traits: NodeTraits
    records: Mapping[str, Digest] = attrs.field(hash=False)
    content: ContentStore
    snapshots: frozenset[Digest]
    configs: Mapping[Digest, ImageConfig] = attrs.field(hash=False)
    cri: Mapping[str, CriAnswer] = attrs.field(hash=False)
    not_in_cri: frozenset[str] = frozenset()
    pinned: frozenset[str] = frozenset()
    fresh: bool = attrs.field(default=True, eq=False)
    at: float = attrs.field(factory=time.monotonic, eq=False)

    @classmethod
    def read(cls, question: SurveyQuery, traits: NodeTraits, outputs: Sequence[Output]) -> Survey:
        """Parse the outputs of `SurveyQuery.commands`; NodeUnusable when containerd fails."""
        *rest, images, content, snapshots = outputs
        if images.exit_status or content.exit_status or snapshots.exit_status:
            raise NodeUnusable("containerd does not list its images, content or snapshots")
        blobs, answers = rest[: len(question.image_ids)], rest[len(question.image_ids) :]
        cri_answers = zip(question.names, map(containerd.parse_inspect, answers), strict=False)
        configs = map(read_config, question.image_ids, blobs)
        records = containerd.parse_records(images.text)
        return cls(
            traits=traits,
            records={record.name: record.target for record in records},
            content=containerd.parse_content(content.text),
            snapshots=frozenset(containerd.parse_snapshots(snapshots.text)),
            configs={config.digest: config for config in configs if config},
            cri={name: answer for name, answer in cri_answers if answer is not None},
            not_in_cri=frozenset(record.name for record in records if not record.in_cri),
            pinned=frozenset(record.name for record in records if record.pinned),
        )

    def has(self, name: str, image_id: Digest) -> bool:
        """Return whether a name points to exactly that image in containerd."""
        target = self.records.get(name)
        return target is not None and self.content.configs_under(target) == {image_id}

    def named_otherwise(self, question: SurveyQuery) -> tuple[Digest, ...]:
        """Return the manifests of requested images that lack a requested name.

        Their other names are worth a second query: such an image only has to be tagged. CRI's
        record by image ID is no substitute: it is missing after a name was moved to an image.
        """
        wanted = set(question.image_ids)
        manifests = {m for m, config in self.content.configs.items() if config in wanted}
        if all(self.records.get(name) in manifests for name in question.names):
            return ()
        return tuple(manifests)

    def names_of(self, image_id: Digest) -> list[str]:
        """Return all names of an image on the node."""
        return [name for name in self.records if self.has(name, image_id)]


def parse_start(output: Output) -> str:
    return "" if output.exit_status else output.text.strip()


def parse_space(text: str) -> tuple[int, int] | None:
    """Return the total and free bytes of a file system from the output of ``df -Pk``."""
    sizes = _SPACE.search(text)
    return (int(sizes.group(1)) * 1024, int(sizes.group(2)) * 1024) if sizes else None


def parse_free(text: str) -> int | None:
    """Return the free bytes from the output of ``df -Pk``, or None."""
    space = parse_space(text)
    return space[1] if space else None


def read_config(image_id: Digest, blob: Output) -> ImageConfig | None:
    """Return a config whose digest, computed from the node's output, is the image ID."""
    try:
        config = ImageConfig.parse(blob.stdout)
    except ArchiveInvalid:
        return None
    return config if blob.exit_status == 0 and config.digest == image_id else None
