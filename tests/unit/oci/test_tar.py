"""read_tar yields the members that tarfile yields, for any format and any chunks."""

import io
import tarfile
from collections.abc import Iterable
from typing import Literal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from imgload.core.errors import ArchiveInvalid
from imgload.oci import tar
from imgload.oci.tar import BLOCK, Member, header, padding, read_tar
from tests.unit.archives import pack, split

FORMS: dict[str, Literal[0, 1, 2]] = {
    "ustar": tarfile.USTAR_FORMAT,
    "pax": tarfile.PAX_FORMAT,
    "gnu": tarfile.GNU_FORMAT,
}
LONG = "/".join(["d" * 90] * 4) + "/layer.tar"
NAMES = ["a", "ab/layer.tar", "d" * 99, "x" * 100, "d" * 80 + "/" + "f" * 80, "é/ü", "a b\tc"]


def read(chunks: Iterable[bytes]) -> list[tuple[Member, bytes]]:
    return [(member, b"".join(body)) for member, body in read_tar(chunks)]


def one(member: tarfile.TarInfo, form: int, content: bytes = b"") -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w", format=form) as archive:
        archive.addfile(member, io.BytesIO(content))
    return buffer.getvalue()


@pytest.mark.parametrize("form", FORMS.values(), ids=FORMS)
@pytest.mark.parametrize("name", NAMES, ids=repr)
def test_read_tar_yields_names_and_contents(form: int, name: str) -> None:
    """Up to the length of ustar's two fields."""
    archive = pack([(name, b"one"), ("second", b"")], form)
    assert read([archive]) == [
        (Member(name, "file", 3), b"one"),
        (Member("second", "file", 0), b""),
    ]


@pytest.mark.parametrize("form", ["pax", "gnu"])
def test_read_tar_yields_long_names_and_link_targets(form: str) -> None:
    """From a pax header or GNU's extra members, which apply to one member only."""
    archive = pack([(LONG, b"one"), ("link", LONG), ("second", b"two")], FORMS[form])
    assert [(m.path, m.target) for m, _ in read([archive])] == [
        (LONG, ""),
        ("link", LONG),
        ("second", ""),
    ]


@pytest.mark.parametrize("form", FORMS.values(), ids=FORMS)
@pytest.mark.parametrize(
    ("kind", "name", "link", "target"),
    [
        (tarfile.SYMTYPE, "a/b/layer.tar", "../c/layer.tar", "a/c/layer.tar"),
        (tarfile.SYMTYPE, "a", "b", "b"),
        (tarfile.LNKTYPE, "a/b/layer.tar", "c/layer.tar", "c/layer.tar"),
    ],
)
def test_read_tar_resolves_links_within_the_archive(
    form: int, kind: bytes, name: str, link: str, target: str
) -> None:
    """A symbolic link's target is relative to its folder, a hard link's to the archive."""
    member = tarfile.TarInfo(name)
    member.type, member.linkname = kind, link
    assert read([one(member, form)]) == [(Member(name, "link", 0, target), b"")]


@pytest.mark.parametrize("form", FORMS.values(), ids=FORMS)
@pytest.mark.parametrize(
    ("type_", "kind"),
    [(tarfile.DIRTYPE, "dir"), (tarfile.FIFOTYPE, "other"), (tarfile.CHRTYPE, "other")],
)
def test_read_tar_distinguishes_other_members(form: int, type_: bytes, kind: str) -> None:
    """Folders and devices have no content."""
    member = tarfile.TarInfo("folder")
    member.type = type_
    assert [m.kind for m, _ in read([one(member, form)])] == [kind]


@pytest.mark.parametrize("form", ["pax", "gnu"])
@pytest.mark.parametrize("size", [(8 << 30) - 1, 8 << 30, 9 << 30, (1 << 40) - 1])
def test_read_tar_reads_sizes_beyond_8_gib(form: str, size: int) -> None:
    """In base-256 (GNU) or in a pax header; minikube dies of 16 GB (#17983)."""
    member = tarfile.TarInfo("layer.tar")
    member.size = size
    first, _ = next(read_tar([member.tobuf(FORMS[form])]))
    assert first == Member("layer.tar", "file", size)


@given(st.lists(st.integers(1, 700) | st.just(0), min_size=1), st.sampled_from(list(FORMS)))
def test_read_tar_takes_chunks_of_any_length(sizes: list[int], form: str) -> None:
    """An empty chunk is not the end."""
    archive = pack([("a" * 90, b"x" * 700), ("é", b"y" * 512), ("l", "a"), ("e", b"")], FORMS[form])
    chunks, left = [], archive
    while left and any(sizes):
        for size in sizes:
            chunks.append(left[:size])
            left = left[size:]
    assert read([*chunks, left]) == read([archive])


@pytest.mark.parametrize("size", [1, 3, 511, 512, 513, 10240])
def test_read_tar_takes_chunks_of_equal_length(size: int) -> None:
    """Below, at and above the size of a block."""
    archive = pack([("a", b"x" * 1000), ("b", b"y" * 512)], tarfile.PAX_FORMAT)
    assert read(split(archive, size)) == read([archive])


def test_an_empty_chunk_is_not_the_end() -> None:
    """A decompressor yields one after reading only a header."""
    archive = pack([("a", b"x" * 1000)])
    assert read([b"", archive[:600], b"", b"", archive[600:], b""]) == read([archive])


@given(st.data())
def test_read_tar_skips_the_rest_of_a_body(data: st.DataObject) -> None:
    """The next member is correct."""
    archive = pack([("a", b"x" * 2000), ("b", b"second")])
    take = data.draw(st.integers(0, 10))
    chunks = split(archive, data.draw(st.integers(1, 900)))
    seen = []
    for member, body in read_tar(chunks):
        seen.append(member.path)
        for _, _piece in zip(range(take), body, strict=False):
            pass
    assert seen == ["a", "b"]


@pytest.mark.parametrize("form", FORMS.values(), ids=FORMS)
def test_read_tar_reads_and_ignores_padding(form: int) -> None:
    """The sender would see a broken pipe otherwise."""
    chunks = iter([pack([("a", b"x")], form), b"junk" * 1000, b"more"])
    assert len(read(chunks)) == 1
    assert next(chunks, None) is None


@pytest.mark.parametrize("size", [0, 1, 511, 512, 513, 1 << 20, (8 << 30) - 1, 8 << 30, 1 << 40])
@pytest.mark.parametrize("name", ["index.json", "blobs/sha256/" + "0" * 64, "n" * 100])
def test_tarfile_reads_a_written_header(name: str, size: int) -> None:
    """Octal up to 8 GiB, base-256 beyond."""
    block = header(name, size)
    assert len(block) == BLOCK
    member = tarfile.TarInfo.frombuf(block, "utf-8", "strict")
    assert (member.name, member.size, member.type) == (name, size, tarfile.REGTYPE)
    assert (member.mode, member.uid, member.gid, member.mtime) == (0o644, 0, 0, 0)


@given(st.lists(st.binary(max_size=1500), max_size=5))
def test_a_written_archive_can_be_read(contents: list[bytes]) -> None:
    """By read_tar and by tarfile."""
    parts = [header(f"m{i}", len(c)) + c + padding(len(c)) for i, c in enumerate(contents)]
    archive = b"".join([*parts, header("last", 0), tar.END])
    assert len(archive) % BLOCK == 0
    assert [content for _, content in read([archive])] == [*contents, b""]
    with tarfile.open(fileobj=io.BytesIO(archive)) as opened:
        assert [m.size for m in opened.getmembers()] == [*map(len, contents), 0]


def test_read_tar_rejects_an_empty_stream() -> None:
    """No bytes, empty chunks, or only an end marker."""
    for chunks in ([], [b""], [b"", b""], [tar.END]):
        with pytest.raises(ArchiveInvalid, match="empty"):
            read(chunks)
