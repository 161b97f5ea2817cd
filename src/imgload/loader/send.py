"""Sends one group of images to one group of nodes, by save or push."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from functools import partial
from itertools import product

import attrs

from imgload.clusters.nodes.base import NodeRuntime
from imgload.clusters.nodes.survey import Survey, SurveyQuery
from imgload.core import trace
from imgload.core.errors import EngineFailed, ImgloadError, NodeFull, NodeStalled
from imgload.engines.cache import EngineCache, Layers
from imgload.loader.events import BytesSent, Event, Note
from imgload.loader.plan import not_unpacked, stored_layers
from imgload.oci.content import ImageContent
from imgload.oci.digest import Digest
from imgload.registry.blob_store import StoreFull
from imgload.sources.base import Facts, Image, Pusher, Source, TransportOption, choose
from imgload.sources.push import PushIncomplete, push
from imgload.transports.base import Delivery, Order, Shipment, StoredLayers, Transport

Missing = Mapping[str, frozenset[Digest]]
"""Diff IDs of the layers that each node lacks, by its name."""


@attrs.frozen
class Sent:
    """The result of sending images.

    Args:
        images: the images, with the image IDs that the content has.
        deliveries: the results of the transport, by node.
        transport: the name of the transport.
        sizes: bytes sent, by node and image name.
        layers: the pushed layers, to cache once a node has unpacked them.
        plain_sizes: bytes of layers as uncompressed tars, by diff ID, to cache as well.

    """

    images: tuple[Image, ...]
    deliveries: Mapping[str, Delivery]
    transport: str
    sizes: Mapping[tuple[str, str], int] = attrs.field(factory=dict)
    layers: Layers = attrs.field(factory=dict)
    plain_sizes: Mapping[Digest, int] = attrs.field(factory=dict)


@attrs.define(eq=False, repr=False)
class Sending:
    """Sends images, all of one source, to some nodes."""

    images: Sequence[Image]
    surveys: Mapping[str, Survey]
    missing: Missing
    option: TransportOption
    on_event: Callable[[Event], None]
    transport: Transport
    keep_manifest: bool = False
    memory: EngineCache = attrs.field(factory=EngineCache.load)

    @property
    def source(self) -> Source:
        return self.images[0].origin

    def delta_or_none(self, nodes: Sequence[NodeRuntime]) -> Callable[[], Sent] | None:
        """Return a function that sends only missing layers, or None if all must be sent.

        The reason is reported as a note if the user can act on it.
        """
        facts = [self._facts(image, nodes) for image in self.images]
        choices = [choose(self.option, of_image) for of_image in facts]
        for image, of_image, choice in zip(self.images, facts, choices, strict=True):
            way = "pushes" if choice.push else "saves"
            reason = choice.note or of_image.summary
            trace.log(f"{image.name}: {self.source.describe} {way} it: {reason}")
        for note in dict.fromkeys(choice.note for choice in choices if choice.note):
            self.on_event(Note(note))
        if all(choice.push for choice in choices):
            return partial(self.by_push, nodes)
        named = all(image.layers_named for image in self.images)
        unneeded = self._unneeded(nodes) if named else frozenset[Digest]()
        unneeded = unneeded.union(*(image.absent_layers for image in self.images))
        return partial(self.by_save, nodes, unneeded) if unneeded else None

    def _facts(self, image: Image, nodes: Sequence[NodeRuntime]) -> Facts:
        return facts_of(image, self._missing(nodes), self.memory)

    def _missing(self, nodes: Sequence[NodeRuntime]) -> frozenset[Digest]:
        return frozenset[Digest]().union(*(self.missing[node.name] for node in nodes))

    def _unneeded(self, nodes: Sequence[NodeRuntime]) -> frozenset[Digest]:
        """Return the layers that no node lacks, by diff ID and as blobs."""
        missing, needed, unneeded = self._missing(nodes), set[Digest](), set[Digest]()
        for image in self.images:
            for blob, diff_id in zip(image.blobs, image.diff_ids, strict=True):
                (needed if diff_id in missing else unneeded).update((blob, diff_id))
        return frozenset(unneeded - needed)

    def missing_bytes(self, nodes: Sequence[NodeRuntime]) -> int:
        """Return the bytes that some node lacks; all of an image if its layer sizes are unknown."""
        sizes: dict[Digest, int] = {}
        missing = self._missing(nodes)
        for image in self.images:
            layer_sizes = self.source.layer_sizes(image)
            if len(layer_sizes) == len(image.diff_ids):
                pairs = zip(image.diff_ids, layer_sizes, strict=True)
                sizes |= {diff_id: size for diff_id, size in pairs if diff_id in missing}
            else:
                sizes[image.target] = image.size
        return sum(sizes.values())

    def by_save(
        self, nodes: Sequence[NodeRuntime], unneeded: frozenset[Digest] = frozenset()
    ) -> Sent:
        """Save the images once for all nodes, or push them if the engine cannot save them.

        Podman saves no layers with zstd, and Docker's graphdriver store no image without layers.
        EngineFailed is raised if neither works. Layers in `unneeded` may be left out.
        """
        try:
            try:
                return self._save(nodes, unneeded)
            except StoreFull:  # from now on, the transport streams
                return self._save(nodes, unneeded)
        except EngineFailed as error:
            facts = [self._facts(image, nodes) for image in self.images]
            if error.final or self.option != "auto" or not all(f.pushable for f in facts):
                raise
            self.on_event(Note(f"pushing the images, since saving failed: {error.message}"))
            try:
                return self.by_push(nodes)
            except PushIncomplete:
                raise error from None

    def _save(self, nodes: Sequence[NodeRuntime], unneeded: frozenset[Digest]) -> Sent:
        from imgload.oci.archive import ArchiveSender, Wanted  # noqa: PLC0415 - start-up

        self.source.release()
        with self.source.save(list(self._names)) as archive:
            wanted = [
                Wanted(
                    image.target,
                    names,
                    image.platform,
                    exact=tuple(filter(None, (image.manifest_digest, image.image_id))),
                    layers=frozenset(image.blobs) if image.manifest and not image.stored else None,
                )
                for image, names in self._names.items()
            ]
            saved = ArchiveSender(archive, wanted, unneeded, self.memory.plain_sizes())
            with self._shipment(nodes, missing=None) as shipment:
                contents = saved.send(shipment)
                if contents:
                    shipment.complete()
                else:
                    shipment.abort()
                deliveries = shipment.finish()
        if not contents:
            return Sent(tuple(self.images), deliveries, self.transport.name)
        images = []
        for image in self.images:
            config, manifest = contents[image.target].config, contents[image.target].manifest
            if manifest.digest == image.manifest_digest:
                self.memory.record_image_id(self.source.address, manifest.digest, config.digest)
            images.append(attrs.evolve(image, image_id=config.digest, diff_ids=config.diff_ids))
        sizes = self._sizes(contents, shipment)
        plain_sizes = {d: size for c in contents.values() for d, size in c.plain.items()}
        plain_sizes |= shipment.plain_sizes
        return Sent(tuple(images), deliveries, self.transport.name, sizes, plain_sizes=plain_sizes)

    def cache_layers(self, sent: Sent, nodes: Iterable[str]) -> None:
        """Cache the sent layers that these nodes, which are verified, have unpacked.

        Only a node that unpacks a blob verifies which layer it is.
        """
        unpacked = frozenset[Digest]().union(
            *(not_unpacked(i.diff_ids, self.surveys[n]) for n in nodes for i in sent.images)
        )
        known = self.memory.layers(self.source.address).items() if sent.layers else ()
        layers = {d: x for d, x in sent.layers.items() if x[0] in unpacked or (d, x) in known}
        plain_sizes = {d: size for d, size in sent.plain_sizes.items() if d in unpacked}
        self.memory.record_layers(self.source.address, layers)
        self.memory.record_plain_sizes(plain_sizes)

    def by_push(self, nodes: Sequence[NodeRuntime]) -> Sent:
        """Have the engine push the images, and forward the layers that the nodes lack.

        If it raises PushIncomplete, no node has any of the images.
        """
        if not isinstance(self.source, Pusher):
            raise PushIncomplete(f"{self.source.describe} cannot push")
        with self._shipment(nodes, self.missing) as shipment:
            contents, layers = push(self.source, self._names, shipment)
            shipment.complete()
            self.source.release()
            deliveries = shipment.finish()
        sizes = self._sizes(contents, shipment)
        name, plain_sizes = self.transport.name, shipment.plain_sizes
        return Sent(tuple(self.images), deliveries, name, sizes, layers, plain_sizes)

    def _discarded(self, nodes: Sequence[NodeRuntime]) -> Iterator[str]:
        """Yield the nodes that have some layers only as snapshots.

        A layer that the source does not have cannot be served in any form.
        """
        absent = frozenset[Digest]().union(*(image.absent_layers for image in self.images))
        for node, image in product([node.name for node in nodes], self.images):
            content = self.surveys[node].content
            stored = stored_layers(image, content, keep_manifest=self.keep_manifest)
            unpacked = set(image.diff_ids) - self.missing[node]
            pairs = zip(image.diff_ids, image.blobs, strict=True)
            unserved = {d for d, blob in pairs if d in absent and blob not in content.blobs}
            if not unpacked <= stored - unserved:
                yield node

    def _stored_layers(
        self, nodes: Mapping[str, NodeRuntime], node: str, diff_ids: Collection[Digest]
    ) -> StoredLayers:
        """Return the blobs in which a node stores layers, as far as it answers; cache the sizes."""
        content = self.surveys[node].content
        layers: StoredLayers = {}
        if content.forms_of(diff_ids):
            with suppress(ImgloadError):
                layers = nodes[node].stored_layers(content, diff_ids)
        plain_sizes = {d: layer.size for d, layer in layers.items() if layer.digest == d}
        self.memory.record_plain_sizes(plain_sizes)
        return layers

    @contextmanager
    def _shipment(
        self, nodes: Sequence[NodeRuntime], missing: Missing | None
    ) -> Iterator[Shipment]:
        """Start the delivery of the images; abort it on any failure."""
        layers = frozenset(layer for image in self.images for layer in image.diff_ids)
        platform = self.images[0].platform
        if platform.is_unspecified:
            platform = self.surveys[nodes[0].name].traits.platform
        shipment = self.transport.start(
            Order(
                nodes=nodes,
                platform=platform,
                question=SurveyQuery.about(self.images, loaded=True),
                missing=missing,
                unpacked={node.name: layers - self.missing[node.name] for node in nodes},
                stored={node.name: self.surveys[node.name].content.blobs for node in nodes},
                stored_layers=partial(self._stored_layers, {node.name: node for node in nodes}),
                discarded=frozenset(self._discarded(nodes)),
                keep_manifest=self.keep_manifest,
                size=sum({image.target: image.size for image in self.images}.values()),
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
            uncounted = dict(sent)
            for image in self.images:
                content = contents[image.target]
                layers = (layer.descriptor.digest for layer in content.layers)
                blobs = (content.manifest.digest, content.config.digest, *layers)
                sizes[node, image.name] = sum(uncounted.pop(blob, 0) for blob in blobs)
        return sizes

    @property
    def _names(self) -> dict[Image, tuple[str, ...]]:
        """All names of each image."""
        names: dict[Digest, list[str]] = {}
        for image in self.images:
            names.setdefault(image.target, []).append(image.name)
        first = {image.target: image for image in reversed(self.images)}
        return {first[target]: tuple(names[target]) for target in names}


def facts_of(image: Image, missing: Collection[Digest], memory: EngineCache) -> Facts:
    """Return the facts about an image of which the layers `missing`, by diff ID, must be sent."""
    source = image.origin
    pusher = source if isinstance(source, Pusher) else None
    engine = pusher.address if pusher else ""
    style = pusher.push_style(image) if pusher else None
    if image.required_digests and style != "stored":
        style = None  # compressing the layers again results in another manifest
    cached = memory.is_unreachable(engine)
    if image.is_cut_off and not cached:
        memory.mark_unreachable(engine)
    return Facts(
        style=style,
        cut_off=image.is_cut_off or cached,
        identified=image.image_id is not None and bool(image.manifest or not image.stored),
        diff_ids=image.diff_ids,
        missing=[i for i, diff_id in enumerate(image.diff_ids) if diff_id in missing],
        sizes=source.layer_sizes(image) if style else (),
        known_layers=memory.known_layers(engine),
        local=pusher is None or pusher.local,
    )


def is_final(error: ImgloadError | None) -> bool:
    """Whether a full load is pointless: nothing failed, or it would fail as well."""
    return error is None or isinstance(error, (NodeFull, NodeStalled))
