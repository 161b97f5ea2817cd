"""Archives that are broken, cut off, or hold nothing."""

import gzip

import pytest

from imgload.core.errors import ArchiveInvalid, SourceError
from tests.unit.archives import Entry, Image, encode, oci, pack
from tests.unit.sources.conftest import Open

APP = Image()
END = sum(512 + len(raw) + -len(raw) % 512 for _, raw in oci(APP))
"""Where the end marker of its archive begins."""

BROKEN: dict[str, bytes] = {
    "empty": b"",
    "text": b"FROM scratch\n" * 100,
    "zeros": bytes(10240),
    "no image": pack([("hello.txt", b"hello")]),
    "half": pack(oci(APP))[:5000],
    "half gzip": gzip.compress(pack(oci(APP)))[:500],
    "no config": pack([("manifest.json", encode([{"Config": "x.json", "Layers": []}]))]),
    "bad index": pack([("index.json", b"[]"), ("oci-layout", b"{}")]),
    "bad JSON": pack([("index.json", b"{"), ("oci-layout", b"{}")]),
}


@pytest.mark.parametrize("what", BROKEN)
def test_a_broken_archive_is_named_in_the_error(source: Open, what: str) -> None:
    """Each time it is asked: nothing half-read is remembered."""
    archive = source(BROKEN[what])
    for ask in (lambda: archive.find("app:v1", None), lambda: archive.all_images(None)):
        with pytest.raises(ArchiveInvalid) as caught:
            ask()
        assert caught.value.message.startswith(f"{archive.describe}: ")


def test_an_archive_is_named_when_it_breaks_while_it_is_sent(source: Open) -> None:
    """Its beginning was well when it was looked at."""
    archive = source(pack(oci(APP)))
    found = archive.all_images(None)
    with pytest.raises(ArchiveInvalid) as caught, archive.save(found):
        raise ArchiveInvalid("the archive ends 7 bytes too early", hint="save it again")
    assert caught.value.message == f"{archive.describe}: the archive ends 7 bytes too early"
    assert caught.value.hint == "save it again"


def test_a_hint_survives_the_naming(source: Open) -> None:
    """How to make a better archive."""
    with pytest.raises(ArchiveInvalid) as caught:
        source(BROKEN["no image"]).all_images(None)
    assert "docker save" in caught.value.hint


@pytest.mark.parametrize("members", [[*oci()], [("manifest.json", b"[]")]])
def test_an_archive_of_nothing_is_invalid(source: Open, members: list[Entry]) -> None:
    """It has nothing that could be loaded."""
    with pytest.raises(ArchiveInvalid, match="no usable image"):
        source(members).all_images(None)


@pytest.mark.parametrize("length", range(0, END, 487))
def test_an_archive_cut_anywhere_is_no_other_archive(source: Open, length: int) -> None:
    """Up to its end marker."""
    whole = pack(oci(APP))
    with pytest.raises(SourceError):
        source(whole[:length]).all_images(None)
