"""What is sent in part, and what only whole."""

from collections.abc import Collection, Mapping
from pathlib import Path

import attrs
import pytest

from imgload.clusters.nodes.containerd import ContentStore
from imgload.clusters.nodes.node import Node
from imgload.clusters.nodes.survey import Survey
from imgload.core.errors import NodeFull
from imgload.engines.cache import EngineCache
from imgload.loader.send import Sending, Sent
from imgload.oci.digest import Digest
from imgload.oci.document import LAYER, Descriptor
from imgload.sources.archive import ArchiveSource
from imgload.sources.locate import locate, named
from imgload.transports.base import Order, Shipment, Transport
from imgload.transports.imports import ImportTransport
from tests.unit.archives import FORMS, Image, layer, pack
from tests.unit.fakes import RUNNING, LocalEngine
from tests.unit.samples import NOTHING

APP = Image((layer("base"), layer("app")))


def sending(tmp_path: Path, survey: Survey = NOTHING, form: str = "oci") -> tuple[Sending, Node]:
    path = tmp_path / "app.tar"
    path.write_bytes(pack(FORMS[form](APP)))
    [image] = named(locate([], [ArchiveSource(str(path))], None), None)
    node = Node("kind-worker", LocalEngine(tmp_path), RUNNING)
    made = Sending(
        images=[image],
        surveys={node.name: survey},
        missing={node.name: frozenset(image.diff_ids[1:])},
        option="auto",
        on_event=lambda _: None,
        transport=ImportTransport(),
        memory=EngineCache(tmp_path / "m"),
    )
    return made, node


@pytest.mark.parametrize("form", FORMS)
def test_layers_are_left_out_only_if_the_archive_identifies_them(tmp_path: Path, form: str) -> None:
    """Archives of Docker before 25 do not: all layers are sent and announced."""
    made, node = sending(tmp_path, form=form)
    assert (made.delta_or_none([node]) is None) == (form == "docker20")


@pytest.mark.parametrize("verified", [True, False])
def test_only_layers_that_a_verified_node_has_unpacked_are_cached(
    tmp_path: Path, *, verified: bool
) -> None:
    """The base was on the node: nothing shows that the blob in the manifest is that layer."""
    base, app = map(Digest.of, APP.layers)
    made, node = sending(tmp_path, attrs.evolve(NOTHING, snapshots=frozenset([base])))
    [image] = made.images
    blobs = {Digest.of(b"one"): (base, 1), Digest.of(b"two"): (app, 2)}
    sent = Sent((image,), {}, "import", layers=blobs, plain_sizes={base: 3, app: 4})
    made.cache_layers(sent, [node.name] if verified else [])
    assert set(made.memory.layers(image.origin.address).values()) == (
        {(app, 2)} if verified else set()
    )
    assert made.memory.plain_sizes() == ({app: 4} if verified else {})


class AskingTransport(Transport):
    """Asks in which form a node stores layers, and delivers nothing."""

    def __init__(self, diff_ids: Collection[Digest]) -> None:
        self.diff_ids, self.layers = diff_ids, dict[Digest, Descriptor]()

    def start(self, order: Order) -> Shipment:
        self.layers |= order.stored_layers(order.nodes[0].name, self.diff_ids)
        raise NodeFull("no space")


class DescribingNode(Node):
    """Stores layers, either uncompressed or as a blob of its own."""

    def stored_layers(
        self, content: ContentStore, diff_ids: Collection[Digest]
    ) -> Mapping[Digest, Descriptor]:
        own = content.forms_of(diff_ids)
        return {diff_id: Descriptor(LAYER, blob, 7) for blob, diff_id in own.items()}


def test_the_sizes_that_a_node_describes_are_cached(tmp_path: Path) -> None:
    """So that the next build needs no further command on the node."""
    base, app = map(Digest.of, APP.layers)
    manifest, blob = Digest.of(b"manifest"), Digest.of(b"compressed app")
    content = ContentStore(
        frozenset([manifest, base, blob]), layers={manifest: (base, blob)}, diff_ids={blob: app}
    )
    made, _ = sending(tmp_path, attrs.evolve(NOTHING, content=content))
    node = DescribingNode("kind-worker", LocalEngine(tmp_path), RUNNING)
    made.transport = asking = AskingTransport({base, app})
    with pytest.raises(NodeFull):
        made.by_save([node])
    assert {d: layer.digest for d, layer in asking.layers.items()} == {base: base, app: blob}
    assert made.memory.plain_sizes() == {base: 7}
