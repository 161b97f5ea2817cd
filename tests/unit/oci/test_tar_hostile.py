"""Damaged and hostile tar streams raise ArchiveInvalid, early and in constant memory."""

import io
import tarfile
from collections.abc import Iterator
from contextlib import suppress
from itertools import chain, repeat

import pytest
from hypothesis import given
from hypothesis import strategies as st

from imgload.core.errors import ArchiveInvalid, ImgloadError
from imgload.oci import tar
from imgload.oci.tar import BLOCK, read_tar
from tests.unit.archives import Image as SampleImage
from tests.unit.archives import docker20, pack, split
from tests.unit.bounds import memory_below, within

NINE = "\N{FULLWIDTH DIGIT NINE}"
GOOD = pack([("a" * 120, b"x" * 700), ("folder/link", "../a"), ("b", b"y" * 512)])


def drain(archive: bytes | Iterator[bytes]) -> list[str]:
    chunks = [archive] if isinstance(archive, bytes) else archive
    return [member.path for member, _ in read_tar(chunks)]


def signed(block: bytearray) -> bytes:
    """Return a header with its checksum made right."""
    block[148:156] = b" " * 8
    block[148:156] = b"%06o\0 " % sum(block)
    return bytes(block)


def raw_header(
    name: bytes = b"a", size: bytes = b"00000000000\0", kind: bytes = b"0", link: bytes = b""
) -> bytes:
    block = bytearray(BLOCK)
    block[: len(name)], block[124:136], block[156:157] = name, size, kind
    block[157 : 157 + len(link)], block[257:265] = link, b"ustar\x0000"
    return signed(block)


def extended(records: bytes, kind: bytes = b"x") -> bytes:
    size = b"%011o\0" % len(records)
    return raw_header(size=size, kind=kind) + records + bytes(-len(records) % BLOCK)


def record(key: str, value: str) -> bytes:
    """Return one record of a pax header, its own length before it."""
    body = f" {key}={value}\n".encode()
    length = len(body) + len(str(len(body)))
    length = len(body) + len(str(length))
    return str(length).encode() + body


def base256(value: int) -> bytes:
    return b"\x80" + value.to_bytes(11, "big")


@pytest.mark.parametrize("length", range(0, GOOD.index(tar.END) + 1, BLOCK))
def test_read_tar_detects_a_cut_at_any_block(length: int) -> None:
    """To tarfile, an archive without its end marker is complete."""
    with pytest.raises(ArchiveInvalid):
        drain(GOOD[:length])


@given(st.integers(0, GOOD.index(tar.END) - 1))
def test_read_tar_detects_a_cut_anywhere(length: int) -> None:
    """In a header, a body or its padding."""
    with pytest.raises(ArchiveInvalid):
        drain(GOOD[:length])


@pytest.mark.parametrize("position", [0, 50, 124, 135, 156, 257, 300])
def test_read_tar_detects_a_damaged_header(position: int) -> None:
    """By its checksum, in the first member and in later ones."""
    for start in (0, GOOD.rindex(b"ustar", 0, GOOD.index(tar.END)) - 257):
        damaged = bytearray(GOOD)
        damaged[start + position] ^= 1
        with pytest.raises(ArchiveInvalid):
            drain(bytes(damaged))


@pytest.mark.parametrize("field", [b"not octal!!!", b"-0000000001\0", b"\xff" * 12, b"9" * 12])
def test_read_tar_rejects_a_malformed_size(field: bytes) -> None:
    """Neither octal nor base-256, or negative in either."""
    with pytest.raises(ArchiveInvalid):
        drain(raw_header(size=field) + tar.END)


@pytest.mark.parametrize("kind", [b"x", b"g", b"L", b"K"])
@pytest.mark.parametrize("claim", [tar.MAX_EXTENDED_HEADER + 1, 1 << 30, 1 << 40])
def test_read_tar_rejects_a_huge_extended_header_before_reading_it(kind: bytes, claim: int) -> None:
    """tarfile would read all of it into memory."""
    endless = repeat(bytes(1 << 20))
    archive = iter([raw_header(size=base256(claim), kind=kind), *[next(endless)] * 3])
    with memory_below(8 << 20), pytest.raises(ArchiveInvalid, match="claims"):
        drain(archive)


@pytest.mark.parametrize("claim", [(1 << 40) + 1, 1 << 60, (1 << 87) - 1])
def test_read_tar_rejects_a_member_beyond_1_tib(claim: int) -> None:
    """Whatever base-256 can say."""
    with pytest.raises(ArchiveInvalid, match="claims"):
        drain(raw_header(size=base256(claim)))


@pytest.mark.parametrize("claim", [str((1 << 40) + 1), "-1", "1e9", "", " 1", "1_0", NINE])
def test_read_tar_rejects_an_absurd_pax_size(claim: str) -> None:
    """The limit is that of the header."""
    with pytest.raises(ArchiveInvalid):
        drain(extended(record("size", claim)) + raw_header() + tar.END)


def test_a_pax_size_of_5000_digits_is_refused() -> None:
    """Python's own limit on such numbers is a ValueError."""
    with pytest.raises(ArchiveInvalid):
        drain(extended(record("size", "9" * 5000)) + raw_header() + tar.END)


def test_a_pax_record_length_of_5000_digits_is_refused() -> None:
    """The same, in front of the record."""
    with pytest.raises(ArchiveInvalid):
        drain(extended(b"0" * 5000 + b"9 path=x\n") + raw_header() + tar.END)


@pytest.mark.parametrize("content", [b"hello world", b"x" * 511, bytes(100), GOOD[:300]])
def test_read_tar_rejects_less_than_a_header(content: bytes) -> None:
    """It is another file, not a cut archive."""
    with pytest.raises(ArchiveInvalid, match=r"^not a tar archive$"):
        drain(content)
    with pytest.raises(ArchiveInvalid, match="212 bytes too early"):
        drain(raw_header() + raw_header()[:300])


def test_a_first_header_that_cannot_be_read_says_why() -> None:
    """A damaged gzip stream, perhaps."""

    def broken() -> Iterator[bytes]:
        yield GOOD[:100]
        raise ArchiveInvalid("the gzip stream is damaged")

    with pytest.raises(ArchiveInvalid, match="the gzip stream"):
        drain(broken())


def test_a_member_of_1_tib_ends_as_cut_off_in_constant_memory() -> None:
    """Its claim is believed only as far as bytes come."""
    chunks = iter([raw_header(size=base256(1 << 40)), *repeat(bytes(1 << 20), 64)])
    with memory_below(4 << 20), pytest.raises(ArchiveInvalid, match="too early"):
        drain(chunks)


@pytest.mark.parametrize(
    "records",
    [
        b"x",
        b"5",
        b"5 ",
        b"0 path=a\n",
        b"-9 path=a\n",
        b"99 path=a\n",
        b"2 path=a\n",
        b" path=a\n",
        b"\xb2 path=a\n",
        b"+9 path=a\n",
        b"1_0 path=ab\n",
        record("GNU.sparse.major", "1"),
        record("GNU.sparse.size", "1099511627776"),
        record("path", "../x"),
        record("path", "/etc/x"),
        record("path", "a\0b"),
        record("path", "x" * (tar.MAX_PATH + 1)),
    ],
    ids=repr,
)
def test_a_bad_pax_header_is_refused(records: bytes) -> None:
    """Malformed, sparse, or a path out of the archive."""
    with pytest.raises(ArchiveInvalid):
        drain(extended(records) + raw_header() + tar.END)


def test_a_pax_header_of_many_small_records_is_read_quickly() -> None:
    """1 MiB of five-byte records: work that grows with their square takes minutes."""
    records = b"5 a=\n" * (tar.MAX_EXTENDED_HEADER // 5)
    with within(3):
        assert drain(extended(records) + raw_header() + tar.END) == ["a"]


def test_a_sparse_member_is_refused() -> None:
    """No image archive has one; its size lies."""
    with pytest.raises(ArchiveInvalid, match="sparse"):
        drain(raw_header(kind=b"S") + tar.END)


@pytest.mark.parametrize(
    "name", ["../x", "/etc/x", "a/../../b", "..", "a/../..", "//x", "./../x", "/", "../" * 30]
)
def test_a_path_out_of_the_archive_is_refused(name: str) -> None:
    """Absolute, or climbing."""
    with pytest.raises(ArchiveInvalid, match="leads out"):
        drain(raw_header(name.encode()) + tar.END)


@pytest.mark.parametrize(
    ("name", "link"),
    [("a", "../x"), ("a", "/etc/passwd"), ("a/b", "../../x"), ("a/b", "/a"), ("a/b/c", "../../..")],
)
def test_a_symbolic_link_out_of_the_archive_is_refused(name: str, link: str) -> None:
    """Seen from the folder that it is in."""
    with pytest.raises(ArchiveInvalid, match="leads out"):
        drain(raw_header(name.encode(), kind=b"2", link=link.encode()) + tar.END)


@pytest.mark.parametrize("link", ["../x", "/etc/passwd", "a/../../x"])
def test_a_hard_link_out_of_the_archive_is_refused(link: str) -> None:
    """Seen from the archive's root."""
    with pytest.raises(ArchiveInvalid, match="leads out"):
        drain(raw_header(b"a/b/c", kind=b"1", link=link.encode()) + tar.END)


@pytest.mark.parametrize("name", ["./manifest.json", "a/../manifest.json", "manifest.json"])
def test_a_path_within_the_archive_is_normalised(name: str) -> None:
    """`tar -C folder .` writes ./ before each name."""
    assert drain(raw_header(name.encode()) + tar.END) == ["manifest.json"]


def test_too_many_members_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    """Headers without content are cheap to send, and each is remembered."""
    monkeypatch.setattr(tar, "MAX_MEMBERS", 5)
    with pytest.raises(ArchiveInvalid, match="more than 5 members"):
        drain(raw_header() * 6 + tar.END)


def test_as_many_members_as_allowed_are_read(monkeypatch: pytest.MonkeyPatch) -> None:
    """The limit itself is not beyond the limit."""
    monkeypatch.setattr(tar, "MAX_MEMBERS", 5)
    assert len(drain(raw_header() * 5 + tar.END)) == 5


def test_endless_extended_headers_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    """They count as members."""
    monkeypatch.setattr(tar, "MAX_MEMBERS", 50)
    with pytest.raises(ArchiveInvalid):
        drain(repeat(extended(record("path", "a"))))


@pytest.mark.parametrize("data", [b"x", b"PK\3\4" * 200, b"\x1f\x8b" + bytes(600), b"{}" * 300])
def test_read_tar_rejects_other_formats(data: bytes) -> None:
    """A zip, a gzip, a JSON file."""
    with pytest.raises(ArchiveInvalid):
        drain(data)


@given(st.binary(max_size=3 * BLOCK))
def test_any_bytes_are_refused_or_read(data: bytes) -> None:
    """Never another error."""
    with suppress(ImgloadError):
        drain(data)


@given(st.binary(min_size=BLOCK, max_size=BLOCK), st.binary(max_size=2000))
def test_any_header_with_a_right_checksum_is_refused_or_read(block: bytes, rest: bytes) -> None:
    """Beyond the checksum nothing is believed, either."""
    with suppress(ImgloadError):
        drain(signed(bytearray(block)) + rest)


SAMPLE = pack(docker20(SampleImage()))


@given(
    st.integers(0, len(SAMPLE) // BLOCK - 1),
    st.integers(0, BLOCK - 1),
    st.binary(min_size=1, max_size=24),
    st.integers(1, 2000),
)
def test_a_mutated_archive_is_refused_or_read(
    block: int, offset: int, junk: bytes, chunk: int
) -> None:
    """With its checksum made right again where it was a header."""
    damaged = bytearray(SAMPLE)
    damaged[block * BLOCK + offset : block * BLOCK + offset + len(junk)] = junk
    start = block * BLOCK
    if damaged[start + 257 : start + 262] == b"ustar":
        damaged[start : start + BLOCK] = signed(damaged[start : start + BLOCK])
    with suppress(ImgloadError):
        drain(split(bytes(damaged), chunk))


@given(st.lists(st.binary(max_size=40), max_size=6))
def test_any_pax_records_are_refused_or_read(records: list[bytes]) -> None:
    """As tarfile does, or stricter; never another error."""
    with suppress(ImgloadError):
        drain(extended(b"".join(records)) + raw_header() + tar.END)


def test_tarfile_reads_the_headers_made_here() -> None:
    """These tests would prove nothing with headers that are no headers."""
    archive = extended(record("path", "long")) + raw_header(b"a", kind=b"2", link=b"b") + tar.END
    with tarfile.open(fileobj=io.BytesIO(archive)) as opened:
        assert [(m.name, m.linkname) for m in opened.getmembers()] == [("long", "b")]


def pax_header(records: bytes) -> bytes:
    size = b"%011o\0" % len(records)
    padded = records.ljust(-(-len(records) // BLOCK) * BLOCK, b"\0")
    return raw_header(b"x", size, b"x") + padded


class Counted:
    """Chunks that are counted as they are taken; the last one is repeated for ever."""

    def __init__(self, *chunks: bytes, then: bytes) -> None:
        self.chunks = iter(chunks)
        self.then = then
        self.size = 0

    def __iter__(self) -> Iterator[bytes]:
        for chunk in chain(self.chunks, repeat(self.then)):
            self.size += len(chunk)
            yield chunk


@pytest.mark.parametrize("record", [b"5 a=\n", b"6 a=b\n", b"9 path=x\n"])
def test_pax_records_are_bounded_for_the_whole_archive(record: bytes) -> None:
    """Each takes a microsecond; 50,000 headers of 1 MiB would have 10,000,000,000."""
    header = pax_header(record * (500_000 // len(record)))
    archive = Counted(then=header)
    with pytest.raises(ArchiveInvalid, match="too many extended"):
        drain(iter(archive))
    assert archive.size < 8 << 20


@pytest.mark.parametrize("kind", [b"g", b"L", b"K"])
def test_extended_headers_are_bounded_for_the_whole_archive(kind: bytes) -> None:
    """Also those that are not looked into."""
    size = 1 << 20
    archive = Counted(then=raw_header(b"x", b"%011o\0" % size, kind) + bytes(size))
    with pytest.raises(ArchiveInvalid, match="too many extended"):
        drain(iter(archive))
    assert archive.size < 80 << 20


def test_read_tar_accepts_the_extended_headers_of_tools() -> None:
    """bsdtar writes about ten records for each member."""
    records = (
        b"".join(b"20 LIBARCHIVE.x=abc\n" for _ in range(9)) + b"30 mtime=1700000000.123456789\n"
    )
    member = pax_header(records) + raw_header()
    assert len(drain(iter([member * 20_000, tar.END]))) == 20_000


def test_read_tar_does_not_read_endless_padding() -> None:
    """Compressed, 34 MB of them are 1 TiB."""
    archive = Counted(GOOD, then=bytes(1 << 20))
    assert drain(iter(archive)) == ["a" * 120, "folder/link", "b"]
    assert archive.size <= len(GOOD) + tar.MAX_PADDING + (1 << 20)


def test_all_members_together_are_bounded() -> None:
    """As one member is; what is passed over is decompressed."""
    half = tar.MAX_SIZE // 2 + 1

    class Holes:
        def __init__(self) -> None:
            self.chunks = iter([raw_header(size=b"\x80" + half.to_bytes(11, "big"))] * 3)

        def __iter__(self) -> Iterator[bytes]:
            return self.chunks

        def skip(self, size: int) -> None:
            assert size <= half + BLOCK

    with pytest.raises(ArchiveInvalid, match="claim more than"):
        list(read_tar(Holes()))
