"""A third-party backend that uses only the interfaces in docs/backends.md."""

from __future__ import annotations

import threading
from collections.abc import Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from pathlib import Path

import attrs
import pytest

import imgload
from imgload import (
    BlobWriter,
    Delivery,
    Digest,
    Image,
    ImageContent,
    NodeRuntime,
    Order,
    Platform,
    Shipment,
    Source,
    Transport,
)
from imgload.oci.document import ImageConfig
from tests.unit import archives
from tests.unit.stored import EMPTY, StoredEngine, StoredNode, loaded


class Folder(Source):
    """A source that stores each image as an OCI archive in memory."""

    name = describe = address = "folder"
    listing = "ls folder"

    def __init__(self, *images: archives.Image) -> None:
        self.images = {image.name: image for image in images}

    def find(self, text: str, platform: Platform | None) -> Image | None:
        del platform
        stored = self.images.get(text)
        if stored is None:
            return None
        config = ImageConfig.parse(stored.config)
        return Image(
            origin=self,
            id=text,
            names=(archives.NAME,),
            target=config.digest,
            image_id=config.digest,
            platform=config.platform,
            diff_ids=config.diff_ids,
            size=sum(map(len, stored.layers)),
        )

    def save(self, images: Sequence[Image]) -> AbstractContextManager[Iterator[bytes]]:
        wanted = [self.images[image.id] for image in images]
        return nullcontext(iter([archives.pack(archives.oci(*wanted))]))


@attrs.define
class Buffer:
    """A blob in memory."""

    blobs: dict[Digest, bytes]
    data: bytearray = attrs.field(factory=bytearray)

    def write(self, chunk: bytes | memoryview) -> None:
        self.data += chunk

    def finish(self, digest: Digest | None = None) -> Digest:
        computed = Digest.of(bytes(self.data))
        assert digest in {None, computed}
        self.blobs[computed] = bytes(self.data)
        return computed

    def abandon(self) -> None:
        """Discard the blob."""


@attrs.define
class Parcel(Shipment):
    """A shipment that is delivered when it is complete."""

    nodes: Sequence[NodeRuntime]
    sent: dict[str, dict[Digest, int]] = attrs.field(factory=dict)
    blobs: dict[Digest, bytes] = attrs.field(factory=dict)
    images: list[ImageContent] = attrs.field(factory=list)
    lock: threading.Lock = attrs.field(factory=threading.Lock)

    def lacks(self, digest: Digest, diff_id: Digest | None) -> bool:
        del diff_id
        return digest not in self.blobs

    def blob(
        self, size: int, digest: Digest | None = None, diff_id: Digest | None = None
    ) -> BlobWriter:
        del size, digest, diff_id
        return Buffer(self.blobs)

    @contextmanager
    def exclusive(self) -> Iterator[None]:
        with self.lock:
            yield

    def image(self, content: ImageContent) -> None:
        self.images.append(content)

    @property
    def is_open(self) -> bool:
        return True

    def complete(self) -> None:
        """Accept the end of the images."""

    def finish(self) -> Mapping[str, Delivery]:
        for node in self.nodes:
            assert isinstance(node, StoredNode)
            self.sent[node.name] = {digest: len(raw) for digest, raw in self.blobs.items()}
            node.now = node.after
        return {node.name: Delivery(sum(self.sent[node.name].values())) for node in self.nodes}

    def abort(self) -> None:
        """Discard the content."""


class Post(Transport):
    """Delivers content in one piece."""

    name = "post"

    def __init__(self) -> None:
        self.parcels: list[Parcel] = []

    def start(self, order: Order) -> Parcel:
        self.parcels.append(Parcel(order.nodes))
        return self.parcels[-1]


def test_a_loader_uses_a_third_party_source_and_transport(tmp_path: Path) -> None:
    """The node is verified as for imgload's own."""
    image = archives.Image()
    node = StoredNode(StoredEngine(tmp_path, image))
    node.after = loaded(image, Digest.of(image.manifest))
    post = Post()
    report = imgload.Loader(Folder(image), [node], transport=post).load(image.name)
    [result] = report.images[0].nodes
    assert (result.action, result.transport, report.images[0].source) == ("full", "post", "folder")
    assert result.ok
    [parcel] = post.parcels
    assert {*map(Digest.of, image.layers), image.image_id} == set(parcel.blobs)
    assert [content.config.digest for content in parcel.images] == [image.image_id]


def test_a_transport_that_delivers_nothing_fails_verification(tmp_path: Path) -> None:
    """The second survey of the node detects it."""
    image = archives.Image()
    node = StoredNode(StoredEngine(tmp_path, image))
    node.after = EMPTY
    loader = imgload.Loader(Folder(image), [node], transport=Post())
    with pytest.raises(imgload.LoadFailed) as caught:
        loader.load(image.name)
    assert isinstance(caught.value.report.images[0].nodes[0].error, imgload.NotVerified)
