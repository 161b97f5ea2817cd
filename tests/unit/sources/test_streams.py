"""An archive's bytes: files, pipes, compressed or not, whole or damaged."""

import bz2
import gzip
import io
import lzma
import os
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import IO

import pytest
from hypothesis import given
from hypothesis import strategies as st

from imgload.errors import ArchiveInvalid, UsageError
from imgload.sources.streams import CHUNK, FileChunks, chunks_of, open_archive
from tests.unit.archives import Image, docker20, pack
from tests.unit.bounds import memory_below, within

if sys.version_info >= (3, 14):
    from compression import zstd
else:
    from backports import zstd

ARCHIVE = pack(docker20(Image()))
Squeeze = Callable[[bytes], bytes]
SQUEEZED: dict[str, Squeeze] = {"gzip": gzip.compress, "zstd": zstd.compress}
SIZES = [1, 511, CHUNK - 1, CHUNK, CHUNK + 1, 3 * CHUNK, 3 * CHUNK + 7]


def read(data: bytes, *, scanning: bool = False) -> bytes:
    return b"".join(chunks_of(io.BytesIO(data), scanning=scanning))


@pytest.mark.parametrize("scanning", [False, True])
@pytest.mark.parametrize("form", SQUEEZED)
def test_compression_is_told_by_content(form: str, *, scanning: bool) -> None:
    """Whatever the file is called; `docker save | gzip`, `podman save | zstd`."""
    assert read(SQUEEZED[form](ARCHIVE), scanning=scanning) == ARCHIVE
    assert read(ARCHIVE, scanning=scanning) == ARCHIVE


@pytest.mark.parametrize("form", SQUEEZED)
def test_an_archive_is_read_more_than_once(form: str) -> None:
    """First for what is in it, then for its layers."""
    file = io.BytesIO(SQUEEZED[form](ARCHIVE))
    for scanning in (True, False, False):
        assert b"".join(chunks_of(file, scanning=scanning)) == ARCHIVE


@pytest.mark.parametrize("form", SQUEEZED)
@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("kind", ["zeros", "noise"])
def test_any_size_comes_through(form: str, size: int, kind: str) -> None:
    """Also where input and output end at a chunk's border."""
    data = bytes(size) if kind == "zeros" else os.urandom(size)
    chunks = list(chunks_of(io.BytesIO(SQUEEZED[form](data)), scanning=False))
    assert b"".join(chunks) == data
    assert max(map(len, chunks)) <= CHUNK


@given(st.lists(st.binary(max_size=200), min_size=1, max_size=5), st.sampled_from(list(SQUEEZED)))
def test_streams_one_after_another_are_one(parts: list[bytes], form: str) -> None:
    """As pigz, pzstd and `cat a.gz b.gz` write them."""
    assert read(b"".join(map(SQUEEZED[form], parts))) == b"".join(parts)


@pytest.mark.parametrize("size", [1, 512, 100_000])
def test_zeros_behind_gzip_are_padding(size: int) -> None:
    """Tapes and block devices; gzip itself takes them so."""
    assert read(gzip.compress(ARCHIVE) + bytes(size)) == ARCHIVE


def test_padding_behind_gzip_is_not_kept() -> None:
    """A sparse file can have any amount of it for nothing."""
    data = gzip.compress(ARCHIVE) + bytes(12 << 20)
    with memory_below(8 << 20):
        assert sum(map(len, chunks_of(io.BytesIO(data), scanning=False))) == len(ARCHIVE)


@pytest.mark.parametrize("form", SQUEEZED)
def test_a_stream_that_is_cut_off_is_invalid(form: str) -> None:
    """Wherever: a download that stopped must not look like a smaller image."""
    data = SQUEEZED[form](os.urandom(300))
    for length in range(4, len(data)):
        with pytest.raises(ArchiveInvalid, match=f"{form} stream"):
            read(data[:length])


@pytest.mark.parametrize("form", SQUEEZED)
def test_a_stream_that_is_damaged_is_invalid(form: str) -> None:
    """gzip has a checksum; zstd's is optional, its structure is not."""
    data = bytearray(SQUEEZED[form](os.urandom(4000)))
    data[6:9] = b"\xff\xff\xff"
    data[-4:] = b"\xff\xff\xff\xff"
    with pytest.raises(ArchiveInvalid, match=f"the archive's {form} stream is"):
        read(bytes(data))


@pytest.mark.parametrize("form", SQUEEZED)
def test_garbage_behind_a_stream_is_invalid(form: str) -> None:
    """It is not padding, and not another stream."""
    with pytest.raises(ArchiveInvalid):
        read(SQUEEZED[form](ARCHIVE) + b"garbage")


@given(st.sampled_from([b"\x1f\x8b", b"\x28\xb5\x2f\xfd"]), st.binary(max_size=80))
def test_any_bytes_behind_a_magic_end_as_an_error_of_ours(magic: bytes, data: bytes) -> None:
    """Or are decompressed, should they happen to be right."""
    with suppress(ArchiveInvalid):
        read(magic + data)


@pytest.mark.parametrize("data", [b"", b"\x1f", b"x", b"\x28\xb5\x2f", *map(bytes, (3, 600))])
def test_what_is_not_compressed_comes_as_it_is(data: bytes) -> None:
    """The tar reader says what it thinks of it."""
    assert read(data) == data


@pytest.mark.parametrize("squeeze", [bz2.compress, lzma.compress])
def test_other_compressions_are_left_alone(squeeze: Squeeze) -> None:
    """No engine saves them; they are no tar archive then."""
    assert read(squeeze(ARCHIVE)) == squeeze(ARCHIVE)


@pytest.mark.parametrize("form", SQUEEZED)
def test_a_decompression_bomb_is_not_held(form: str) -> None:
    """A thousand times as much as the file, a chunk at a time."""
    bomb = SQUEEZED[form](bytes(64 << 20))
    assert len(bomb) < 1 << 20
    with within(5), memory_below(8 << 20):
        assert sum(map(len, chunks_of(io.BytesIO(bomb), scanning=False))) == 64 << 20


def test_passing_over_is_seeking() -> None:
    """Nothing of a layer is read while looking for what is in an archive."""

    class Counting(io.BytesIO):
        taken = 0

        def read(self, size: int | None = -1, /) -> bytes:
            data = super().read(size)
            self.taken += len(data)
            return data

    file = Counting(b"a" * 10 + bytes(8 << 20) + b"z" * 10)
    chunks = FileChunks(file, 10)
    pieces = iter(chunks)
    assert next(pieces) == b"a" * 10
    chunks.skip(8 << 20)
    assert list(pieces) == [b"z" * 10]
    assert file.taken == 20


def test_passing_over_the_end_leaves_nothing() -> None:
    """A truncated file has no more; it does not fail here."""
    chunks = FileChunks(io.BytesIO(b"abc"), 1)
    chunks.skip(100)
    assert list(chunks) == []


@pytest.mark.parametrize("path", ["absent", "folder", "plain/below"])
def test_what_cannot_be_opened_is_wrong_usage(tmp_path: Path, path: str) -> None:
    """With the path, and what the system says."""
    (tmp_path / "folder").mkdir()
    (tmp_path / "plain").touch()
    with pytest.raises(UsageError, match=r"cannot read .*: \w+") as caught:
        open_archive(str(tmp_path / path))
    assert str(tmp_path / path) in caught.value.message


def test_a_file_is_opened(tmp_path: Path) -> None:
    """Nothing is copied."""
    (tmp_path / "a.tar").write_bytes(ARCHIVE)
    with open_archive(str(tmp_path / "a.tar")) as file:
        assert b"".join(chunks_of(file, scanning=False)) == ARCHIVE


@contextmanager
def pipe_of(data: bytes) -> Iterator[IO[bytes]]:
    """Yield the end of a pipe into which the data is written."""
    reading, writing = os.pipe()

    def fill() -> None:
        with suppress(BrokenPipeError), os.fdopen(writing, "wb") as end:
            end.write(data)

    threading.Thread(target=fill, daemon=True).start()
    with os.fdopen(reading, "rb") as end:
        yield end


def use_as_stdin(monkeypatch: pytest.MonkeyPatch, file: IO[bytes]) -> None:
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(file))


@pytest.mark.parametrize("data", [ARCHIVE, *(f(ARCHIVE) for f in SQUEEZED.values())])
def test_a_pipe_is_read_more_than_once(monkeypatch: pytest.MonkeyPatch, data: bytes) -> None:
    """`podman save app | imgload load --from -`, compressed or not."""
    with pipe_of(data) as pipe:
        use_as_stdin(monkeypatch, pipe)
        with open_archive("-") as file:
            for scanning in (True, False):
                assert b"".join(chunks_of(file, scanning=scanning)) == ARCHIVE


def test_a_pipe_is_not_held_in_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    """It goes to a file without a name."""
    with pipe_of(bytes(16 << 20)) as pipe:
        use_as_stdin(monkeypatch, pipe)
        with memory_below(6 << 20), open_archive("-") as file:
            assert file.seek(0, os.SEEK_END) == 16 << 20


def test_standard_input_from_a_file_is_not_copied(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """`imgload load --from - <app.tar`."""
    (tmp_path / "a.tar").write_bytes(ARCHIVE)
    with (tmp_path / "a.tar").open("rb") as file:
        use_as_stdin(monkeypatch, file)
        assert open_archive("-") is file
        assert b"".join(chunks_of(file, scanning=False)) == ARCHIVE


def test_a_terminal_is_not_waited_for(monkeypatch: pytest.MonkeyPatch) -> None:
    """Somebody forgot the pipe; the hint shows it."""
    leader, follower = os.openpty()
    with os.fdopen(leader, "rb"), os.fdopen(follower, "rb", buffering=0) as terminal:
        use_as_stdin(monkeypatch, io.BufferedReader(terminal))
        with within(2), pytest.raises(UsageError, match="terminal") as caught:
            open_archive("-")
    assert "docker save" in caught.value.hint


def test_no_standard_input_at_all_is_wrong_usage(monkeypatch: pytest.MonkeyPatch) -> None:
    """`imgload load --from - <&-`, or under a service manager: Python has no sys.stdin then."""
    monkeypatch.setattr(sys, "stdin", None)
    with pytest.raises(UsageError):
        open_archive("-")


@pytest.mark.skipif(not Path("/dev/fd").exists(), reason="needs /dev/fd")
@pytest.mark.parametrize("data", [ARCHIVE, gzip.compress(ARCHIVE)])
def test_a_pipe_with_a_path_is_read_more_than_once(data: bytes) -> None:
    """`imgload load --from <(docker save app)`: the shell hands over /dev/fd/63."""
    with pipe_of(data) as pipe, open_archive(f"/dev/fd/{pipe.fileno()}") as file:
        for scanning in (True, False):
            assert b"".join(chunks_of(file, scanning=scanning)) == ARCHIVE
