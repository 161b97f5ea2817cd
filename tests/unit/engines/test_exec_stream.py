"""The exec connection, over a real pair of sockets."""

import socket
import struct
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import suppress

import pytest
from hypothesis import given
from hypothesis import strategies as st

from imgload.core.errors import EngineFailed, NodeStalled
from imgload.engines import exec_stream as module
from imgload.engines.base import OpenInput
from imgload.engines.endpoint import Endpoint
from imgload.engines.exec_stream import ExecStream
from imgload.engines.http import Answer, Request, Wire

OUT, ERR = 1, 2


class Ours:
    """The end that imgload has; stands for the response that the socket came out of."""

    def __init__(self) -> None:
        sock, self.engine = socket.socketpair()
        self.stream = ExecStream(sock, sock.makefile("rb"), self)
        self.closed = False
        self.engine.settimeout(10)

    def close(self) -> None:
        self.closed = True


@pytest.fixture
def ours() -> Iterator[Ours]:
    made = Ours()
    yield made
    made.engine.close()


def frame(stream: int, payload: bytes) -> bytes:
    return struct.pack(">BxxxL", stream, len(payload)) + payload


def behave(work: Callable[[], object]) -> threading.Thread:
    """Run the engine's side of a conversation; that imgload leaves is no failure of it."""

    def run() -> None:
        with suppress(OSError):
            work()

    thread = threading.Thread(target=run, daemon=True)
    thread.start()
    return thread


def test_both_outputs_are_kept_apart(ours: Ours) -> None:
    """The frames' first byte says which is which."""
    ours.engine.sendall(frame(OUT, b"o1") + frame(ERR, b"e1") + frame(OUT, b"o2") + frame(OUT, b""))
    ours.engine.close()
    assert ours.stream.communicate(None) is True
    assert ours.stream.stdout == b"o1o2"
    assert ours.stream.stderr == b"e1"


@given(
    st.lists(st.tuples(st.sampled_from([OUT, ERR]), st.binary(max_size=300)), max_size=6),
    st.lists(st.integers(1, 40), max_size=20),
)
def test_frames_may_be_split_anywhere(frames: list[tuple[int, bytes]], cuts: list[int]) -> None:
    """In the header as well as in the payload."""
    ours = Ours()
    data = b"".join(frame(*each) for each in frames)

    def send() -> None:
        rest = data
        for cut in cuts:
            ours.engine.sendall(rest[:cut])
            rest = rest[cut:]
        ours.engine.sendall(rest)
        ours.engine.close()

    thread = behave(send)
    assert ours.stream.communicate(None) is True
    thread.join()
    assert ours.stream.stdout == b"".join(p for s, p in frames if s == OUT)
    assert ours.stream.stderr == b"".join(p for s, p in frames if s == ERR)


@pytest.mark.parametrize("length", range(1, 8 + 5))
def test_output_that_is_cut_off_is_an_error(ours: Ours, length: int) -> None:
    """A dropped connection must not look like the end of a command's output."""
    ours.engine.sendall(frame(OUT, b"first") + frame(OUT, b"hello")[:length])
    ours.engine.close()
    with pytest.raises(EngineFailed):
        ours.stream.communicate(None)


@pytest.mark.parametrize("length", [(16 << 20) + 1, 0xFFFFFFFF])
def test_a_frame_beyond_the_limit_is_refused(ours: Ours, length: int) -> None:
    """4 GiB are not waited for."""
    ours.engine.sendall(struct.pack(">BxxxL", OUT, length))
    with pytest.raises(EngineFailed, match="announces"):
        ours.stream.communicate(None)


def test_endless_output_is_refused(ours: Ours, monkeypatch: pytest.MonkeyPatch) -> None:
    """Memory is bounded over all frames."""
    monkeypatch.setattr(module, "MAX_STDOUT", 100_000)
    behave(lambda: ours.engine.sendall(frame(OUT, bytes(50_000)) * 5))
    with pytest.raises(EngineFailed, match="printed more than"):
        ours.stream.communicate(None)


def test_an_import_may_be_silent_for_as_long_as_its_size_needs(
    ours: Ours, monkeypatch: pytest.MonkeyPatch
) -> None:
    """ctr says nothing while it unpacks."""
    monkeypatch.setattr(module, "UNPACK_SECONDS", 0.0)
    monkeypatch.setattr(module, "UNPACK_BYTES", 1000)

    def engine() -> None:
        received(ours)
        threading.Event().wait(2.5)
        ours.engine.close()

    behave(engine)
    assert ours.stream.communicate([bytes(60_000)]) is True


def test_only_the_end_of_stderr_is_kept(ours: Ours) -> None:
    """The last words say what went wrong."""

    def chatter() -> None:
        for _ in range(300):
            ours.engine.sendall(frame(ERR, b"progress" * 125))
        ours.engine.sendall(frame(ERR, b"no space left on device"))
        ours.engine.close()

    behave(chatter)
    ours.stream.communicate(None)
    assert ours.stream.stderr.endswith(b"no space left on device")
    assert 64 << 10 <= len(ours.stream.stderr) <= 128 << 10


def received(ours: Ours) -> bytes:
    return b"".join(iter(lambda: ours.engine.recv(65536), b""))


def test_all_input_arrives_and_its_end_with_it(ours: Ours) -> None:
    """The command's output is read at the same time."""
    arrived = []

    def engine() -> None:
        arrived.append(received(ours))
        ours.engine.sendall(frame(OUT, b"done"))
        ours.engine.close()

    thread = behave(engine)
    pieces = [bytes([i]) * 10_000 for i in range(100)]
    assert ours.stream.communicate(iter(pieces)) is True
    thread.join()
    assert arrived == [b"".join(pieces)]
    assert ours.stream.stdout == b"done"


def test_a_tar_is_not_followed_by_the_end_of_input(ours: Ours) -> None:
    """nginx drops the output of a command as soon as its input is closed."""

    def engine() -> None:
        assert ours.engine.recv(100) == b"tar"
        ours.engine.settimeout(0.2)
        with suppress(TimeoutError):
            if ours.engine.recv(1) == b"":
                return
        ours.engine.sendall(frame(OUT, b"imported"))
        ours.engine.close()

    behave(engine)
    assert ours.stream.communicate(OpenInput([b"tar"])) is True
    assert ours.stream.stdout == b"imported"


def test_much_output_while_input_is_sent_does_not_lock_up(ours: Ours) -> None:
    """Both sides' buffers would be full."""

    def engine() -> None:
        ours.engine.sendall(frame(OUT, bytes(4 << 20)))
        received(ours)
        ours.engine.close()

    behave(engine)
    assert ours.stream.communicate([bytes(1 << 20)] * 4) is True
    assert len(ours.stream.stdout) == 4 << 20


def test_a_command_that_ends_early_ends_the_sending(ours: Ours) -> None:
    """The rest is not sent, and its last words are there."""

    def engine() -> None:
        ours.engine.recv(10)
        ours.engine.sendall(frame(ERR, b"ctr: bad image"))
        ours.engine.close()

    behave(engine)
    endless = iter(lambda: bytes(1 << 16), b"")
    assert ours.stream.communicate(endless) is False
    assert ours.stream.stderr == b"ctr: bad image"


def test_an_engine_that_takes_nothing_stalls(ours: Ours, monkeypatch: pytest.MonkeyPatch) -> None:
    """A node that hangs does not hang imgload (k3d #1020)."""
    monkeypatch.setattr(module, "STALL_SECONDS", 1)
    start = time.monotonic()
    with pytest.raises(NodeStalled, match="1 seconds"):
        ours.stream.communicate(iter(lambda: bytes(1 << 20), b""))
    assert time.monotonic() - start < 5
    assert ours.closed


def test_an_engine_that_takes_next_to_nothing_stalls(
    ours: Ours, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A socket that has stalled takes a little now and then; all other nodes wait for it."""
    monkeypatch.setattr(module, "STALL_SECONDS", 1)
    ours.engine.settimeout(None)

    def engine() -> None:
        while ours.engine.recv(32 << 10):
            time.sleep(0.15)

    behave(engine)
    start = time.monotonic()
    with pytest.raises(NodeStalled):
        ours.stream.communicate([bytes(2 << 20)])
    assert time.monotonic() - start < 4


@pytest.mark.parametrize("error", [ZeroDivisionError, KeyboardInterrupt])
def test_a_source_that_breaks_drops_the_connection(ours: Ours, error: type[BaseException]) -> None:
    """The command must not take what it has for all of it."""

    def broken() -> Iterator[bytes]:
        yield b"half"
        raise error

    with pytest.raises(error):
        ours.stream.communicate(broken())
    assert ours.closed


def test_an_error_while_reading_is_raised_where_it_was_sent(ours: Ours) -> None:
    """From the reading thread into the sending one."""

    def engine() -> None:
        ours.engine.recv(1)
        ours.engine.sendall(b"\1\0\0\0\xff\xff\xff\xff")
        received(ours)

    behave(engine)
    with pytest.raises(EngineFailed, match="announces"):
        ours.stream.communicate([b"x"])


def test_closing_twice_is_harmless(ours: Ours) -> None:
    """`finally` closes what an error closed before."""
    ours.stream.close()
    ours.stream.close()
    assert ours.engine.recv(1) == b""


def started(server: socket.socket) -> socket.socket:
    connection, _ = server.accept()
    while b"\r\n\r\n" not in connection.recv(65536):
        pass
    return connection


def start_exec(server: socket.socket) -> Answer:
    """Return the answer of an engine that listens there."""
    endpoint = Endpoint("docker", f"tcp://127.0.0.1:{server.getsockname()[1]}")
    request = Request("POST", "/exec/1/start", headers={"Upgrade": "tcp"}, seconds=5)
    return Wire(endpoint).send(request)


def upgrade(server: socket.socket) -> None:
    connection = started(server)
    head = b"HTTP/1.1 101 UPGRADED\r\nConnection: Upgrade\r\nUpgrade: tcp\r\n\r\n"
    connection.sendall(head + frame(OUT, b"early"))
    connection.sendall(frame(OUT, connection.recv(100)))
    connection.close()


def test_frames_that_come_with_the_headers_are_not_lost() -> None:
    """The answer's own reader holds them already."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        behave(lambda: upgrade(server))
        with start_exec(server) as answer:
            stream = ExecStream.take_over(answer)
            assert stream.communicate([b"input"]) is True
            stream.close()
    assert stream.stdout == b"earlyinput"


def answer_without_upgrade(server: socket.socket) -> None:
    connection = started(server)
    output = frame(OUT, b"out") + frame(ERR, b"err")
    chunks = b"".join(b"%x\r\n%s\r\n" % (len(part), part) for part in (output[:5], output[5:]))
    connection.sendall(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n")
    connection.sendall(chunks + b"0\r\n\r\n")
    connection.close()


def test_output_is_read_through_a_proxy_that_does_not_upgrade() -> None:
    """It sends the output in chunks of its own."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        behave(lambda: answer_without_upgrade(server))
        with start_exec(server) as answer:
            assert not answer.upgraded
            stream = ExecStream.take_over(answer)
            assert stream.communicate(None) is True
            stream.close()
    assert bytes(stream.stdout + stream.stderr) == b"outerr"
