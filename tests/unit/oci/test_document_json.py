"""Untrusted JSON is parsed within limits, or rejected with a ValueError."""

import json
from contextlib import suppress
from itertools import repeat

import pytest
from hypothesis import given
from hypothesis import strategies as st

from imgload.core.errors import ArchiveInvalid
from imgload.oci.catalogue import catalogue_of, scan
from imgload.oci.digest import Digest
from imgload.oci.document import (
    CONFIG,
    MANIFEST,
    MAX_DEPTH,
    MAX_VALUES,
    Descriptor,
    ImageConfig,
    Index,
    Manifest,
    load_json,
)
from imgload.oci.members import Blob, Blobs
from tests.unit import archives

VALUES = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**63), 2**64 - 1)
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
)


@given(VALUES)
def test_load_json_returns_the_value_of_json_loads(value: object) -> None:
    """Within the limits."""
    assert load_json(json.dumps(value)) == value
    assert load_json(json.dumps(value).encode()) == value


@given(st.binary(max_size=200) | st.text().map(str.encode))
def test_load_json_raises_only_value_errors(raw: bytes) -> None:
    """Whatever the bytes are."""
    try:
        load_json(raw)
    except ValueError:
        return


@pytest.mark.parametrize(
    "text",
    [
        "1" * 21,
        "-" + "9" * 5000,
        "1e400",
        "NaN",
        "Infinity",
        "-Infinity",
        "[" * (MAX_DEPTH + 1) + "]" * (MAX_DEPTH + 1),
        "[" * 100_000 + "]" * 100_000,
        '{"a":' * 500 + "1" + "}" * 500,
        "[" + "{}," * MAX_VALUES + "0]",
        "[" + "[[]]," * MAX_VALUES + "0]",
        '["\\"",' + "0," * MAX_VALUES + "0]",
    ],
    ids=lambda text: text[:12],
)
def test_load_json_rejects_documents_beyond_the_limits(text: str) -> None:
    """Numbers that overflow, nesting that overflows a stack, values that fill the memory."""
    with pytest.raises(ValueError, match=r"it |a number|is not a number"):
        load_json(text)


def test_load_json_accepts_documents_within_the_limits() -> None:
    """The deepest, the longest, and a string that only looks like many values."""
    deepest = "[" * MAX_DEPTH + "]" * MAX_DEPTH
    assert json.dumps(load_json(deepest)) == deepest
    assert len(load_json(f"[{','.join(repeat('0', MAX_VALUES))}]")) == MAX_VALUES
    label = json.dumps({"sbom": json.dumps([{"name": "x"}] * MAX_VALUES)})
    assert load_json(label) == json.loads(label)
    assert load_json(str(2**64 - 1)) == 2**64 - 1


@pytest.mark.parametrize("unclosed", ['"' + '\\",' * 400_000, '"' + "\\", '["\\'])
def test_load_json_rejects_unclosed_strings_in_linear_time(unclosed: str) -> None:
    """They are looked through once, and not once for each of their quotes."""
    with pytest.raises(ValueError, match=r"string|Unterminated"):
        load_json(unclosed)


@pytest.mark.parametrize("size", [10**13, 10**30, 10**400, -1, 1.5, True, "1", None])
def test_descriptor_rejects_an_impossible_size(size: object) -> None:
    """It would be printed, and added up."""
    entry = {**archives.descriptor(b"", MANIFEST), "size": size}
    with pytest.raises(ArchiveInvalid):
        Descriptor.parse(entry)


@pytest.mark.parametrize("digits", [30, 400, 4200])
def test_scan_rejects_a_layer_of_an_impossible_size(digits: int) -> None:
    """The progress line would overflow."""
    image = archives.Image()
    manifest = json.loads(image.manifest)
    manifest["layers"][0]["size"] = 10**digits
    raw = json.dumps(manifest).encode()
    index = archives.index(archives.descriptor(raw, MANIFEST))
    members = [*image.members, archives.blob(raw), ("index.json", index)]
    catalogue = scan([archives.pack(archives.unique(members))])
    assert catalogue.images == ()
    assert [type(entry.error) for entry in catalogue.unusable] == [ArchiveInvalid]


@pytest.mark.parametrize("kind", [Manifest, Index, ImageConfig])
@pytest.mark.parametrize("key", ["mediaType", "annotations", "config", "layers", "architecture"])
def test_documents_with_nested_values_are_parsed_or_rejected(
    kind: type[Manifest] | type[Index] | type[ImageConfig], key: str
) -> None:
    """The deepest value overflows no stack when an error prints it."""
    nested: object = []
    for _ in range(MAX_DEPTH - 3):
        nested = [nested]
    raw = json.dumps({key: nested, "manifests": [{"digest": nested, "size": 1}]}).encode()
    with suppress(ArchiveInvalid):
        kind.parse(raw)


@pytest.mark.parametrize("form", ["docker", "oci"])
def test_a_config_listed_repeatedly_is_parsed_once(
    monkeypatch: pytest.MonkeyPatch, form: str
) -> None:
    """A few MiB of it, listed 900 times, would take a minute."""
    parsed: list[bytes] = []
    parse = ImageConfig.parse

    def counted(raw: bytes) -> ImageConfig:
        parsed.append(raw)
        return parse(raw)

    monkeypatch.setattr(ImageConfig, "parse", counted)
    config = archives.encode({"rootfs": {"diff_ids": []}})
    blobs = Blobs()
    path, _ = archives.blob(config)
    add(blobs, path, config)
    if form == "docker":
        listed: list[object] = [{"Config": path, "RepoTags": None, "Layers": []}] * 50
        add(blobs, "manifest.json", archives.encode(listed))
    else:
        described = archives.descriptor(config, CONFIG)
        manifests = [archives.encode({"config": described, "x": i}) for i in range(50)]
        for raw in manifests:
            add(blobs, archives.blob(raw)[0], raw)
        index = archives.index(*(archives.descriptor(raw, MANIFEST) for raw in manifests))
        add(blobs, "index.json", index)
    assert len(catalogue_of(blobs).images) == (1 if form == "docker" else 50)
    assert parsed == [config]


def add(blobs: Blobs, path: str, raw: bytes) -> None:
    blobs.add(path, Blob(Digest.of(raw), len(raw), "", raw))
