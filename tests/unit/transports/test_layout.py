"""One stream to several readers."""

import threading
import time
from collections.abc import Iterable, Iterator

import pytest

from imgload.core.parallel import Task
from imgload.transports.layout import Feed, StreamAborted

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
