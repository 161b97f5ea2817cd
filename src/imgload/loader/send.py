"""One group of images into one group of nodes, by the transport that suits."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import partial

import attrs

from imgload.clusters.nodes.node import Node
from imgload.clusters.nodes.survey import Question, Survey
from imgload.core.errors import EngineFailed, ImgloadError, NodeFull, NodeStalled
from imgload.engines.cache import Layers, Memory
from imgload.loader.events import BytesSent, Event, Note
from imgload.oci.content import ImageContent
from imgload.oci.digest import Digest
from imgload.oci.saved import SavedImages, Wanted
from imgload.sources.base import Image, Pusher, Source
from imgload.sources.choose import Choice, Facts, TransportOption, choose
from imgload.sources.push import PushIncomplete, push
from imgload.transports.base import Delivery, Order, Shipment, Transport

Missing = Mapping[str, frozenset[Digest]]
"""Diff IDs of the layers that each node lacks, by its name."""


@attrs.frozen
class Sent:
    """What was sent.

    Args:
        images: as they are now known.
        deliveries: what became of them, by node.
        transport: the name of the transport.
        sizes: bytes sent, by node and image name.
        layers: what is worth remembering once a node has unpacked them.

    """

    images: tuple[Image, ...]
    deliveries: Mapping[str, Delivery]
    transport: str
    sizes: Mapping[tuple[str, str], int] = attrs.field(factory=dict)
    layers: Layers = attrs.field(factory=dict)


@attrs.define
class Sending:
    """Sends images that come from one source to some nodes.

    Args:
        images: what to send, of one source.
        surveys: what each node has.
        missing: the layers that each node lacks.
        option: the way of their content that was asked for.
        on_event: called with what happens, from several threads.
        transport: the way into the nodes.

    """

    images: Sequence[Image]
    surveys: Mapping[str, Survey]
    missing: Missing
    option: TransportOption
    on_event: Callable[[Event], None]
    transport: Transport
    memory: Memory = attrs.field(factory=Memory.load)

    @property
    def source(self) -> Source:
        """Where the images come from."""
        return self.images[0].origin

    def partly(self, nodes: Sequence[Node]) -> Callable[[], Sent] | None:
        """Return the way to send missing layers only, or None when all have to be sent.

        Notes why, where that is of interest.
        """
        choices = [self._choice(image, nodes) for image in self.images]
        for note in dict.fromkeys(choice.note for choice in choices if choice.note):
            self.on_event(Note(note))
        if all(choice.push for choice in choices):
            return partial(self.by_push, nodes)
        named = all(image.layers_named for image in self.images)
        unneeded = self._unneeded(nodes) if named else frozenset()
        return partial(self.by_save, nodes, unneeded) if unneeded else None

    def _can_push(self, nodes: Sequence[Node]) -> bool:
        """Whether the images may be pushed where saving them fails."""
        facts = [self._facts(image, nodes) for image in self.images]
        return self.option == "auto" and all(each.pushable for each in facts)

    def _choice(self, image: Image, nodes: Sequence[Node]) -> Choice:
        return choose(self.option, self._facts(image, nodes))

    def _facts(self, image: Image, nodes: Sequence[Node]) -> Facts:
        pusher = self.source if isinstance(self.source, Pusher) else None
        engine = pusher.address if pusher else ""
        style = pusher.push_style(image) if pusher else None
        if image.required_digests and style != "stored":
            style = None  # what is compressed again has another manifest
        missing = self._missing(nodes)
        return Facts(
            style=style,
            cut_off=self._is_cut_off(engine, image),
            identified=image.image_id is not None and bool(image.manifest or not image.stored),
            diff_ids=image.diff_ids,
            missing=[i for i, diff_id in enumerate(image.diff_ids) if diff_id in missing],
            sizes=self.source.layer_sizes(image) if style else (),
            known_layers=self.memory.taught(engine),
            local=pusher is None or pusher.local,
        )

    def _is_cut_off(self, engine: str, image: Image) -> bool:
        known = self.memory.is_cut_off(engine)
        if image.cut_off and not known:
            self.memory.cut_off(engine)
        return image.cut_off or known

    def _missing(self, nodes: Sequence[Node]) -> frozenset[Digest]:
        return frozenset[Digest]().union(*(self.missing[node.name] for node in nodes))

    def _unneeded(self, nodes: Sequence[Node]) -> frozenset[Digest]:
        """Return the layers that no node lacks, by diff ID and as blobs."""
        missing, needed, unneeded = self._missing(nodes), set[Digest](), set[Digest]()
        for image in self.images:
            for blob, diff_id in zip(image.blobs, image.diff_ids, strict=True):
                (needed if diff_id in missing else unneeded).update((blob, diff_id))
        return frozenset(unneeded - needed)

    def missing_bytes(self, nodes: Sequence[Node]) -> int:
        """Return the bytes of the layers that some node lacks, as far as they are known."""
        sizes: dict[Digest, int] = {}
        missing = self._missing(nodes)
        for image in self.images:
            known = self.source.layer_sizes(image)
            if len(known) != len(image.diff_ids):
                sizes[image.target] = image.size
                continue
            pairs = zip(image.diff_ids, known, strict=True)
            sizes |= {diff_id: size for diff_id, size in pairs if diff_id in missing}
        return sum(sizes.values())

    def by_save(self, nodes: Sequence[Node], unneeded: frozenset[Digest] = frozenset()) -> Sent:
        """Save the images once for all nodes, or push them where the engine cannot save them.

        Podman saves no layers with zstd, and Docker's graphdriver store no image without layers.

        Args:
            nodes: where to.
            unneeded: layers that no node lacks, which may be left out.

        Raises:
            EngineFailed: when neither works.

        """
        try:
            return self._save(nodes, unneeded)
        except EngineFailed as error:
            if not self._can_push(nodes):
                raise
            self.on_event(Note(f"pushing the images, since saving failed: {error.message}"))
            try:
                return self.by_push(nodes)
            except PushIncomplete:
                raise error from None

    def _save(self, nodes: Sequence[Node], unneeded: frozenset[Digest]) -> Sent:
        self.source.release()
        with self.source.save(list(self._names)) as archive:
            saved = SavedImages(archive, self._wanted(), unneeded)
            with self._shipment(nodes, missing=None) as shipment:
                contents = saved.send(shipment)
                if contents:
                    shipment.complete()
                else:
                    shipment.abort()
                deliveries = shipment.finish()
        if not contents:
            return Sent(tuple(self.images), deliveries, self.transport.name)
        images = tuple(self._learnt(image, contents[image.target]) for image in self.images)
        layers = {d: (d, size) for c in contents.values() for d, size in c.plain.items()}
        return Sent(
            images, deliveries, self.transport.name, self._sizes(contents, shipment), layers
        )

    def _learnt(self, image: Image, content: ImageContent) -> Image:
        """Return an image with what only its archive could tell; remember its image ID.

        The digest of the manifest that names the ID is the one that the engine reports.
        """
        config, manifest = content.config, content.manifest.digest
        if manifest == image.manifest_digest:
            self.memory.identify(self.source.address, manifest, config.digest)
        return attrs.evolve(image, image_id=config.digest, diff_ids=config.diff_ids)

    def remember(self, sent: Sent) -> None:
        """Remember which layers were sent, after a node was verified to have unpacked them."""
        if isinstance(self.source, Pusher):
            self.memory.learn(self.source.address, sent.layers)

    def by_push(self, nodes: Sequence[Node]) -> Sent:
        """Have the engine push the images, and pass on the layers that the nodes lack.

        Raises:
            PushIncomplete: when the push failed; no node has an image of it then.

        """
        if not isinstance(self.source, Pusher):
            raise PushIncomplete(f"{self.source.describe} cannot push")
        with self._shipment(nodes, self.missing) as shipment:
            contents, layers = push(self.source, self._names, shipment)
            shipment.complete()
            self.source.release()
            deliveries = shipment.finish()
        sizes = self._sizes(contents, shipment)
        return Sent(tuple(self.images), deliveries, self.transport.name, sizes, layers)

    @contextmanager
    def _shipment(self, nodes: Sequence[Node], missing: Missing | None) -> Iterator[Shipment]:
        """Start the delivery of the images; abort it on any failure."""
        shipment = self.transport.start(
            Order(
                nodes=nodes,
                platform=self.images[0].platform,
                question=Question.about(self.images),
                missing=missing,
                stored={node.name: self.surveys[node.name].content.blobs for node in nodes},
                on_bytes=lambda node, size: self.on_event(BytesSent(node, size)),
            )
        )
        try:
            yield shipment
        except BaseException:
            shipment.abort()
            raise

    def _sizes(
        self, contents: Mapping[Digest, ImageContent], shipment: Shipment
    ) -> dict[tuple[str, str], int]:
        """Return the bytes sent by node and image; a shared blob counts for the first image."""
        sizes: dict[tuple[str, str], int] = {}
        for node, sent in shipment.sent.items():
            left = dict(sent)
            for image in self.images:
                content = contents[image.target]
                layers = (layer.descriptor.digest for layer in content.layers)
                blobs = (content.manifest.digest, content.config.digest, *layers)
                sizes[node, image.name] = sum(left.pop(blob, 0) for blob in blobs)
        return sizes

    @property
    def _names(self) -> dict[Image, tuple[str, ...]]:
        """Each image once, with all its names."""
        names: dict[Digest, list[str]] = {}
        for image in self.images:
            names.setdefault(image.target, []).append(image.name)
        first = {image.target: image for image in reversed(self.images)}
        return {first[target]: tuple(names[target]) for target in names}

    def _wanted(self) -> list[Wanted]:
        """Return what to take out of a saved archive."""
        return [
            Wanted(
                image.target,
                names,
                image.platform,
                exact=tuple(filter(None, (image.manifest_digest, image.image_id))),
            )
            for image, names in self._names.items()
        ]


def is_final(error: ImgloadError | None) -> bool:
    """Whether a whole load would fail as well: no disk space, no answer; or nothing failed."""
    return error is None or isinstance(error, (NodeFull, NodeStalled))
