"""The documents that imgload writes conform to the schemas of the OCI image specification.

Configs are never written: they stay as they are, byte for byte.
"""

from __future__ import annotations

import bz2
import gzip
import json
import lzma
import sys
from collections.abc import Callable
from functools import cache
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from jsonschema import Draft4Validator
from referencing import Registry, Resource
from referencing.jsonschema import DRAFT4

from imgload.core.errors import ImgloadError
from imgload.oci.content import ImageContent
from imgload.oci.digest import Digest
from imgload.oci.document import (
    CONFIG,
    DOCKER_MANIFEST,
    LAYER,
    MANIFEST,
    Descriptor,
    ImageConfig,
    Manifest,
)
from imgload.transports.layout import manifest_for
from tests.lab import suites
from tests.lab.machine import Paths
from tests.unit import archives
from tests.unit.archives import FORMS, Entry, Image, Json, Layout, custom, layer

if sys.version_info >= (3, 14):
    from compression.zstd import compress as zstd
else:
    from backports.zstd import compress as zstd

_SCHEMA_FOLDER = "usr/share/gocode/src/github.com/opencontainers/image-spec/schema"
DOCKER_LAYER = "application/vnd.docker.image.rootfs.diff.tar"
COMPRESS: list[Callable[[bytes], bytes]] = [
    bytes,
    gzip.compress,
    zstd,
    bz2.compress,
    lzma.compress,
]


@cache
def _schema(name: str) -> Any:
    tree = suites.tree(Paths.find().cache, "image-spec")
    return json.loads((tree / _SCHEMA_FOLDER / name).read_bytes())


def _retrieve(uri: str) -> Resource[Any]:
    """Return a schema by the last part of its URI: the schemas refer to each other by file."""
    return DRAFT4.create_resource(_schema(uri.rpartition("/")[2]))


_SCHEMAS: Registry[Any] = Registry(retrieve=_retrieve)  # type: ignore[call-arg]


def complaints(kind: str, document: object) -> list[str]:
    """Return how a document violates the schema of its kind."""
    errors = Draft4Validator(_schema(f"{kind}.json"), registry=_SCHEMAS).iter_errors(document)
    return [f"{error.json_path}: {error.message}" for error in errors]


@pytest.mark.parametrize(
    ("kind", "wrong"),
    [
        ("image-manifest-schema", {"schemaVersion": 2, "config": {}, "layers": []}),
        ("image-index-schema", {"schemaVersion": 1, "manifests": []}),
        ("image-layout-schema", {"imageLayoutVersion": "2"}),
        ("content-descriptor", {"mediaType": "x y", "size": 1, "digest": "sha256:00"}),
        ("config-schema", {"os": "linux", "architecture": "amd64"}),
    ],
)
def test_the_schemas_refuse_wrong_documents(kind: str, wrong: Json) -> None:
    """References between the files are resolved."""
    assert complaints(kind, wrong)


def violations(layout: Layout, streamed: bytes) -> list[str]:
    """Return how the documents of a layout violate their schemas."""
    assert json.loads(streamed[512:542]) == {"imageLayoutVersion": "1.0.0"}
    found = complaints("image-layout-schema", json.loads(streamed[512:542]))
    found += complaints("image-index-schema", layout.index)
    for name in layout.names:
        found += complaints("image-manifest-schema", json.loads(layout.manifest(name)))
    return found


layers = st.lists(st.text("abc", min_size=1, max_size=3), min_size=1, max_size=3, unique=True)
vague = st.sampled_from(["", "application/json", "application/octet-stream"])
texts = st.one_of(vague, st.sampled_from(["text", "a b/c", "é/x", "x" * 200]))


@given(
    form=st.sampled_from(sorted(FORMS)),
    texts=layers,
    gzipped=st.booleans(),
    platform=st.sampled_from(["linux/amd64", "linux/arm64", "/", "windows/amd64"]),
)
@settings(max_examples=30, deadline=None)
def test_layouts_conform(form: str, texts: list[str], platform: str, *, gzipped: bool) -> None:
    """Of an archive of each tool."""
    image = Image(tuple(map(layer, texts)), platform=platform, gzipped=gzipped)
    names = ("docker.io/library/app:v1", "ghcr.io/me/app:v2")
    streamed = archives.repacked(archives.pack(FORMS[form](image)), archives.wanted(image, names))
    layout = Layout.read(streamed)
    assert violations(layout, streamed) == []
    assert image.config in layout.blobs.values()


@st.composite
def wrong_manifests(draw: st.DrawFn) -> tuple[Image, list[Entry]]:
    """Return an image, and a layout that lists it with vague or malformed media types."""
    image = Image(tuple(map(layer, draw(layers))))
    blobs = list(map(draw(st.sampled_from(COMPRESS)), image.layers))
    manifest_type = draw(st.one_of(st.sampled_from([MANIFEST, DOCKER_MANIFEST]), texts))
    manifest = custom(
        image.config,
        *blobs,
        kinds=[draw(st.one_of(st.sampled_from([LAYER, DOCKER_LAYER]), texts)) for _ in blobs],
        config_kind=draw(st.one_of(st.just(CONFIG), texts)),
        mediaType=manifest_type,
    )
    platform = draw(st.sampled_from([None, {"os": "linux", "architecture": "amd64"}, {"os": "x"}]))
    return image, archives.layout(
        archives.listed(
            manifest,
            image.config,
            *blobs,
            name=archives.NAME,
            mediaType=manifest_type,
            platform=platform,
        )
    )


@given(wrong_manifests())
@settings(max_examples=80, deadline=None)
def test_layouts_of_wrong_manifests_conform(wrong: tuple[Image, list[Entry]]) -> None:
    """If they are not refused."""
    image, entries = wrong
    try:
        streamed = archives.repacked(archives.pack(entries), archives.wanted(image))
    except ImgloadError:
        return
    layout = Layout.read(streamed)
    assert violations(layout, streamed) == []
    assert image.config in layout.blobs.values()


layer_types = st.sampled_from(
    [LAYER, LAYER + "+gzip", LAYER + "+zstd", DOCKER_LAYER, DOCKER_LAYER + ".gzip"]
)


@given(st.data(), layers, st.sampled_from([MANIFEST, DOCKER_MANIFEST]))
@settings(max_examples=30, deadline=None)
def test_manifests_with_the_layers_of_a_node_conform(
    data: st.DataObject, texts: list[str], manifest_type: str
) -> None:
    """A node stores some layers in another form than the engine pushed."""
    image = Image(tuple(map(layer, texts)), gzipped=True)
    kinds = [data.draw(layer_types) for _ in texts]
    raw = custom(image.config, *image.blobs, kinds=kinds, mediaType=manifest_type)
    config = ImageConfig.parse(image.config)
    content = ImageContent(Manifest.parse(raw), config, ("a/b:c",), config.platform)
    plain = {Digest.of(raw): len(raw) for raw in image.layers if data.draw(st.booleans())}
    known = {digest: Descriptor(LAYER, digest, size) for digest, size in plain.items()}
    manifest = manifest_for(content, plain, (), lambda _: known, keep=False)
    assert complaints("image-manifest-schema", json.loads(manifest.raw)) == []
    assert manifest.config.digest == image.image_id
    if plain:
        assert json.loads(manifest.raw)["mediaType"] == MANIFEST
        assert not any("docker" in layer.media_type for layer in manifest.layers)


def test_an_image_without_layers_has_an_empty_list() -> None:
    """The schema demands a layer; manifest.md only recommends it, and the config has none."""
    image = Image(())
    streamed = archives.repacked(archives.pack(archives.oci(image)), archives.wanted(image))
    assert violations(Layout.read(streamed), streamed) == ["$.layers: [] should be non-empty"]
