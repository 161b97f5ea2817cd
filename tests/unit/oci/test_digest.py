"""Digests and chain IDs."""

import hashlib
from contextlib import suppress

import pytest
from hypothesis import given
from hypothesis import strategies as st

from imgload.core.errors import ArchiveInvalid
from imgload.oci.digest import Digest, chain_ids
from tests.unit.recordings import inspected

HEX = "0123456789abcdef" * 4


@pytest.mark.parametrize("version", ["1.7", "2.1"])
def test_chain_ids_are_those_of_containerd(version: str) -> None:
    """The real node's chainID is the one of the top layer's diff IDs."""
    info = inspected(version)["info"]
    diff_ids = tuple(map(Digest.parse, info["imageSpec"]["rootfs"]["diff_ids"]))
    chain = chain_ids(diff_ids)
    assert len(chain) == len(diff_ids)
    assert chain[0] == diff_ids[0]
    assert str(chain[-1]) == info["chainID"]


def test_chain_ids_of_no_layers_are_empty() -> None:
    """An image FROM scratch without files is valid."""
    assert chain_ids(()) == ()


def test_chain_ids_count_repeated_layers() -> None:
    """Order and repetition count."""
    one = Digest.of(b"layer")
    first, second, third = chain_ids((one, one, one))
    assert first == one
    assert len({first, second, third}) == 3


@pytest.mark.parametrize("algorithm", ["sha256", "sha384", "sha512"])
def test_a_digest_prints_like_its_source(algorithm: str) -> None:
    """All three algorithms of the OCI spec."""
    text = f"{algorithm}:{hashlib.new(algorithm, b'x').hexdigest()}"
    assert str(Digest.parse(text)) == text
    assert Digest.parse(text) == Digest.of(b"x", algorithm)


@pytest.mark.parametrize(
    "text",
    [
        "",
        ":",
        "sha256",
        "sha256:",
        HEX,
        f"sha256:{HEX[:-1]}",
        f"sha256:{HEX}0",
        f"sha256:{HEX.upper()}",
        f"sha256:{HEX}\n",
        f"sha256:\n{HEX[1:]}",
        f"sha256: {HEX[1:]}",
        f"sha256:../{HEX[3:]}",
        f"SHA256:{HEX}",
        f"md5:{HEX[:32]}",
        f"sha512:{HEX}",
        f"sha256:sha256:{HEX}",
        f"sha256:{HEX[:-1]}\N{ARABIC-INDIC DIGIT ONE}",
        "../../etc/passwd",
        None,
        5,
        b"sha256:" + HEX.encode(),
        ["sha256"],
        {},
    ],
)
def test_digest_rejects_a_malformed_text(text: object) -> None:
    """A Digest is valid by construction: it becomes part of paths."""
    with pytest.raises(ArchiveInvalid):
        Digest.parse(text)


def test_digest_constructor_rejects_malformed_parts() -> None:
    """There is no way around `parse`."""
    with pytest.raises(ArchiveInvalid):
        Digest("sha256", "../" * 21 + "x")


@given(st.text() | st.none() | st.integers() | st.binary())
def test_any_value_is_a_digest_or_rejected(value: object) -> None:
    """No other error is raised."""
    with suppress(ArchiveInvalid):
        assert str(Digest.parse(value)) == value


@given(st.text(min_size=300))
def test_the_error_of_a_digest_is_short(value: str) -> None:
    """An error is read by a person."""
    with pytest.raises(ArchiveInvalid) as refused:
        Digest.parse(value)
    assert len(refused.value.message) < 300


@pytest.mark.parametrize("text", [HEX, f"sha256:{HEX}"])
def test_an_engines_id_may_lack_its_algorithm(text: str) -> None:
    """Podman's IDs do, so that everything was loaded every time (kind #2835)."""
    assert Digest.from_engine_id(text) == Digest("sha256", HEX)


def test_maybe_returns_none_for_a_malformed_digest() -> None:
    """ctr lists other texts as well."""
    assert Digest.try_parse(f"sha256:{HEX}") == Digest("sha256", HEX)
    assert [Digest.try_parse(value) for value in (HEX, "DIGEST", "", None)] == [None] * 4


def test_short_is_twelve_digits() -> None:
    """As engines print image IDs."""
    assert Digest("sha256", HEX).short == HEX[:12]
