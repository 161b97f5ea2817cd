"""One stream to several readers, and the manifest for each of them."""

import io
import json
import tarfile
import threading
import time
from collections.abc import Callable, Collection, Iterable, Iterator
from functools import partial

import pytest

from imgload.core.parallel import Task
from imgload.oci.archive import ArchiveSender, Wanted
from imgload.oci.content import ImageContent
from imgload.oci.digest import Digest
from imgload.oci.document import LAYER, Descriptor, ImageConfig, Manifest
from imgload.transports.layout import Feed, LayoutWriter, StreamAborted, manifest_for
from tests.unit.archives import NAME, Image, oci, pack

PIECES = [bytes([i]) for i in range(200)]


def send(stream: Iterable[bytes], feeds: list[Feed]) -> None:
    """Write a stream to all feeds, then complete them; or abort them."""
    try:
        for chunk in stream:
            for feed in feeds:
                feed.put(chunk)
    except BaseException:
        for feed in feeds:
            feed.abort()
        raise
    for feed in feeds:
        feed.complete()


def collect(feed: Feed) -> bytes:
    return b"".join(bytes(piece) for piece in feed)


def test_every_reader_gets_the_whole_stream() -> None:
    """In order, at any pace of the others."""
    feeds = [Feed() for _ in range(4)]
    tasks = [Task(lambda f=f: collect(f)) for f in feeds]  # type: ignore[misc]
    send(PIECES, feeds)
    assert [task.result() for task in tasks] == [b"".join(PIECES)] * 4


def test_an_empty_stream_ends() -> None:
    feed = Feed()
    send([], [feed])
    assert collect(feed) == b""


def test_a_slow_reader_bounds_the_chunks_in_memory() -> None:
    """Memory never contains the whole image (minikube #17983)."""
    read = 0
    ahead = []

    def source() -> Iterator[bytes]:
        nonlocal read
        for piece in PIECES:
            read += 1
            yield piece

    slow, fast = Feed(), Feed()
    rest = Task(lambda: collect(fast))
    sender = Task(lambda: send(source(), [slow, fast]))
    for taken, _piece in enumerate(slow, 1):
        if taken < 20:
            time.sleep(0.005)
        ahead.append(read - taken)
    sender.result()
    assert rest.result() == b"".join(PIECES)
    assert max(ahead) <= 6


def test_a_reader_that_leaves_does_not_stop_the_others() -> None:
    """k3d hangs when one node blocks the shared writer (#900, #1020)."""
    leaver, stayer = Feed(), Feed()
    rest = Task(lambda: collect(stayer))

    def read_a_little() -> None:
        next(iter(leaver))
        leaver.leave()

    leaving = Task(read_a_little)
    send(PIECES, [leaver, stayer])
    leaving.result()
    assert rest.result() == b"".join(PIECES)


def test_leave_frees_a_waiting_sender() -> None:
    silent, stayer = Feed(), Feed()
    rest = Task(lambda: collect(stayer))
    sender = Task(lambda: send(PIECES, [silent, stayer]))
    time.sleep(0.05)
    silent.leave()
    sender.result()
    assert rest.result() == b"".join(PIECES)


@pytest.mark.parametrize("error", [ValueError, KeyboardInterrupt])
def test_a_failing_source_fails_every_reader(error: type[BaseException]) -> None:
    """Also on Ctrl-C: the content is incomplete."""

    def broken() -> Iterator[bytes]:
        yield from PIECES[:10]
        raise error

    feeds = [Feed() for _ in range(3)]
    tasks = [Task(lambda f=f: collect(f)) for f in feeds]  # type: ignore[misc]
    with pytest.raises(error):
        send(broken(), feeds)
    for task in tasks:
        with pytest.raises(StreamAborted):
            task.result()


def test_an_aborted_stream_fails_before_waiting_chunks_are_read() -> None:
    feed = Feed()
    feed.put(b"x")
    feed.abort()
    with pytest.raises(StreamAborted):
        next(iter(feed))


def test_waiting_chunks_are_read_after_complete() -> None:
    feed = Feed()
    feed.put(b"x")
    feed.put(b"y")
    feed.complete()
    assert collect(feed) == b"xy"


def test_complete_and_abort_wake_a_waiting_reader() -> None:
    for finish, expected in ((Feed.complete, None), (Feed.abort, StreamAborted)):
        feed = Feed()
        task = Task(lambda f=feed: collect(f))  # type: ignore[misc]
        threading.Timer(0.02, finish, [feed]).start()
        if expected:
            with pytest.raises(expected):
                task.result()
        else:
            assert task.result() == b""


IMAGE = Image(gzipped=True)
DIFF_IDS = tuple(map(Digest.of, IMAGE.layers))
BLOBS = tuple(map(Digest.of, IMAGE.blobs))
DOCKER_GZIP = "application/vnd.docker.image.rootfs.diff.tar.gzip"


def content(name: str = NAME, **plain: int) -> ImageContent:
    manifest, config = Manifest.parse(IMAGE.manifest), ImageConfig.parse(IMAGE.config)
    sizes = dict(zip(DIFF_IDS, plain.values(), strict=False))
    return ImageContent(manifest, config, (name,), config.platform, plain=sizes)


def stored_as(*asked: Digest) -> Callable[[Collection[Digest]], dict[Digest, Descriptor]]:
    """Describe each layer as a blob that another tool has compressed."""

    def describe(diff_ids: Collection[Digest]) -> dict[Digest, Descriptor]:
        assert set(diff_ids) == set(asked)
        return {d: Descriptor(DOCKER_GZIP, Digest.of(d.hex.encode()), 7) for d in diff_ids}

    return describe


def test_a_manifest_whose_layers_the_node_stores_or_gets_stays() -> None:
    manifest = manifest_for(content(), {BLOBS[0]}, {BLOBS[1]}, stored_as(), keep=False)
    assert manifest.raw == IMAGE.manifest


def test_a_manifest_refers_to_layers_in_the_form_that_the_node_stores() -> None:
    """Uncompressed if their size is known, and otherwise as the node's own manifests do."""
    [_, top] = DIFF_IDS
    described = stored_as(top)(DIFF_IDS[1:])[top]
    manifest = manifest_for(content(base=9), {DIFF_IDS[0]}, (), stored_as(top), keep=False)
    assert manifest.layers == (
        Descriptor(LAYER, DIFF_IDS[0], 9),
        Descriptor(f"{LAYER}+gzip", described.digest, 7),
    )
    assert manifest.config.digest == IMAGE.image_id


def test_a_layer_of_unknown_size_is_described_by_the_node() -> None:
    manifest = manifest_for(content(), DIFF_IDS, (), stored_as(*DIFF_IDS), keep=False)
    assert [layer.size for layer in manifest.layers] == [7, 7]


@pytest.mark.parametrize(("name", "keep"), [(NAME, True), (f"app@{IMAGE.digest}", False)])
def test_a_manifest_that_a_name_or_an_option_demands_stays(name: str, *, keep: bool) -> None:
    manifest = manifest_for(content(name), (), (), stored_as(), keep=keep)
    assert manifest.digest == IMAGE.digest


def test_a_layout_for_docker_archives_has_empty_files_for_layers_that_were_not_sent() -> None:
    image = Image()
    base, app = image.layers
    feeds = {"docker": Feed(), "containerd": Feed()}
    layouts = [Task(partial(collect, feed)) for feed in feeds.values()]
    writer = LayoutWriter(feeds, docker_nodes=frozenset(["docker"]))
    wanted = [Wanted(image.image_id, (NAME,))]
    ArchiveSender(iter([pack(oci(image))]), wanted, [Digest.of(base)]).send(writer)
    writer.close()
    for feed in feeds.values():
        feed.complete()
    with_items, without = (members(layout.result()) for layout in layouts)
    [item] = json.loads(with_items["manifest.json"])
    assert with_items[item["Config"]] == image.config
    assert [with_items[path] for path in item["Layers"]] == [b"", app]
    assert item["RepoTags"] == [NAME]
    assert len(without) == len(with_items) - 2


def members(layout: bytes) -> dict[str, bytes]:
    with tarfile.open(fileobj=io.BytesIO(layout)) as archive:
        files = {member.name: archive.extractfile(member) for member in archive}
        return {name: file.read() for name, file in files.items() if file}
