"""A third-party backend that uses only the interfaces in docs/backends.md."""

from __future__ import annotations

import io
import json
import tarfile
import threading
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from pathlib import Path

import attrs
import pytest

import imgload
from imgload import (
    BlobWriter,
    ClusterProvider,
    ContainerHost,
    Delivery,
    Digest,
    Image,
    ImageContent,
    ImageStore,
    NodeRuntime,
    Order,
    Platform,
    Shipment,
    Source,
    Transport,
)
from imgload.clusters import provider
from imgload.clusters.nodes.base import PreviousNames
from imgload.clusters.nodes.containerd import ContentStore
from imgload.clusters.nodes.node import containerd_nodes
from imgload.clusters.nodes.survey import NamedImage, Survey, SurveyQuery
from imgload.clusters.provider import NodeContainer
from imgload.core.errors import EngineFailed, NodeUnusable
from imgload.engines.base import Container, EngineImage, EventsOpened, ImageEvent
from imgload.engines.endpoint import Endpoint
from imgload.oci.document import IMAGE_NAME, ImageConfig, Manifest
from tests.unit import archives
from tests.unit.fakes import RUNNING, LocalEngine
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


class Shelf(ImageStore):
    """An engine that stores images in memory, without containers."""

    endpoint = Endpoint("docker", "unix:///shelf.sock")

    def __init__(self, *images: archives.Image) -> None:
        self.images = {image.name: image for image in images}

    def find(self, name: str) -> EngineImage | None:
        for image in self.images.values():
            config = ImageConfig.parse(image.config)
            if name in {image.name, str(config.digest)}:
                names, size = (image.name,), sum(map(len, image.layers))
                return EngineImage(
                    config.digest, config.digest, names, config.platform, config.diff_ids, size
                )
        return None

    def names(self, references: Sequence[str] = ()) -> dict[str, Digest]:
        del references
        return {name: Digest.of(image.config) for name, image in self.images.items()}

    def image_events(self, since: int | None) -> Iterator[EventsOpened | ImageEvent]:
        del since
        yield EventsOpened()

    def save(
        self, images: Sequence[str], platform: Platform | None, size: int = 0
    ) -> AbstractContextManager[Iterator[bytes]]:
        del platform, size
        wanted = [i for i in self.images.values() if str(Digest.of(i.config)) in images]
        return nullcontext(iter([archives.pack(archives.oci(*wanted))]))

    def pushing(self, image: Digest, repository: str) -> AbstractContextManager[Callable[[], None]]:
        raise EngineFailed(f"the shelf does not push {image} to {repository}")

    def layer_sizes(self, image: Digest) -> list[int]:
        del image
        return []

    def close(self) -> None:
        """Nothing is open."""


class MemoryNode(NodeRuntime):
    """A node whose container runtime is a dictionary."""

    def __init__(self, folder: Path) -> None:
        super().__init__("memory", LocalEngine(folder), RUNNING)
        self.records: dict[str, Digest] = {}
        self.blobs: dict[Digest, bytes] = {}

    def survey(self, question: SurveyQuery) -> Survey:
        configs = {
            d: ImageConfig.parse(self.blobs[d]) for d in set(question.image_ids) & self.blobs.keys()
        }
        manifests = {d: Manifest.parse(self.blobs[d]).config.digest for d in self.records.values()}
        return attrs.evolve(
            EMPTY,
            records=dict(self.records),
            content=ContentStore(frozenset(self.blobs), manifests),
            snapshots=frozenset(c.chain_id for c in configs.values() if c.chain_id),
            configs=configs,
        )

    def import_layout(
        self, layout: Iterable[bytes | memoryview], platform: Platform, question: SurveyQuery
    ) -> Survey:
        del platform
        with tarfile.open(fileobj=io.BytesIO(b"".join(layout))) as tar:
            files = {m.name: tar.extractfile(m).read() for m in tar if m.isfile()}  # type: ignore[union-attr]
        index = json.loads(files.pop("index.json"))
        self.blobs |= {Digest.of(raw): raw for raw in files.values()}
        for entry in index["manifests"]:
            self.records[entry["annotations"][IMAGE_NAME]] = Digest.parse(entry["digest"])
        return self.survey(question)

    def tag(
        self, image: NamedImage, existing: str, target: Digest, before: PreviousNames
    ) -> Survey:
        before.records = dict(self.records)
        if self.records[existing] == target:
            self.records[image.name] = target
        return self.survey(SurveyQuery.about([image]))

    def label(self, loaded: Sequence[tuple[str, Digest]]) -> None:
        """There is nothing to prune."""

    def images(self) -> Mapping[str, Digest]:
        return self.records

    def untag(self, names: Sequence[str]) -> None:
        for name in names:
            del self.records[name]

    remove = untag


class MemoryProvider(ClusterProvider):
    """Makes clusters of `MemoryNode`s."""

    name = "memory"
    label = "memory"
    context_prefix = "memory-"

    def nodes(self, containers: Sequence[Container]) -> Iterator[NodeContainer]:
        return (NodeContainer(c.labels["memory"], "", c) for c in containers)

    def runtime_of(self, node: NodeContainer, engine: ContainerHost) -> NodeRuntime:
        del node
        assert isinstance(engine, LocalEngine)
        return MemoryNode(Path(engine.endpoint.url.removeprefix("unix://")).parent)


def test_a_loader_loads_from_any_image_store(tmp_path: Path) -> None:
    image = archives.Image()
    node = StoredNode(StoredEngine(tmp_path, image))
    node.after = loaded(image, Digest.of(image.manifest))
    report = imgload.Loader(Shelf(image), [node]).load(image.name)
    assert report.ok
    assert (report.images[0].source, report.images[0].nodes[0].transport) == ("docker", "import")


def test_a_node_may_have_any_container_runtime(tmp_path: Path) -> None:
    """Imported at first, then present, then tagged; a name that is removed is added again."""
    image, node = archives.Image(), MemoryNode(tmp_path)
    loader = imgload.Loader(Shelf(image), [node])
    actions = [loader.load(image.name).images[0].nodes[0].action for _ in range(2)]
    tagged = loader.load(image.name, tag="other:v1").images[0].nodes[0]
    node.untag([archives.NAME])
    again = loader.load(image.name).images[0].nodes[0]
    assert [*actions, tagged.action, again.action] == ["full", "present", "tagged", "tagged"]
    assert again.ok
    assert set(node.images()) == {archives.NAME, "docker.io/library/other:v1"}
    assert loader.verify(image.name).ok


def test_a_provider_decides_the_runtime_of_its_nodes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(provider, "_PROVIDERS", list(provider.providers()))
    imgload.register_provider(MemoryProvider())
    engine = LocalEngine(tmp_path, containers=[Container("c", "n", "running", {"memory": "dev"})])
    nodes = imgload.select_nodes([engine], "dev", [])
    assert [type(node) for node in nodes] == [MemoryNode]
    image = archives.Image()
    assert imgload.Loader(Shelf(image), nodes).load(image.name).ok
    with pytest.raises(NodeUnusable) as caught:
        containerd_nodes(nodes)
    assert caught.value.node == "memory"
