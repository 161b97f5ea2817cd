"""Requests of nodes: which images they get, and how an image comes from its engine."""

from __future__ import annotations

import http.client
import queue
import threading
import time
from collections.abc import Callable
from http import HTTPStatus
from pathlib import Path

import pytest

from imgload.core.errors import EngineFailed, EngineUnreachable, ImageAmbiguous
from imgload.core.parallel import Task, in_parallel
from imgload.core.state import state_folder
from imgload.engines.base import EngineImage
from imgload.engines.endpoint import Endpoint
from imgload.oci.digest import Digest
from imgload.oci.document import Manifest
from imgload.tools.serve import store as module
from imgload.tools.serve.cache import BlobCache
from imgload.tools.serve.images import LocalImages
from imgload.tools.serve.store import NodePull, NodeStore
from tests.unit.archives import NAME, Image, layer
from tests.unit.stored import AMD, StoredEngine

IMAGE = Image(gzipped=True)
OTHER = Image(layers=(layer("other"),))
LAYER = layer("plain") + bytes(3_000_000)
HALF = 2_000_000
PLAIN = Image(layers=(LAYER,))


class CountedEngine(StoredEngine):
    """Counts its pushes: one for the image ID, and one for the blobs."""

    pushes = 0

    def push(self, repository: str) -> None:
        self.pushes += 1
        super().push(repository)


class PausedEngine(CountedEngine):
    """Sends half of a plain layer, and continues with `rest`, or breaks off if that is None."""

    def __init__(self, folder: Path) -> None:
        super().__init__(folder, PLAIN)
        self.rest: queue.SimpleQueue[bytes | None] = queue.SimpleQueue()

    def push(self, repository: str) -> None:
        host, _, path = repository.partition("/")
        connection = http.client.HTTPConnection(host)
        blob = f"/v2/{path}/blobs/{Digest.of(LAYER)}"
        connection.request("HEAD", blob)
        with connection.getresponse() as answer:
            is_missing = answer.status == HTTPStatus.NOT_FOUND
        if is_missing:
            connection.request("POST", f"/v2/{path}/blobs/uploads/")
            with connection.getresponse() as answer:
                place = answer.headers["Location"]
            connection.putrequest("PUT", f"{place}?digest={Digest.of(LAYER)}")
            connection.putheader("Content-Length", str(len(LAYER)))
            connection.endheaders(LAYER[:HALF])
            rest = self.rest.get()
            if rest is None:
                connection.close()
                raise EngineFailed("the engine was stopped", final=True)
            connection.send(rest)
            with connection.getresponse() as answer:
                if answer.status >= HTTPStatus.BAD_REQUEST:
                    raise EngineFailed("the layer was refused", final=True)  # not pushed again
        connection.close()
        super().push(repository)


def until(condition: Callable[[], bool]) -> None:
    """Wait until a condition is met."""
    deadline = time.monotonic() + 10
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.01)


def partial_files() -> list[Path]:
    return list((state_folder() / "blobs").glob(".partial-*"))


@pytest.fixture(autouse=True)
def cache_folder(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))


@pytest.fixture
def engine(tmp_path: Path) -> CountedEngine:
    return CountedEngine(tmp_path, IMAGE)


@pytest.fixture
def events() -> list[NodePull]:
    return []


@pytest.fixture
def store(engine: CountedEngine, events: list[NodePull]) -> NodeStore:
    images = LocalImages([engine], BlobCache.open(1 << 23))
    nodes = {name: (name, AMD) for name in ("n1", "n2", "n3")}
    return NodeStore(images, events.append, nodes)


def read(store: NodeStore, digest: Digest) -> bytes:
    with store.reading(digest) as blob:
        assert blob
        return b"".join(blob.chunks())


def test_several_nodes_share_one_transfer(store: NodeStore, engine: CountedEngine) -> None:
    """The layers are served uncompressed, and the image ID is the engine's."""
    start = threading.Barrier(3)

    def pull(node: str) -> Manifest:
        start.wait()
        document = store.document(node, NAME)
        assert document
        return Manifest.parse(document[2])

    first, *others = in_parallel([lambda node=node: pull(node) for node in store.nodes])  # type: ignore[misc]
    assert others == [first, first]
    assert engine.pushes == 2
    assert engine.given == set()
    assert first.config.digest == IMAGE.image_id
    assert [read(store, each.digest) for each in first.layers] == list(IMAGE.layers)
    assert read(store, IMAGE.image_id) == IMAGE.config


@pytest.fixture
def arriving(tmp_path: Path, store: NodeStore) -> tuple[PausedEngine, Task[object]]:
    """An engine that has sent half of a layer, and the request of a node that waits for it."""
    paused = PausedEngine(tmp_path)
    store.images.engines = [paused]
    request: Task[object] = Task(lambda: store.document("n1", NAME))
    until(lambda: bool(partial_files()))
    return paused, request


@pytest.mark.parametrize("rest", [None, bytes(len(LAYER) - HALF - 1) + b"x"])
def test_a_transfer_that_fails_midway_fails_the_pull(
    arriving: tuple[PausedEngine, Task[object]],
    store: NodeStore,
    events: list[NodePull],
    rest: bytes | None,
) -> None:
    """It leaves nothing, and the next pull transfers the layer again."""
    paused, request = arriving
    paused.rest.put(rest)
    assert request.result() is None
    (event,) = events
    assert isinstance(event, NodePull)
    assert event.error
    assert paused.given == set()
    until(lambda: not partial_files())  # the connection of the upload ends by itself
    paused.rest.put(LAYER[HALF:])
    assert store.document("n1", NAME)
    assert read(store, Digest.of(LAYER)) == LAYER


def test_a_server_that_ends_leaves_no_transfer(
    arriving: tuple[PausedEngine, Task[object]], store: NodeStore
) -> None:
    """No partial blob, and no temporary tag in the engine."""
    paused, request = arriving
    closing = Task(store.images.close)
    until(lambda: store.images.cache.is_closed)
    paused.rest.put(LAYER[HALF:])
    closing.result()
    assert paused.given == set()
    until(lambda: not partial_files())  # the connection of the upload ends by itself
    assert request.result() is None


def test_a_removed_blob_is_fetched_again(store: NodeStore, engine: CountedEngine) -> None:
    store.document("n1", NAME)
    digest = Digest.of(IMAGE.layers[1])
    (state_folder() / "blobs" / str(digest).replace(":", "-")).unlink()
    assert read(store, digest) == IMAGE.layers[1]
    assert engine.pushes == 3
    with store.reading(Digest.of(b"never served")) as blob:
        assert blob is None


def test_an_image_that_is_larger_than_the_cache_is_refused(
    store: NodeStore, engine: CountedEngine, events: list[NodePull]
) -> None:
    """With the reason, although an engine does not report why its push failed."""
    enough, store.images.cache.limit = store.images.cache.limit, 15_000
    assert store.document("n1", NAME) is None
    (event,) = events
    assert isinstance(event, NodePull)
    assert event.error
    assert "--cache-size" in event.error.hint
    store.images.cache.limit = enough
    assert store.document("n1", NAME)
    assert engine.given == set()


def test_a_manifest_is_served_by_its_digest(store: NodeStore) -> None:
    """As containerd requests it, after it has resolved the tag."""
    document = store.document("n1", NAME)
    assert document
    by_digest = f"{NAME.partition(':')[0]}@{document[0]}"
    assert store.document("n1", by_digest) == document


def test_a_pull_is_reported_once(
    store: NodeStore, monkeypatch: pytest.MonkeyPatch, events: list[NodePull]
) -> None:
    """With its bytes; a node that has the image already only asks for a digest."""
    monkeypatch.setattr(module, "_IDLE_SECONDS", 0.0)
    store.document("n1", NAME)
    assert store.finished_pulls() == []
    for size in (10, 5):
        store.count("n1", IMAGE.image_id, size)
        store.count("n2", IMAGE.image_id, size)
    (pull,) = store.finished_pulls()
    assert (pull.node, pull.name, pull.image_id, pull.bytes_sent) == (
        ("n1", "app:v1", IMAGE.image_id, 15)
    )
    assert store.finished_pulls() == []
    assert events == []


@pytest.mark.parametrize(
    "name", ["docker.io/library/none:v1", "ghcr.io/app:v1", "/app:v1", "docker.io/A:v1", ":", "@"]
)
def test_other_names_are_not_found(store: NodeStore, name: str, engine: CountedEngine) -> None:
    assert store.document("n1", name) is None
    assert engine.pushes == 0


def test_a_name_that_matches_no_pattern_is_not_found(store: NodeStore) -> None:
    store.images.patterns = ["other", "app:dev-*"]
    assert store.document("n1", NAME) is None
    store.images.patterns = ["app"]
    assert store.document("n1", NAME)


def test_an_ambiguous_name_is_refused(
    store: NodeStore, tmp_path: Path, events: list[NodePull]
) -> None:
    """No guess: the node gets "not found", and the user an error."""
    other = CountedEngine(tmp_path, OTHER)
    other.endpoint = Endpoint("docker", f"unix://{tmp_path}/other.sock")
    store.images.engines = [*store.images.engines, other]
    assert store.document("n1", NAME) is None
    (event,) = events
    assert isinstance(event, NodePull)
    assert isinstance(event.error, ImageAmbiguous)
    assert (event.node, event.name, event.to_json()["ok"]) == ("n1", "app:v1", False)
    assert other.given == set()


class StoppedEngine(CountedEngine):
    """Does not answer."""

    def find(self, name: str) -> EngineImage | None:
        raise EngineUnreachable(f"no engine answers about {name}", endpoint=self.endpoint.url)


def test_an_engine_that_stopped_does_not_keep_others_from_serving(
    store: NodeStore, tmp_path: Path, events: list[NodePull]
) -> None:
    """It may have the images that no other has, so its error is reported for these."""
    stopped = StoppedEngine(tmp_path, OTHER)
    stopped.endpoint = Endpoint("podman", f"unix://{tmp_path}/stopped.sock")
    store.images.engines = [stopped, *store.images.engines]
    assert store.document("n1", NAME)
    assert store.document("n1", "docker.io/library/none:v1") is None
    event = events[-1]
    assert isinstance(event, NodePull)
    assert isinstance(event.error, EngineUnreachable)
