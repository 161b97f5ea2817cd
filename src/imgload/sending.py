"""One group of images into one group of nodes, by the transport that suits."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import attrs

from imgload.errors import EngineError, ImgloadError, NodeFull
from imgload.events import BytesSent, Event, Note
from imgload.memory import Memory
from imgload.nodes.node import Node
from imgload.nodes.survey import Survey
from imgload.oci.digest import Digest
from imgload.oci.repack import Repack, Wanted
from imgload.plan import Action, Image
from imgload.sources.base import Found, Pusher, Source
from imgload.transports.archive import deliver
from imgload.transports.choose import Choice, Facts, TransportOption, choose
from imgload.transports.delta import Delta, Pushed, missing_layers
from imgload.transports.lanes import Delivery, Lanes
from imgload.transports.receiver import receiving


@attrs.frozen
class Sent:
    """What was sent: the images as they are now known, and how it went into each node.

    `sizes` are bytes by node and image name.
    """

    action: Action
    images: tuple[Image, ...]
    deliveries: Mapping[str, Delivery]
    sizes: Mapping[tuple[str, str], int]


@attrs.define
class Sending:
    """Sends images that come from one source."""

    source: Source
    surveys: Mapping[str, Survey]
    option: TransportOption
    on_event: Callable[[Event], None]
    memory: Memory = attrs.field(factory=Memory.load)

    def choose(self, images: Mapping[Image, Found], nodes: Sequence[Node]) -> bool:
        """Return whether the images are to go by delta, and tell why when that is of interest."""
        choices = [self._choice(found, nodes) for found in images.values()]
        for note in dict.fromkeys(choice.note for choice in choices if choice.note):
            self.on_event(Note(note))
        return all(choice.delta for choice in choices)

    def _choice(self, found: Found, nodes: Sequence[Node]) -> Choice:
        pusher = self.source if isinstance(self.source, Pusher) else None
        engine = pusher.address if pusher else ""
        style = pusher.push_style(found) if pusher else None
        learnt = {diff_id for diff_id, _ in self.memory.layers(engine).values()}
        missing = missing_layers(found.diff_ids, self._snapshots(nodes).values())
        sizes: Sequence[int] = ()
        if pusher and style in {"compressing", "remembering"}:
            sizes = pusher.layer_sizes(found)
        return choose(
            self.option,
            Facts(
                style=style,
                cut_off=self.memory.is_cut_off(engine),
                identified=found.image_id is not None,
                diff_ids=found.diff_ids,
                missing=missing,
                sizes=sizes,
                learnt=learnt,
            ),
        )

    def _snapshots(self, nodes: Sequence[Node]) -> dict[str, frozenset[Digest]]:
        return {node.name: self.surveys[node.name].snapshots for node in nodes}

    def by_archive(self, images: Mapping[Image, Found], nodes: Sequence[Node]) -> Sent:
        """Save the images whole, once, for all nodes."""
        unique = {image.target: found for image, found in images.items()}
        with self.source.save(list(unique.values())) as archive:
            repack = Repack(archive, _wanted(list(images)))
            deliveries = deliver(repack, self._lanes(images, nodes))
        if not repack.images:
            return Sent("full", tuple(images), deliveries, {})
        learnt = tuple(_learnt(image, repack) for image in images)
        sizes = _bytes_by_image(learnt, repack)
        by_node = {(node.name, name): size for node in nodes for name, size in sizes.items()}
        return Sent("full", learnt, deliveries, by_node)

    def by_delta(self, images: Mapping[Image, Found], nodes: Sequence[Node]) -> Sent:
        """Have the engine push the images, and pass on what the nodes lack.

        Raises:
            ImgloadError: when the push failed, and no node has an image of it.

        """
        pusher = self.source
        assert isinstance(pusher, Pusher)  # noqa: S101 - `choose` said so
        lanes = self._lanes(images, nodes)
        delta = Delta(lanes.feeds, self._snapshots(nodes))
        try:
            self._push(pusher, images, delta)
            deliveries = lanes.finish()
        except BaseException:
            lanes.abort()
            raise
        finally:
            delta.discard()
        self.memory.learn(pusher.address, delta.learnt)
        sizes = {
            (node.name, image.name): delta.traffic.pop((node.name, image.image_id), 0)
            for node in nodes
            for image in images
            if image.image_id
        }
        return Sent("delta", tuple(images), deliveries, sizes)

    def _push(self, pusher: Pusher, images: Mapping[Image, Found], delta: Delta) -> None:
        unique = {image.target: found for image, found in images.items()}
        with receiving(delta) as repository:
            for target, found in unique.items():
                names = tuple(image.name for image in images if image.target == target)
                delta.begin(self._pushed(pusher, found, names))
                try:
                    pusher.push(found, repository)
                except EngineError:
                    if not delta.reached:
                        self.memory.cut_off(pusher.address)
                    raise
                delta.end()
            delta.close()

    def _pushed(self, pusher: Pusher, found: Found, names: tuple[str, ...]) -> Pushed:
        assert found.image_id is not None  # noqa: S101 - `choose` said so
        known = dict(self.memory.layers(pusher.address))
        if found.manifest is not None:
            pairs = zip(found.manifest.layers, found.diff_ids, strict=True)
            known = {layer.digest: (diff_id, layer.size) for layer, diff_id in pairs}
        elif pusher.push_style(found) == "compressing":
            sizes = pusher.layer_sizes(found)
            if len(sizes) == len(found.diff_ids):
                known |= {d: (d, s) for d, s in zip(found.diff_ids, sizes, strict=True)}
        return Pushed(
            image_id=found.image_id,
            diff_ids=found.diff_ids,
            names=names,
            platform=found.platform,
            known=known,
            exact=found.manifest is not None,
        )

    def _lanes(self, images: Mapping[Image, Found], nodes: Sequence[Node]) -> Lanes:
        platform = next(iter(images)).platform
        return Lanes.start(nodes, platform, lambda node, n: self.on_event(BytesSent(node, n)))


def _wanted(images: Sequence[Image]) -> list[Wanted]:
    """Return what to take out of the saved archive: each image once, with all its names."""
    first = {image.target: image for image in images}
    return [
        Wanted(target, tuple(i.name for i in images if i.target == target), image.platform)
        for target, image in first.items()
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
    """Whether a full load would fail as well: there is no room, or nothing failed."""
    return error is None or isinstance(error, NodeFull)
