"""What goes into each node of what is pushed: over a real socket, as an engine would push."""

from __future__ import annotations

import gzip
import http.client
import io
import json
import tarfile
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from functools import partial
from typing import Any

import attrs
import pytest

from imgload.core.errors import ImgloadError
from imgload.core.parallel import Task
from imgload.oci.content import ImageContent
from imgload.oci.digest import Digest, chain_ids
from imgload.oci.document import IMAGE_NAME, ImageConfig, Manifest
from imgload.oci.platform import Platform
from imgload.registry.server import receiving
from imgload.registry.sink import UploadWriter
from imgload.sources import push as module
from imgload.sources.push import ExpectedPush, ForwardingSink, PushIncomplete
from imgload.transports.layout import Feed, LayoutWriter, StreamAborted
from tests.unit.archives import NAME, Image, layer
from tests.unit.registry.test_server_bounds import resident
from tests.unit.samples import sourced

IMAGE = Image((layer("base"), layer("app"), layer("line")), gzipped=True)
DIFF_IDS = tuple(Digest.of(raw) for raw in IMAGE.layers)
BLOBS = tuple(Digest.of(raw) for raw in IMAGE.blobs)
AMD = Platform("linux", "amd64")


@attrs.frozen
class Holding:
    """What a node has: chain IDs that are unpacked, and blobs in its content store."""

    snapshots: frozenset[Digest] = frozenset()
    blobs: frozenset[Digest] = frozenset()

    def missing(self, image: Image) -> frozenset[Digest]:
        diff_ids = tuple(Digest.of(raw) for raw in image.layers)
        chains = zip(chain_ids(diff_ids), diff_ids, strict=True)
        return frozenset(diff_id for chain, diff_id in chains if chain not in self.snapshots)


NOTHING = Holding()
BASE = Holding(frozenset(chain_ids(DIFF_IDS)[:2]))


def pushed(image: Image = IMAGE, **changes: Any) -> ExpectedPush:
    pairs = zip(image.blobs, image.layers, strict=True)
    known = {Digest.of(blob): (Digest.of(raw), len(blob)) for blob, raw in pairs}
    diff_ids = tuple(Digest.of(raw) for raw in image.layers)
    return attrs.evolve(ExpectedPush(image.image_id, diff_ids, known, exact=True), **changes)


@attrs.define
class Nodes:
    """Nodes that import what an engine pushes, and what has gone into each."""

    layout: LayoutWriter
    streams: dict[str, bytearray]
    readers: list[threading.Thread]
    sink: ForwardingSink | None = None

    @classmethod
    def holding(cls, *images: Image, **holdings: Holding) -> Nodes:
        feeds = {name: Feed() for name in holdings}
        streams = {name: bytearray() for name in holdings}
        readers = [
            threading.Thread(target=_drain, args=(feeds[n], streams[n]), daemon=True) for n in feeds
        ]
        for reader in readers:
            reader.start()
        missing = {
            name: frozenset[Digest]().union(*(held.missing(i) for i in images or (IMAGE,)))
            for name, held in holdings.items()
        }
        stored = {name: held.blobs for name, held in holdings.items()}
        return cls(LayoutWriter(feeds, missing, stored), streams, readers)

    def begin(self, image: ExpectedPush) -> None:
        """Expect an image; it is what the registry takes from now on."""
        spools = self.sink.spools if self.sink else {}
        self.sink = ForwardingSink(image, self.layout, spools)

    @property
    def current(self) -> ForwardingSink:
        assert self.sink
        return self.sink

    def end(
        self, names: tuple[str, ...] = (NAME,), plain: Mapping[Digest, int] | None = None
    ) -> ImageContent:
        """End the push of an image."""
        return self.current.end(names, sourced(NAME, IMAGE.image_id, DIFF_IDS), plain or {})

    def stat_blob(self, digest: Digest) -> int | None:
        return self.current.stat_blob(digest)

    def upload(self, digest: Digest | None, size: int | None) -> UploadWriter:
        return self.current.upload(digest, size)

    def manifest(self, digest: Digest, raw: bytes) -> None:
        self.current.manifest(digest, raw)

    @property
    def is_writing(self) -> bool:
        """Whether a blob is on its way."""
        try:
            with self.layout.exclusive():
                return False
        except ImgloadError:
            return True

    def members(self, node: str) -> dict[str, bytes]:
        """Return what the import of a node read, by path."""
        for feed in self.layout.feeds.values():
            feed.complete()
        for reader in self.readers:
            reader.join(5)
        with tarfile.open(fileobj=io.BytesIO(self.streams[node])) as archive:
            return {m.name: archive.extractfile(m).read() for m in archive}  # type: ignore[union-attr]

    def contents(self, node: str) -> set[Digest]:
        """Return the digests of what a node was given, its index left out."""
        return {Digest.of(d) for p, d in self.members(node).items() if p.startswith("blobs/")}


def _drain(feed: Feed, into: bytearray) -> None:
    with suppress(StreamAborted):
        for chunk in feed:
            into += chunk


class Engine:
    """Pushes as Docker's containerd store does, or, where `sized` is not, as Podman does."""

    def __init__(self, repository: str, *, sized: bool = True) -> None:
        host, _, self._path = repository.partition("/")
        self._connection = http.client.HTTPConnection(host, timeout=5)
        self._sized = sized
        self.sent: list[Digest] = []

    def ask(self, method: str, path: str, body: bytes = b"") -> tuple[int, http.client.HTTPMessage]:
        self._connection.request(method, path, body)
        response = self._connection.getresponse()
        response.read()
        if response.will_close:
            self._connection.close()
        return response.status, response.headers

    def blob(self, raw: bytes, digest: Digest | None = None) -> int:
        digest = digest or Digest.of(raw)
        if self.ask("HEAD", f"/v2/{self._path}/blobs/{digest}")[0] == 200:
            return 200
        self.sent.append(digest)
        status, headers = self.ask("POST", f"/v2/{self._path}/blobs/uploads/")
        place = headers["Location"]
        if not self._sized:
            status, _ = self.ask("PATCH", place, raw)
        if status == 202:
            status, _ = self.ask("PUT", f"{place}?digest={digest}", raw if self._sized else b"")
        return status

    def push(self, image: Image) -> None:
        for raw in (*image.blobs, image.config):
            self.blob(raw)
        self.ask("PUT", f"/v2/{self._path}/manifests/latest", image.manifest)


@contextmanager
def pushing(nodes: Nodes, image: ExpectedPush, *, sized: bool = True) -> Iterator[Engine]:
    with receiving(nodes) as repository:
        nodes.begin(image)
        yield Engine(repository, sized=sized)


@pytest.mark.parametrize("sized", [True, False])
def test_a_push_sends_only_missing_blobs(*, sized: bool) -> None:
    """One layer, the config and the manifest; lower layers are not requested."""
    nodes = Nodes.holding(worker=BASE)
    with pushing(nodes, pushed(), sized=sized) as engine:
        engine.push(IMAGE)
        nodes.end()
        nodes.layout.close()
    assert engine.sent == [BLOBS[2], IMAGE.image_id]
    assert nodes.contents("worker") == {BLOBS[2], IMAGE.image_id, IMAGE.digest}


def test_the_index_is_last_and_names_the_image() -> None:
    """A stream that breaks before leaves no image behind."""
    nodes = Nodes.holding(worker=NOTHING)
    with pushing(nodes, pushed()) as engine:
        engine.push(IMAGE)
        nodes.end((NAME, "docker.io/library/other:v1"))
        nodes.layout.close()
    members = nodes.members("worker")
    assert list(members)[-1] == "index.json"
    entries = json.loads(members["index.json"])["manifests"]
    assert {entry["digest"] for entry in entries} == {str(IMAGE.digest)}
    assert [e["annotations"][IMAGE_NAME] for e in entries] == [NAME, "docker.io/library/other:v1"]


@pytest.mark.parametrize("sized", [True, False])
def test_each_node_gets_only_its_missing_layers(*, sized: bool) -> None:
    """One push serves all nodes."""
    nodes = Nodes.holding(old=BASE, new=NOTHING)
    with pushing(nodes, pushed(), sized=sized) as engine:
        engine.push(IMAGE)
        nodes.end()
        nodes.layout.close()
    assert nodes.contents("old") == {BLOBS[2], IMAGE.image_id, IMAGE.digest}
    assert nodes.contents("new") == {*BLOBS, IMAGE.image_id, IMAGE.digest}


def test_the_same_layer_on_another_parent_is_needed() -> None:
    """The key of a snapshot is its chain ID, not its diff ID."""
    moved = Image((IMAGE.layers[1], IMAGE.layers[0]), gzipped=True)
    nodes = Nodes.holding(moved, worker=BASE)
    with pushing(nodes, pushed(moved)) as engine:
        engine.push(moved)
        nodes.end()
    assert set(engine.sent) == {BLOBS[0], BLOBS[1], moved.image_id}


def test_a_shared_layer_is_sent_once() -> None:
    other = Image((*IMAGE.layers[:2], layer("other")), gzipped=True)
    nodes = Nodes.holding(IMAGE, other, worker=NOTHING)
    with receiving(nodes) as repository:
        engine = Engine(repository)
        for image in (IMAGE, other):
            nodes.begin(pushed(image))
            engine.push(image)
            nodes.end()
        nodes.layout.close()
    assert len(engine.sent) == len(set(engine.sent)) == 4 + 2
    assert {IMAGE.digest, other.digest} <= nodes.contents("worker")


def test_the_manifest_refers_to_stored_plain_layers() -> None:
    """An archive load stored the base as plain tars: the image is complete with these."""
    stored = attrs.evolve(BASE, blobs=frozenset(DIFF_IDS[:2]))
    plain = {d: len(raw) for d, raw in zip(DIFF_IDS, IMAGE.layers, strict=True)}
    nodes = Nodes.holding(worker=stored, other=BASE)
    with pushing(nodes, pushed()) as engine:
        engine.push(IMAGE)
        nodes.end(plain=plain)
        nodes.layout.close()
    members = nodes.members("worker")
    [entry] = json.loads(members["index.json"])["manifests"]
    manifest = json.loads(members[f"blobs/sha256/{Digest.parse(entry['digest']).hex}"])
    assert manifest["config"]["digest"] == str(IMAGE.image_id)
    assert [x["digest"] for x in manifest["layers"]] == [*map(str, (*DIFF_IDS[:2], BLOBS[2]))]
    assert [x["size"] for x in manifest["layers"][:2]] == [len(raw) for raw in IMAGE.layers[:2]]
    assert IMAGE.digest in nodes.contents("other"), "as it was pushed, where that is no worse"


def test_a_name_with_a_digest_keeps_its_manifest() -> None:
    """The digest is that of exactly these bytes."""
    stored = attrs.evolve(BASE, blobs=frozenset(DIFF_IDS[:2]))
    plain = {d: len(raw) for d, raw in zip(DIFF_IDS, IMAGE.layers, strict=True)}
    nodes = Nodes.holding(worker=stored)
    name = f"docker.io/library/app@{IMAGE.digest}"
    with pushing(nodes, pushed()) as engine:
        engine.push(IMAGE)
        nodes.end((name,), plain)
        nodes.layout.close()
    assert IMAGE.digest in nodes.contents("worker")


@pytest.mark.parametrize("sized", [True, False])
def test_a_blob_with_another_digest_is_refused(*, sized: bool) -> None:
    """It does not count as pushed."""
    nodes = Nodes.holding(worker=BASE)
    with pushing(nodes, pushed(), sized=sized) as engine:
        assert engine.blob(b"x" * len(IMAGE.blobs[2]), BLOBS[2]) == 400
        engine.push(attrs.evolve(IMAGE, layers=IMAGE.layers[:2]))
        with pytest.raises(PushIncomplete):
            nodes.end()


def test_a_push_of_another_image_is_incomplete() -> None:
    """The image was built again during the push."""
    other = Image((layer("another"),), gzipped=True)
    nodes = Nodes.holding(worker=NOTHING)
    with pushing(nodes, pushed()) as engine:
        engine.push(other)
        with pytest.raises(PushIncomplete):
            nodes.end()
    assert b"index.json" not in nodes.streams["worker"]


def test_a_push_without_a_missing_layer_is_incomplete() -> None:
    nodes = Nodes.holding(worker=BASE)
    with pushing(nodes, pushed()) as engine:
        engine.blob(IMAGE.config)
        engine.ask("PUT", f"/v2/{engine._path}/manifests/latest", IMAGE.manifest)  # noqa: SLF001
        with pytest.raises(PushIncomplete, match=str(BLOBS[2])):
            nodes.end()


def test_the_number_of_manifests_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    """They are kept in memory."""
    monkeypatch.setattr(module, "_MOST_MANIFESTS", 3)
    nodes = Nodes.holding(worker=NOTHING)
    with pushing(nodes, pushed()) as engine:
        path = f"/v2/{engine._path}/manifests/latest"  # noqa: SLF001
        answers = [engine.ask("PUT", path, b'{"x": %d}' % n)[0] for n in range(5)]
    assert answers == [201, 201, 201, 400, 400]


def test_a_pushed_layer_is_checked_although_it_is_not_kept() -> None:
    """Docker's graphdriver pushes large layers that the nodes have: no node verifies those."""
    nodes = Nodes.holding(worker=BASE)
    image = pushed(known={}, exact=False, limit=1, checks_layers=True)
    with pushing(nodes, image, sized=False) as engine:
        engine.push(IMAGE)
    assert not any(spool.kept for spool in nodes.current.spools.values())
    manifest, config = Manifest.parse(IMAGE.manifest), ImageConfig.parse(IMAGE.config)
    checked = nodes.current.checked(ImageContent(manifest, config, (NAME,), AMD))
    assert [diff_id for diff_id, _ in checked.values()] == list(DIFF_IDS)


@pytest.mark.parametrize(
    "blob", [b"", b"plain", gzip.compress(b"other"), IMAGE.blobs[0][:-9]], ids=len
)
def test_a_blob_that_is_another_layer_is_not_cached(blob: bytes) -> None:
    """For example one empty blob for each layer below another image (buildpacks/pack#2490)."""
    nodes = Nodes.holding(worker=BASE)
    image = pushed(known={}, exact=False, checks_layers=True)
    document = json.loads(IMAGE.manifest)
    document["layers"][0] |= {"digest": str(Digest.of(blob)), "size": len(blob)}
    with pushing(nodes, image, sized=False) as engine:
        for raw in (blob, *IMAGE.blobs[1:], IMAGE.config):
            engine.blob(raw)
        engine.ask("PUT", f"/v2/{engine._path}/manifests/latest", json.dumps(document).encode())  # noqa: SLF001
        content = nodes.end()
    assert nodes.current.checked(content).keys() == set(BLOBS[1:])


def test_a_blob_beyond_the_limit_is_not_spooled() -> None:
    """Docker's graphdriver pushes large layers that the nodes have: only their digest counts."""
    nodes = Nodes.holding(worker=BASE)
    with pushing(nodes, pushed(known={}, exact=False, limit=400), sized=False) as engine:
        assert engine.blob(bytes(100_000)) == 201
        spools = list(nodes.current.spools.values())
    assert [spool.kept for spool in spools] == [False]


def test_the_bytes_of_all_spooled_blobs_are_bounded() -> None:
    """A process that knows the repository cannot fill the disk; a full load follows."""
    nodes = Nodes.holding(worker=NOTHING)
    image = pushed(known={}, exact=False, quota=sum(map(len, IMAGE.blobs)) + 2000)
    with pushing(nodes, image, sized=False) as engine:
        assert [engine.blob(bytes([n]) * 1000) for n in range(3)] == [201] * 3
        engine.push(IMAGE)
        with pytest.raises(PushIncomplete, match="could not be kept"):
            nodes.end()


def test_parallel_layers_take_the_memory_of_one() -> None:
    """Docker's containerd store opens a connection for each, and sends all of them."""
    blobs = [bytes([number]) * (1 << 20) for number in range(120)]
    digests = tuple(map(Digest.of, blobs))
    known = {digest: (digest, 1 << 20) for digest in digests}
    feed, before, most = Feed(), resident(), [0]

    def drain() -> None:
        for _ in feed:
            most[0] = max(most[0], resident())

    threading.Thread(target=drain, daemon=True).start()
    sink = ForwardingSink(pushed(diff_ids=digests, known=known), LayoutWriter({"worker": feed}))
    with receiving(sink) as repository:
        sending = [Task(partial(Engine(repository).blob, blob)) for blob in blobs]
        assert [task.result() for task in sending] == [201] * 120
    feed.complete()
    assert most[0] - before < 40 << 20


def test_an_incomplete_blob_of_another_process_ends_the_push() -> None:
    """The next blob would be taken for its rest."""
    nodes = Nodes.holding(worker=NOTHING)
    with pushing(nodes, pushed()) as engine:
        engine.push(IMAGE)
        nodes.upload(BLOBS[0], 100).write(b"half")
        with pytest.raises(PushIncomplete, match="half a blob"):
            nodes.end()


@pytest.mark.parametrize("raw", [b'{"config"', b'{"config": 1}', b'{"config": {}, "layers": []}'])
def test_an_empty_manifest_of_another_process_is_ignored(raw: bytes) -> None:
    nodes = Nodes.holding(worker=NOTHING)
    with pushing(nodes, pushed()) as engine:
        engine.ask("PUT", f"/v2/{engine._path}/manifests/x", raw)  # noqa: SLF001
        engine.push(IMAGE)
        nodes.end()
        nodes.layout.close()
    assert nodes.contents("worker") == {*BLOBS, IMAGE.image_id, IMAGE.digest}
