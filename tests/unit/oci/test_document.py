"""Manifests, indexes, configs and descriptors from untrusted JSON."""

import json
from contextlib import suppress
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from imgload.core.errors import ArchiveInvalid, ImgloadError
from imgload.oci.digest import Digest
from imgload.oci.document import (
    IMAGE_NAME,
    MAX_DOCUMENT,
    MAX_LAYERS,
    Descriptor,
    ImageConfig,
    Index,
    Manifest,
    parse_json,
)
from imgload.oci.platform import Platform
from tests.unit.recordings import inspected

DIGEST = str(Digest.of(b"x"))
GOOD: dict[str, Any] = {"mediaType": "m", "digest": DIGEST, "size": 1}


def encode(value: object) -> bytes:
    return json.dumps(value).encode()


PARSERS = [Manifest.parse, Index.parse, ImageConfig.parse]
NOT_DOCUMENTS = [
    b"",
    b"{",
    b"null",
    b"[]",
    b'"text"',
    b"1",
    b"NaN",
    b"{} {}",
    b"\xff\xfe",
    b"\x80",
    b'{"a": "\x01"}',
    b"[" * 100_000,
    b'{"a":' * 100_000,
    b'{"a":' + b"9" * 5000 + b"}",
    b"{" + b" " * MAX_DOCUMENT + b"}",
]


@pytest.mark.parametrize("parse", PARSERS)
@pytest.mark.parametrize("raw", NOT_DOCUMENTS, ids=lambda raw: repr(raw[:12]))
def test_parse_rejects_what_is_not_a_json_object(parse: Any, raw: bytes) -> None:
    """Bad JSON, nested without end, not an object, or beyond 8 MiB."""
    with pytest.raises(ArchiveInvalid):
        parse(raw)


@pytest.mark.parametrize("size", [-1, True, False, 1.0, "1", None, [], float("inf")])
def test_descriptor_rejects_a_size_that_is_not_a_natural_number(size: object) -> None:
    """True would count as 1, and a negative size lets a check pass."""
    with pytest.raises(ArchiveInvalid):
        Descriptor.parse({**GOOD, "size": size})


@pytest.mark.parametrize("digest", [None, "", "sha256:x", 5, "sha256:../../etc", [DIGEST]])
def test_descriptor_rejects_a_malformed_digest(digest: object) -> None:
    """It becomes part of a path."""
    with pytest.raises(ArchiveInvalid):
        Descriptor.parse({**GOOD, "digest": digest})


@pytest.mark.parametrize("value", [None, 5, "x", [], [GOOD], True])
def test_descriptor_rejects_other_values(value: object) -> None:
    """Anything else is refused."""
    with pytest.raises(ArchiveInvalid):
        Descriptor.parse(value)


@pytest.mark.parametrize(
    "document",
    [
        {},
        {"config": None},
        {"config": GOOD, "layers": {}},
        {"config": GOOD, "layers": "x"},
        {"config": GOOD, "layers": [None]},
        {"config": GOOD, "layers": [GOOD] * (MAX_LAYERS + 1)},
    ],
    ids=str,
)
def test_manifest_rejects_malformed_documents(document: object) -> None:
    """No config, or layers that are no list of at most 1000."""
    with pytest.raises(ArchiveInvalid):
        Manifest.parse(encode(document))


@pytest.mark.parametrize("manifests", ["x", {}, [GOOD] * 1001])
def test_index_rejects_malformed_documents(manifests: object) -> None:
    """Its manifests are a list of at most 1000 descriptors."""
    with pytest.raises(ArchiveInvalid):
        Index.parse(encode({"manifests": manifests}))


@pytest.mark.parametrize("entry", [1, {}, {**GOOD, "size": -1}, {**GOOD, "digest": "blake9:00"}])
def test_a_malformed_entry_of_an_index_does_not_hide_the_others(entry: object) -> None:
    index = Index.parse(encode({"manifests": [entry, GOOD]}))
    assert [str(manifest.digest) for manifest in index.manifests] == [GOOD["digest"]]
    [(_, error)] = index.malformed
    assert isinstance(error, ArchiveInvalid)


@pytest.mark.parametrize("diff_ids", ["x", {}, [1], ["sha256:x"], [DIGEST] * 1001])
def test_config_rejects_malformed_documents(diff_ids: object) -> None:
    """Its diff IDs are a list of at most 1000 digests."""
    with pytest.raises(ArchiveInvalid):
        ImageConfig.parse(encode({"rootfs": {"diff_ids": diff_ids}}))


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8) | st.just(DIGEST),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=6), inner),
    max_leaves=12,
)
platforms = json_values | st.fixed_dictionaries(
    {}, optional={"os": json_values, "architecture": json_values, "variant": json_values}
)
descriptors = json_values | st.fixed_dictionaries(
    {},
    optional={
        "mediaType": json_values,
        "digest": st.just(DIGEST) | json_values,
        "size": st.integers() | json_values,
        "platform": platforms,
        "annotations": json_values,
    },
)
lists = json_values | st.lists(descriptors, max_size=4)
documents = json_values | st.fixed_dictionaries(
    {},
    optional={
        "config": descriptors,
        "layers": lists,
        "manifests": lists,
        "mediaType": json_values,
        "os": json_values,
        "architecture": json_values,
        "rootfs": json_values
        | st.fixed_dictionaries({"diff_ids": json_values | st.just([DIGEST])}),
    },
)


@given(documents)
def test_any_json_is_parsed_or_rejected(document: object) -> None:
    """No error other than ImgloadError is raised."""
    raw = encode(document)
    for parse in PARSERS:
        with suppress(ImgloadError):
            parse(raw)
    with suppress(ImgloadError):
        Descriptor.parse(document)


@given(descriptors)
def test_a_descriptor_survives_a_round_trip(value: object) -> None:
    """Reading what was written gives the same descriptor."""
    try:
        descriptor = Descriptor.parse(value)
    except ImgloadError:
        return
    assert Descriptor.parse(json.loads(json.dumps(descriptor.to_json()))) == descriptor


@given(st.binary())
def test_any_bytes_are_an_object_or_rejected(raw: bytes) -> None:
    """No error other than ArchiveInvalid is raised."""
    with suppress(ArchiveInvalid):
        assert isinstance(parse_json(raw, "it"), dict)


def test_the_digest_is_that_of_the_raw_bytes() -> None:
    """White space counts: a parsed document is never serialized again."""
    raw = b'{ "config": ' + encode(GOOD) + b' ,\n "layers": null }\n'
    manifest = Manifest.parse(raw)
    assert manifest.digest == Digest.of(raw)
    assert manifest.raw == raw
    assert manifest.layers == ()


def test_a_configs_digest_is_the_image_id_and_its_chain_id_the_snapshot() -> None:
    """As on the real node, with the numbers recorded there."""
    answer = inspected("1.7")
    raw = encode(answer["info"]["imageSpec"])
    config = ImageConfig.parse(raw)
    assert config.digest == Digest.of(raw)
    assert config.platform == Platform("linux", "amd64")
    assert str(config.chain_id) == answer["info"]["chainID"]
    assert ImageConfig.parse(b"{}").chain_id is None


def test_a_built_manifest_parses_to_itself() -> None:
    """A docker-archive's image gets an OCI manifest of its own."""
    config = ImageConfig.parse(encode({"rootfs": {"diff_ids": [DIGEST]}}))
    layer = Descriptor("application/vnd.oci.image.layer.v1.tar", Digest.of(b"x"), 1)
    manifest = Manifest.build(config, (layer,))
    assert Manifest.parse(manifest.raw) == manifest
    assert manifest.config.digest == config.digest
    assert manifest.config.size == len(config.raw)
    assert manifest.layers == (layer,)


def test_a_built_index_names_its_images_for_containerd() -> None:
    """The annotation is the exact name; several names are several entries."""
    manifest = Manifest.build(ImageConfig.parse(b"{}"), ())
    platform = Platform("linux", "arm64")
    entries = tuple(manifest.descriptor(platform, name) for name in ("a.io/x:1", "a.io/x:2"))
    index = Index.parse(Index.build(entries))
    assert index.manifests == entries
    assert [m.annotations for m in index.manifests] == [
        {IMAGE_NAME: "a.io/x:1"},
        {IMAGE_NAME: "a.io/x:2"},
    ]


@pytest.mark.parametrize(
    ("extra", "attestation"),
    [
        ({}, False),
        ({"platform": {"os": "linux", "architecture": "amd64"}}, False),
        ({"platform": {"os": "unknown", "architecture": "unknown"}}, True),
        ({"annotations": {"vnd.docker.reference.type": "attestation-manifest"}}, True),
    ],
)
def test_attestations_are_recognized(extra: dict[str, Any], *, attestation: bool) -> None:
    """BuildKit lists them among the platforms (kind #3795)."""
    assert Descriptor.parse({**GOOD, **extra}).is_attestation is attestation
