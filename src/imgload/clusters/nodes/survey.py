"""What a node has, read in one exec, or two where CRI's snapshotter is not the usual one."""

from __future__ import annotations

import re
import time
from collections.abc import Mapping, Sequence
from typing import Protocol

import attrs

from imgload.clusters.nodes import containerd, cri
from imgload.clusters.nodes.batch import Output
from imgload.clusters.nodes.runtime import CONTAINERD, Runtime
from imgload.core.errors import ArchiveInvalid, NodeUnusable
from imgload.oci.digest import Digest
from imgload.oci.document import ImageConfig
from imgload.oci.platform import Platform

MACHINE = ("uname", "-m")
CRICTL_CONFIG = ("cat", "/etc/crictl.yaml")
_ENDPOINT = re.compile(r"^[ \t]*runtime-endpoint:[ \t]*[\"']?([^\s\"']+)", re.MULTILINE)
_OTHER_RUNTIMES = ("docker", "crio")
_AVAILABLE = re.compile(r"^\S.*?\s+\d+\s+\d+\s+(\d{1,18})\s+\d+%", re.MULTILINE)


class NamedImage(Protocol):
    """An image under one name."""

    @property
    def name(self) -> str:
        """The name, in full."""

    @property
    def image_id(self) -> Digest | None:
        """The digest of the config, if it is known."""


@attrs.frozen
class Question:
    """What to read of a node: everything about these names, image IDs and records' targets.

    `loaded` are the names with their image IDs, as far as these are known; `asks_cri` is whether
    CRI is asked about the names, too.
    """

    names: tuple[str, ...]
    image_ids: tuple[Digest, ...]
    targets: tuple[Digest, ...] = ()
    loaded: tuple[tuple[str, Digest], ...] = ()
    asks_cri: bool = True

    @classmethod
    def about(cls, images: Sequence[NamedImage]) -> Question:
        """Return what to read about some images."""
        return cls(
            tuple(dict.fromkeys(image.name for image in images)),
            tuple(dict.fromkeys(image.image_id for image in images if image.image_id)),
            loaded=tuple((image.name, image.image_id) for image in images if image.image_id),
        )

    @property
    def records(self) -> tuple[str, ...]:
        """The names of the records to read; never none, which would mean all."""
        return self.names or ("none",)

    @property
    def names_for_cri(self) -> tuple[str, ...]:
        """The names that CRI is asked about."""
        return self.names if self.asks_cri else ()


NOTHING = Question((), ())
"""Nothing but the node's traits."""


@attrs.frozen
class Traits:
    """What does not change about a node until its containerd is started again.

    Args:
        version: containerd's.
        snapshotter: CRI's.
        platform: the machine's.
        free: bytes; None when not known.
        start: what tells this start of containerd from others; empty when not known.

    """

    version: tuple[int, int]
    snapshotter: str
    platform: Platform
    free: int | None
    start: str = attrs.field(default="", eq=False)


@attrs.frozen
class Survey:
    """What a node has.

    Args:
        traits: of the node.
        records: the image records asked for by name, with the digest each points to.
        content: the content store.
        snapshots: chain IDs unpacked in CRI's snapshotter.
        configs: the configs asked for, where the node has them, as read back.
        cri: CRI's answer for each name asked for; empty where the node has no crictl.
        unseen: names of records that CRI has not taken over, as containerd's labels tell.
        fresh: whether it was read for this load, and is not left from the one before.
        at: when it was read, by the monotonic clock.

    """

    traits: Traits
    records: Mapping[str, Digest]
    content: containerd.Content
    snapshots: frozenset[Digest]
    configs: Mapping[Digest, ImageConfig]
    cri: Mapping[str, cri.CriAnswer]
    unseen: frozenset[str] = frozenset()
    fresh: bool = attrs.field(default=True, eq=False)
    at: float = attrs.field(factory=time.monotonic, eq=False)

    def has(self, name: str, image_id: Digest) -> bool:
        """Whether the name leads to exactly that image on containerd."""
        target = self.records.get(name)
        return target is not None and self.content.configs_under(target) == {image_id}

    def named_otherwise(self, question: Question) -> tuple[Digest, ...]:
        """Return the manifests of images that are there, while a name asked for leads to none.

        Their other names are worth a second look: such an image is only tagged. CRI's record by
        image ID cannot be relied on: there is none after a name was moved to an image.
        """
        wanted = set(question.image_ids)
        manifests = {m for m, config in self.content.configs.items() if config in wanted}
        if manifests and any(self.records.get(name) not in manifests for name in question.names):
            return tuple(manifests)
        return ()

    def names_of(self, image_id: Digest) -> list[str]:
        """Return all names under which the node has an image."""
        return [name for name in self.records if self.has(name, image_id)]


def trait_commands(runtime: Runtime = CONTAINERD) -> list[Sequence[str]]:
    """Return the commands that tell a node's traits."""
    return [
        containerd.VERSION,
        runtime.dump,
        MACHINE,
        free_command(runtime),
        CRICTL_CONFIG,
        runtime.start,
    ]


def free_command(runtime: Runtime) -> Sequence[str]:
    """Return the command that tells how much room a node has."""
    return ("df", "-Pk", runtime.root)


def state_commands(question: Question, snapshotter: str) -> list[list[Sequence[str]]]:
    """Return the commands that tell what a node has, in groups to run side by side."""
    return [
        [
            *(containerd.content_of(image_id) for image_id in question.image_ids),
            *(cri.inspect_image(name) for name in question.names_for_cri),
        ],
        [
            containerd.images_of(question.records, question.targets),
            containerd.CONTENT,
            containerd.snapshots_of(snapshotter),
        ],
    ]


def names_command(question: Question) -> Sequence[str]:
    """Return the command that lists what some names, and CRI's own by image ID, lead to."""
    return containerd.images_of([*question.records, *map(str, question.image_ids)], ())


def read_traits(outputs: Sequence[Output], see_config: str = "") -> Traits:
    """Understand the answers to `trait_commands`.

    Args:
        outputs: the answers.
        see_config: the command that shows a user containerd's configuration.

    Raises:
        NodeUnusable: when containerd does not answer, when pods do not run on it, or when CRI's
            snapshotter cannot be read: an image unpacked for another one is of no use to pods.

    """
    version, config, machine, free, crictl, start = outputs
    require_containerd(crictl.text)
    if version.exit_status:
        raise NodeUnusable("containerd does not answer: ctr version failed")
    snapshotter = containerd.parse_snapshotter(config.text)
    if config.exit_status or snapshotter is None:
        raise NodeUnusable(_unread(config), hint=see_config and f"see why: {see_config}")
    return Traits(
        version=containerd.parse_version(version.text),
        snapshotter=snapshotter,
        platform=Platform.of("linux", machine.text.strip()),
        free=parse_free(free.text),
        start=parse_start(start),
    )


def parse_start(output: Output) -> str:
    """Return what tells this start of containerd from others; empty when not known."""
    return "" if output.exit_status else output.text.strip()


def _unread(config: Output) -> str:
    why = f"exit status {config.exit_status}" if config.exit_status else "it is not understood"
    return f"CRI's snapshotter cannot be read from containerd's configuration: {why}"


def parse_free(text: str) -> int | None:
    """Return the free bytes out of df's answer, or None."""
    available = _AVAILABLE.search(text)
    return int(available.group(1)) * 1024 if available else None


def require_containerd(settings: str) -> None:
    """Refuse a node whose kubelet does not look into containerd, even when one runs there.

    minikube writes the kubelet's runtime into crictl's settings (pkg/minikube/cruntime/cri.go);
    below its Docker a containerd runs.
    """
    endpoint = found.group(1) if (found := _ENDPOINT.search(settings)) else ""
    if any(name in endpoint.rpartition("/")[2] for name in _OTHER_RUNTIMES):
        raise NodeUnusable(
            f"its pods are run by {endpoint}, which does not look into containerd",
            hint="make the cluster with: minikube start --container-runtime=containerd;"
            " or load with: minikube image load",
        )


def read_state(question: Question, traits: Traits, outputs: Sequence[Output]) -> Survey:
    """Understand the answers to `state_commands`."""
    *rest, images, content, snapshots = outputs
    if images.exit_status or content.exit_status or snapshots.exit_status:
        raise NodeUnusable("containerd does not list its images, content or snapshots")
    blobs, answers = rest[: len(question.image_ids)], rest[len(question.image_ids) :]
    asked = zip(question.names_for_cri, map(cri.parse_inspect, answers), strict=True)
    return Survey(
        traits=traits,
        records=containerd.parse_images(images.text),
        content=containerd.parse_content(content.text),
        snapshots=containerd.parse_snapshots(snapshots.text),
        configs=_configs(question.image_ids, blobs),
        cri={name: answer for name, answer in asked if answer is not None},
        unseen=containerd.parse_unseen(images.text),
    )


def _configs(image_ids: Sequence[Digest], blobs: Sequence[Output]) -> dict[Digest, ImageConfig]:
    """Return the configs that are really those: digest taken of what the node returned."""
    found: dict[Digest, ImageConfig] = {}
    for image_id, blob in zip(image_ids, blobs, strict=True):
        try:
            config = ImageConfig.parse(blob.stdout)
        except ArchiveInvalid:
            continue
        if blob.exit_status == 0 and config.digest == image_id:
            found[image_id] = config
    return found
