"""A blob that is stored until its destination is known."""

import hashlib
import resource

import pytest
from hypothesis import given
from hypothesis import strategies as st

from imgload.core.errors import DigestMismatch
from imgload.oci.digest import Digest
from imgload.registry.sink import IN_MEMORY, Quota, Spool
from tests.unit.bounds import memory_below


def filled(*pieces: bytes, limit: int = 1 << 30) -> Spool:
    spool = Spool(limit)
    for piece in pieces:
        spool.write(piece)
    return spool


def content(spool: Spool) -> bytes:
    return b"".join(spool.chunks())


@given(st.lists(st.binary(max_size=50), max_size=8))
def test_a_spool_keeps_its_content(pieces: list[bytes]) -> None:
    """In order, with size and digest; it can be read twice."""
    spool, whole = filled(*pieces), b"".join(pieces)
    for _ in range(2):
        assert content(spool) == whole
    assert (spool.size, spool.kept) == (len(whole), True)
    spool.check(Digest.of(whole))
    spool.close()


@pytest.mark.parametrize("size", [IN_MEMORY - 1, IN_MEMORY, IN_MEMORY + 1, 3 * IN_MEMORY])
def test_a_spool_keeps_content_beyond_its_memory(size: int) -> None:
    """In a file without a name."""
    piece = hashlib.sha256(b"x").digest() * (size // 32) + b"y" * (size % 32)
    spool = filled(piece[:100], piece[100:])
    assert content(spool) == piece
    spool.check(Digest.of(piece))
    spool.close()


def test_a_large_spool_is_not_in_memory() -> None:
    """Neither while it is written nor while it is read."""
    piece = bytes(1 << 20)
    with memory_below(8 << 20):
        spool = filled(*[piece] * 32)
        assert sum(map(len, spool.chunks())) == 32 << 20
        spool.close()


@pytest.mark.parametrize("content_command", [b"", b"other", b"app\n"])
def test_check_refuses_another_digest(content_command: bytes) -> None:
    """The message has both digests."""
    spool = filled(content_command)
    with pytest.raises(DigestMismatch) as caught:
        spool.check(Digest.of(b"app"))
    for digest in (Digest.of(content_command), Digest.of(b"app")):
        assert str(digest) in caught.value.message


@pytest.mark.parametrize(("size", "kept"), [(9, True), (10, True), (11, False)])
def test_a_spool_beyond_its_limit_keeps_only_digest_and_size(size: int, *, kept: bool) -> None:
    """A blob that nobody needs costs nothing, however long it is."""
    whole = b"0123456789abcdef"[:size]
    spool = filled(whole[:5], whole[5:], limit=10)
    assert (spool.kept, content(spool)) == (kept, whole if kept else b"")
    assert spool.size == size
    spool.check(Digest.of(whole))


def test_a_spool_beyond_its_limit_hashes_all_content() -> None:
    spool = filled(*[b"piece"] * 100, limit=7)
    assert (spool.kept, spool.size) == (False, 500)
    spool.check(Digest.of(b"piece" * 100))
    with pytest.raises(DigestMismatch):
        spool.check(Digest.of(b"piece"))


def test_an_empty_blob_is_kept() -> None:
    spool = filled()
    assert (content(spool), spool.size, spool.kept) == (b"", 0, True)
    spool.check(Digest.of(b""))


def test_a_limit_of_zero_keeps_only_the_empty_blob() -> None:
    assert filled(limit=0).kept
    assert not filled(b"x", limit=0).kept


def test_close_discards_the_content() -> None:
    """A second call does nothing."""
    spool = filled(b"app")
    spool.close()
    spool.close()
    assert (spool.kept, content(spool)) == (False, b"")
    spool.check(Digest.of(b"app"))


def test_all_spools_share_one_quota() -> None:
    """The second does not fit; closing the first frees its bytes."""
    room = Quota(10)
    first, second, third = (Spool(1 << 30, room) for _ in range(3))
    for spool in (first, second):
        spool.write(b"1234567")
    assert (first.kept, second.kept, second.why != "") == (True, False, True)
    first.close()
    third.write(b"1234567890")
    assert third.kept
    second.check(Digest.of(b"1234567"))


def test_a_failed_write_drops_the_content_and_names_the_folder(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The upload goes on: nobody may need the blob."""
    monkeypatch.setenv("TMPDIR", "/proc/nowhere")
    spool = filled(bytes(IN_MEMORY), b"x", b"y")
    assert not spool.kept
    assert "/proc/nowhere: No such file" in spool.why
    assert spool.size == IN_MEMORY + 2


def test_a_disk_that_is_full_at_the_last_bytes_drops_the_content() -> None:
    """They are still buffered when the blob is complete."""
    pieces = bytes(IN_MEMORY + 1), bytes(100)
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (IN_MEMORY + 50, limits[1]))
    try:
        spool = filled(*pieces)
        assert spool.kept
        spool.check(Digest.of(b"".join(pieces)))
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert not spool.kept
    assert spool.why.endswith("File too large")
