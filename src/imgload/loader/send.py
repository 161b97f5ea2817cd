"""One group of images into one group of nodes, by the transport that suits."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import partial

import attrs

from imgload.clusters.nodes.node import Node
from imgload.clusters.nodes.survey import Question, Survey
from imgload.core.errors import EngineFailed, ImgloadError, NodeFull, NodeStalled
from imgload.engines.cache import Layers, Memory
from imgload.loader.events import BytesSent, Event, Note
from imgload.loader.push import push
from imgload.oci.digest import Digest
from imgload.oci.image import Image
from imgload.oci.layers import layers_everywhere, missing_layers
from imgload.oci.repack import Repack, Wanted
from imgload.sources.base import Found, Pusher, Source
from imgload.transports.archive import deliver
from imgload.transports.choose import Choice, Facts, TransportOption, choose
from imgload.transports.delta import Delta, DeltaIncomplete, Holding
from imgload.transports.imports import Delivery, Lanes


@attrs.frozen
class Sent:
    """What was sent: the images as they are now known, and how it went into each node.

    `sizes` are bytes by node and image name; `partly` when layers were left out; `layers` are what
    is worth remembering once a node has unpacked them.
    """

    images: tuple[Image, ...]
    deliveries: Mapping[str, Delivery]
    sizes: Mapping[tuple[str, str], int]
    partly: bool = False
    layers: Layers = attrs.field(factory=dict)


@attrs.define
class Sending:
    """Sends images that come from one source to some nodes."""

    source: Source
    images: Mapping[Image, Found]
    surveys: Mapping[str, Survey]
    option: TransportOption
    on_event: Callable[[Event], None]
    memory: Memory = attrs.field(factory=Memory.load)

    def partly(self, nodes: Sequence[Node]) -> Callable[[], Sent] | None:
        """Return the way to send what is missing only, or None when all has to be sent.

        Tells why, where that is of interest.
        """
        choices = [self._choice(found, nodes) for found in self.images.values()]
        for note in dict.fromkeys(choice.note for choice in choices if choice.note):
            self.on_event(Note(note))
        if all(choice.delta for choice in choices):
            return partial(self.by_delta, nodes)
        told = all(found.layers_named for found in self.images.values())
        there = self._everywhere(nodes) if told else frozenset()
        return partial(self.by_archive, nodes, there) if there else None

    def _pushable(self, nodes: Sequence[Node]) -> bool:
        """Whether the images may be pushed where saving them fails."""
        facts = [self._facts(found, nodes) for found in self.images.values()]
        return self.option == "auto" and all(each.pushable for each in facts)

    def _choice(self, found: Found, nodes: Sequence[Node]) -> Choice:
        return choose(self.option, self._facts(found, nodes))

    def _facts(self, found: Found, nodes: Sequence[Node]) -> Facts:
        pusher = self.source if isinstance(self.source, Pusher) else None
        engine = pusher.address if pusher else ""
        style = pusher.push_style(found) if pusher else None
        if found.pins and style != "stored":
            style = None  # what is compressed anew has another manifest
        return Facts(
            style=style,
            cut_off=self._is_cut_off(engine, found),
            identified=found.image_id is not None and bool(found.manifest or not found.stored),
            diff_ids=found.diff_ids,
            missing=missing_layers(found.diff_ids, self._snapshots(nodes)),
            sizes=self.source.layer_sizes(found) if style else (),
            learnt=self.memory.taught(engine),
            local=pusher is None or pusher.local,
        )

    def _is_cut_off(self, engine: str, found: Found) -> bool:
        known = self.memory.is_cut_off(engine)
        if found.cut_off and not known:
            self.memory.cut_off(engine)
        return found.cut_off or known

    def _snapshots(self, nodes: Sequence[Node]) -> list[frozenset[Digest]]:
        return [self.surveys[node.name].snapshots for node in nodes]

    def _everywhere(self, nodes: Sequence[Node]) -> frozenset[Digest]:
        """Return the layers that no node needs for any of the images, by diff ID and as blobs."""
        needed: set[Digest] = set()
        there: set[Digest] = set()
        for found in self.images.values():
            everywhere = layers_everywhere(found.diff_ids, self._snapshots(nodes))
            for blob, diff_id in zip(found.blobs, found.diff_ids, strict=True):
                (there if diff_id in everywhere else needed).update((blob, diff_id))
        return frozenset(there - needed)

    def missing_bytes(self, nodes: Sequence[Node]) -> int:
        """Return the bytes of the layers that some node lacks, as far as they are known."""
        sizes: dict[Digest, int] = {}
        for found in self.images.values():
            known = self.source.layer_sizes(found)
            if len(known) != len(found.diff_ids):
                sizes[found.target] = found.size
                continue
            missing = missing_layers(found.diff_ids, self._snapshots(nodes))
            sizes |= {found.diff_ids[place]: known[place] for place in missing}
        return sum(sizes.values())

    def by_archive(self, nodes: Sequence[Node], there: frozenset[Digest] = frozenset()) -> Sent:
        """Save the images once for all nodes, or push them where the engine cannot save them.

        Podman saves no layers with zstd, and Docker's graphdriver store no image without layers.

        Args:
            nodes: where to.
            there: layers that every node has, which may be left out.

        Raises:
            EngineFailed: when neither works.

        """
        try:
            return self._save(nodes, there)
        except EngineFailed as error:
            if not self._pushable(nodes):
                raise
            self.on_event(Note(f"pushing the images, since saving failed: {error.message}"))
            try:
                return self.by_delta(nodes)
            except DeltaIncomplete:
                raise error from None

    def _save(self, nodes: Sequence[Node], there: frozenset[Digest]) -> Sent:
        self.source.release()
        images = tuple(self.images)
        unique = {found.target: found for found in self.images.values()}
        with self.source.save(list(unique.values())) as archive:
            repack = Repack(archive, _wanted(self.images), there)
            deliveries = deliver(repack, self._lanes(nodes))
        if not repack.images:
            return Sent(images, deliveries, {})
        learnt = tuple(_learnt(image, repack) for image in images)
        self._remember_ids(learnt, repack)
        sizes = _bytes_by_image(learnt, repack)
        by_node = {(node.name, name): size for node in nodes for name, size in sizes.items()}
        layers = self._plain_layers(learnt, repack)
        return Sent(learnt, deliveries, by_node, bool(repack.left_out), layers)

    def _remember_ids(self, images: Sequence[Image], repack: Repack) -> None:
        """Remember the image IDs that an engine does not report.

        The digest of the manifest that names the ID is the one that the engine reports.
        """
        for image, found in zip(images, self.images.values(), strict=True):
            manifest = repack.images[image.target].manifest.digest
            if image.image_id and manifest == found.manifest_digest:
                self.memory.identify(self.source.address, manifest, image.image_id)

    def _plain_layers(self, images: Sequence[Image], repack: Repack) -> Layers:
        """Return how long the layers are as plain tars, which is how the nodes have them now."""
        layers = {diff_id for image in images for diff_id in image.diff_ids}
        return {d: (d, size) for d, size in repack.sizes.items() if d in layers}

    def remember(self, sent: Sent) -> None:
        """Remember which layers were sent, after a node was verified to have unpacked them."""
        if isinstance(self.source, Pusher):
            self.memory.learn(self.source.address, sent.layers)

    def by_delta(self, nodes: Sequence[Node]) -> Sent:
        """Have the engine push the images, and pass on what the nodes lack.

        Raises:
            DeltaIncomplete: when the push failed; no node has an image of it then.

        """
        lanes = self._lanes(nodes)
        surveys = {node.name: self.surveys[node.name] for node in nodes}
        holdings = {n: Holding(s.snapshots, s.content.blobs) for n, s in surveys.items()}
        delta = Delta(lanes.feeds, holdings)
        try:
            push(self.source, self.images, delta, self.memory)
            lanes.complete()
            self.source.release()
            deliveries = lanes.finish()
        except BaseException:
            lanes.abort()
            raise
        finally:
            delta.discard()
        sizes = {
            (node.name, image.name): delta.traffic.pop((node.name, image.image_id), 0)
            for node in nodes
            for image in self.images
            if image.image_id
        }
        return Sent(tuple(self.images), deliveries, sizes, partly=True, layers=delta.learnt)

    def _lanes(self, nodes: Sequence[Node]) -> Lanes:
        platform = next(iter(self.images)).platform
        question = Question.about(list(self.images))
        return Lanes.start(nodes, platform, question, self._count)

    def _count(self, node: str, size: int) -> None:
        self.on_event(BytesSent(node, size))


def _wanted(images: Mapping[Image, Found]) -> list[Wanted]:
    """Return what to take out of the saved archive: each image once, with all its names."""
    first = {found.target: found for found in images.values()}
    return [
        Wanted(
            target,
            names=tuple(image.name for image in images if image.target == target),
            platform=found.platform,
            exact=tuple(filter(None, (found.manifest_digest, found.image_id))),
        )
        for target, found in first.items()
    ]


def _learnt(image: Image, repack: Repack) -> Image:
    """Return the image with what only its archive could tell."""
    config = repack.images[image.target].config
    return attrs.evolve(image, image_id=config.digest, diff_ids=config.diff_ids)


def _bytes_by_image(images: Sequence[Image], repack: Repack) -> dict[str, int]:
    left = dict(repack.sizes)
    sizes: dict[str, int] = {}
    for image in images:
        manifest = repack.images[image.target].manifest
        blobs = {manifest.digest, manifest.config.digest, *(x.digest for x in manifest.layers)}
        sizes[image.name] = sum(left.pop(blob, 0) for blob in blobs)
    return sizes


def is_final(error: ImgloadError | None) -> bool:
    """Whether a full load would fail as well: no room, no answer; or nothing failed."""
    return error is None or isinstance(error, (NodeFull, NodeStalled))
