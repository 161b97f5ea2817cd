"""Archives with more than images: signatures, artifacts, damaged entries, impossible names."""

import gzip
import hashlib
import json
import shlex
import subprocess
from collections.abc import Callable
from pathlib import Path

import attrs
import pytest

from imgload.core.errors import (
    ArchiveInvalid,
    DigestMismatch,
    ImageAmbiguous,
    ManifestMissing,
    NotAnImage,
    PlatformMissing,
)
from imgload.oci.digest import Digest
from imgload.oci.document import CONFIG, IMAGE_NAME, INDEX, LAYER, MANIFEST, REF_NAME
from imgload.oci.platform import ANY_PLATFORM, Platform
from imgload.sources.archive import ArchiveSource
from tests.unit.archives import (
    NAME,
    Entry,
    Image,
    Json,
    artifact,
    blob,
    custom,
    descriptor,
    docker20,
    docker25,
    encode,
    index,
    layer,
    layout,
    listed,
    named,
    oci,
    pack,
    podman,
    repack,
    signature,
    unique,
    wanted,
)
from tests.unit.sources.conftest import Open

Write = Callable[..., list[Entry]]
Squeeze = Callable[[bytes], bytes]

APP = Image()
DB = Image((layer("db"),), "ghcr.io/me/db:2")
AMD, ARM = Platform("linux", "amd64"), Platform("linux", "arm64")
ONE, TWO = APP.layers
APP_IDS = Digest.of(ONE), Digest.of(TWO)

SCHEMA_1 = encode({"schemaVersion": 1, "name": "app", "fsLayers": [], "history": []})
ARTIFACT_MANIFEST = "application/vnd.oci.artifact.manifest.v1+json"
OTHERS: dict[str, tuple[Json, list[Entry]]] = {
    "signature": signature(),
    "artifact": artifact(),
    "artifact with subject": listed(
        custom(b"{}", ONE, config_kind="application/vnd.unknown.config.v1+json", subject=APP.entry),
        *(b"{}", ONE),
    ),
    "artifact manifest": listed(
        encode({"mediaType": ARTIFACT_MANIFEST, "artifactType": "a/b", "blobs": []})
    ),
    "schema 1": listed(SCHEMA_1),
    "config without layers": listed(custom(b"{}", ONE), b"{}", ONE),
    "helm chart": listed(
        custom(b"{}", ONE, config_kind="application/vnd.cncf.helm.config.v1+json"), b"{}", ONE
    ),
    "attestation": listed(
        custom(APP.config, b"{}", kinds=["application/vnd.in-toto+json"]), APP.config, b"{}"
    ),
    "file": (descriptor(b"<xml/>", "application/xml"), [blob(b"<xml/>")]),
}


@pytest.mark.parametrize("other", OTHERS.values(), ids=OTHERS)
def test_content_that_is_no_image_is_listed_and_not_loaded(
    source: Open, other: tuple[Json, list[Entry]]
) -> None:
    archive = source(layout(other, named(APP)))
    [found] = archive.all_images(None)
    assert (found.image_id, found.names, found.error) == (APP.image_id, (NAME,), None)
    assert len(archive.notes()) == 1
    assert source(layout(named(APP))).notes() == []


@pytest.mark.parametrize("other", OTHERS.values(), ids=OTHERS)
def test_content_that_is_no_image_alone_is_an_error(
    source: Open, other: tuple[Json, list[Entry]]
) -> None:
    with pytest.raises(NotAnImage) as caught:
        source(layout(other)).all_images(None)
    assert caught.value.exit_status == 6
    assert caught.value.hint
    with pytest.raises(NotAnImage):
        source(layout(other)).find("app:v1", None)


def test_an_artifact_cannot_be_requested(source: Open) -> None:
    """By its name or its digest; a runnable image can be requested beside it."""
    entry, members = artifact("docker.io/library/rocket:v1")
    archive = source(layout((entry, members), named(APP)))
    for text in ("rocket:v1", str(entry["digest"])):
        found = archive.find(text, None)
        assert found
        assert isinstance(found.error, NotAnImage)
        assert found.error.content == "artifact"


def without(image: Image, content: bytes) -> tuple[Json, list[Entry]]:
    entry, members = named(image)
    return entry, [member for member in members if member[1] != content]


def with_diff_ids(*diff_ids: Digest) -> bytes:
    return encode(
        {"os": "linux", "architecture": "amd64", "rootfs": {"diff_ids": [*map(str, diff_ids)]}}
    )


def contradictory(*layers: bytes, diff_ids: tuple[Digest, ...]) -> tuple[Json, list[Entry]]:
    config = with_diff_ids(*diff_ids)
    return listed(custom(config, *layers), config, *layers, name=NAME)


DAMAGED: dict[str, tuple[Json, list[Entry]]] = {
    "no manifest": without(APP, APP.manifest),
    "no config": without(APP, APP.config),
    "config of zeros": listed(custom(bytes(9)), bytes(9), name=NAME),
    "manifest of zeros": (
        {**descriptor(bytes(9), MANIFEST), "annotations": {IMAGE_NAME: NAME}},
        [blob(bytes(9))],
    ),
    "too few layers": contradictory(ONE, diff_ids=APP_IDS),
    "impossible digest": ({**named(APP)[0], "digest": "blake9:00"}, []),
    "wrong config": (
        named(APP)[0],
        [*APP.members[:-2], (blob(APP.config)[0], b"{}"), APP.members[-1]],
    ),
    "a manifest and an index": listed(encode({"manifests": [], "layers": []}), name=NAME),
}


@pytest.mark.parametrize("damaged", DAMAGED.values(), ids=DAMAGED)
def test_a_damaged_image_is_named_and_does_not_fail_the_others(
    source: Open, damaged: tuple[Json, list[Entry]]
) -> None:
    archive = source(layout(damaged, named(DB)))
    images = {found.names: found for found in archive.all_images(None)}
    assert images["ghcr.io/me/db:2",].error is None
    error = images[NAME,].error
    assert isinstance(error, (ArchiveInvalid, DigestMismatch))
    assert archive.address in error.message
    requested = archive.find("app:v1", None)
    assert requested
    assert requested.error
    with pytest.raises(type(error)):
        source(layout(damaged)).all_images(None)


def broken_index(image: Image, layers: object) -> list[Entry]:
    """Return what Docker 25.0.0 saves: its OCI manifest has other layers than manifest.json."""
    manifest = json.loads(image.manifest)
    manifest["layers"] = layers
    raw = encode(manifest)
    members = dict(docker25(image))
    del members[blob(image.manifest)[0]]
    entry = {**descriptor(raw, MANIFEST), "annotations": {IMAGE_NAME: image.name}}
    return [*members.items(), blob(raw), ("index.json", index(entry))]


LAYERS = json.loads(APP.manifest)["layers"]


@pytest.mark.parametrize("layers", [[], None, LAYERS[::-1], LAYERS[:1]], ids=str)
def test_manifest_json_replaces_a_manifest_that_contradicts_its_config(
    source: Open, layers: object
) -> None:
    """moby #47065, #47150."""
    archive = source(unique(broken_index(APP, layers)))
    [found] = archive.all_images(None)
    assert (found.image_id, found.names) == (APP.image_id, (NAME,))
    with archive.save([found]) as chunks:
        assert repack(b"".join(chunks), wanted(APP)).layers() == APP.layers


def test_manifest_json_orders_compressed_layers(source: Open) -> None:
    """Only decompression could tell which order the config has (moby #47150)."""
    image = Image(gzipped=True)
    layers = json.loads(image.manifest)["layers"]
    [found] = source(unique(broken_index(image, layers[::-1]))).all_images(None)
    assert found.manifest
    assert [layer.digest for layer in found.manifest.layers] == [*map(Digest.of, image.blobs)]


def test_an_index_replaces_a_list_of_layers_that_contradicts_the_config(source: Open) -> None:
    """The names in manifest.json count all the same."""
    members = dict(docker25(APP))
    [entry] = json.loads(members["manifest.json"])
    swapped = {**entry, "Layers": entry["Layers"][::-1], "RepoTags": ["app:v2"]}
    members["manifest.json"] = encode([swapped])
    [found] = source([*members.items()]).all_images(None)
    assert (found.image_id, found.error) == (APP.image_id, None)
    assert found.names == (NAME, "docker.io/library/app:v2")


def test_the_halves_of_an_archive_share_their_names(source: Open) -> None:
    """rules_img #543: the name is in manifest.json only; or a bare tag is in the index."""
    for notes in ({}, {REF_NAME: "v1"}):
        members = dict(docker25(APP))
        members["index.json"] = index({**APP.entry, "annotations": notes})
        archive = source([*members.items()])
        [found] = archive.all_images(None)
        assert found.names == (NAME,)
        requested = archive.find("app:v1", None)
        assert requested
        assert requested.image_id == APP.image_id


def in_repositories(members: list[Entry], *names: str) -> list[Entry]:
    """Name the top layers of an archive's images in `repositories` only."""
    files = dict(members)
    entries = json.loads(files["manifest.json"])
    tops = [e["Layers"][-1].removesuffix("/layer.tar").removesuffix(".tar") for e in entries]
    pairs = [(tag, top.rpartition("/")[2]) for tag, top in zip(names, tops, strict=True)]
    files["manifest.json"] = encode([{**entry, "RepoTags": None} for entry in entries])
    files["repositories"] = encode({"app": {**dict(pairs), "old": "other"}})
    return [(path, content) for path, content in files.items() if path != "index.json"]


@pytest.mark.parametrize("form", [docker20, docker25, podman])
def test_a_name_in_repositories_counts(source: Open, form: Write) -> None:
    [found] = source(in_repositories(form(APP), "v1")).all_images(None)
    assert found.names == (NAME,)


def test_a_name_in_repositories_does_not_count_for_two_images(source: Open) -> None:
    """It names a layer, and both images have it on top."""
    other = Image(platform="linux/arm64")
    members = in_repositories(docker25(APP, other), "v1", "v2")
    found = source(members).all_images(None)
    assert {image.names for image in found} == {(str(APP.image_id),), (str(other.image_id),)}


def test_a_tag_completes_a_name_without_one(source: Open) -> None:
    notes = {IMAGE_NAME: "ghcr.io/me/app", REF_NAME: "v7"}
    [found] = source(layout(({**APP.entry, "annotations": notes}, APP.members))).all_images(None)
    assert found.names == ("ghcr.io/me/app:v7",)


IMPOSSIBLE = [
    f"docker.io/library/app@{Digest.of(b'other')}",
    f"sha256:{Digest.of(b'app').hex}",
    f"moby-dangling@{APP.digest}",
    f"docker.io/library/import-2026-01-01@{APP.digest}",
    "a name with spaces",
    "App:v1",
    "<none>:<none>",
]


@pytest.mark.parametrize("name", IMPOSSIBLE)
def test_an_impossible_name_is_dropped_with_a_note(source: Open, name: str) -> None:
    """The image is loaded under its ID, or under its other names."""
    [found] = source(layout(named(attrs.evolve(APP, name=name)))).all_images(None)
    assert found.names == (str(APP.image_id),)
    assert len(found.notes) == 1
    both = layout(named(attrs.evolve(APP, name=name)), named(APP))
    [found] = source(both).all_images(None)
    assert found.names == (NAME,)
    assert len(found.notes) == 1


def test_a_name_with_the_digest_of_the_manifest_is_kept(source: Open) -> None:
    name = f"docker.io/library/app@{APP.digest}"
    [found] = source(layout(named(attrs.evolve(APP, name=name)))).all_images(None)
    assert (found.names, found.notes) == ((name,), ())


def resized(image: Image, **sizes: int) -> tuple[Json, list[Entry]]:
    """Return an image whose manifest has wrong sizes of its config or its first layer."""
    manifest = json.loads(image.manifest)
    manifest["config"]["size"] += sizes.get("config", 0)
    manifest["layers"][0]["size"] += sizes.get("layer", 0)
    raw = encode(manifest)
    entry, members = listed(raw, name=NAME)
    return entry, [*members, *image.members[:-1]]


@pytest.mark.parametrize(
    "sizes", [{"config": 5}, {"config": -5}, {"layer": 5}, {"layer": -5}], ids=str
)
def test_a_wrong_size_is_corrected(source: Open, sizes: dict[str, int]) -> None:
    """The digest is right; the image ID stays the same (go-containerregistry #1725)."""
    entry, members = resized(APP, **sizes)
    archive = source(layout((entry, members)))
    [found] = archive.all_images(None)
    assert (found.image_id, len(found.notes)) == (APP.image_id, 1)
    with archive.save([found]) as chunks:
        content = b"".join(chunks)
    assert repack(content, wanted(APP)).image_id() == APP.image_id
    with pytest.raises(ManifestMissing):
        repack(content, wanted(APP, [f"docker.io/library/app@{entry['digest']}"]))


@pytest.mark.parametrize(
    ("squeeze", "declared", "right"),
    [
        (gzip.compress, LAYER, f"{LAYER}+gzip"),
        (gzip.compress, "application/octet-stream", f"{LAYER}+gzip"),
        (gzip.compress, f"{LAYER}+zstd", f"{LAYER}+gzip"),
        (bytes, f"{LAYER}+gzip", LAYER),
        (bytes, "", LAYER),
    ],
)
def test_a_wrong_media_type_is_corrected(
    source: Open, squeeze: Squeeze, declared: str, right: str
) -> None:
    blobs = [squeeze(raw) for raw in APP.layers]
    manifest = custom(APP.config, *blobs, kinds=[declared] * 2)
    archive = source(layout(listed(manifest, APP.config, *blobs, name=NAME)))
    [found] = archive.all_images(None)
    assert len(found.notes) == 1
    with archive.save([found]) as chunks:
        sent = json.loads(repack(b"".join(chunks), wanted(APP)).manifest())
    assert [described["mediaType"] for described in sent["layers"]] == [right] * 2


@pytest.mark.parametrize("declared", ["", "application/octet-stream"])
def test_a_vague_media_type_of_a_config_is_corrected(source: Open, declared: str) -> None:
    """containerd unpacks no image whose config it does not recognise."""
    manifest = custom(APP.config, *APP.layers, config_kind=declared)
    archive = source(layout(listed(manifest, APP.config, *APP.layers, name=NAME)))
    [found] = archive.all_images(None)
    with archive.save([found]) as chunks:
        sent = json.loads(repack(b"".join(chunks), wanted(APP)).manifest())
    assert sent["config"]["mediaType"] == CONFIG


def in_sha512(image: Image, *, corrupt: bool = False) -> list[Entry]:
    """Return an OCI layout whose blobs all have sha512 digests."""

    def described(raw: bytes, kind: str, **extra: object) -> Json:
        digest = f"sha512:{hashlib.sha512(raw).hexdigest()}"
        return {"mediaType": kind, "digest": digest, "size": len(raw), **extra}

    def file(raw: bytes) -> Entry:
        wrong = raw.replace(b"app.txt", b"bad.txt") if corrupt else raw
        return f"blobs/sha512/{hashlib.sha512(raw).hexdigest()}", wrong

    layers = [described(raw, LAYER) for raw in image.layers]
    manifest = encode({"config": described(image.config, CONFIG), "layers": layers})
    top = described(manifest, MANIFEST, annotations={IMAGE_NAME: image.name})
    return [*map(file, (*image.layers, image.config, manifest)), ("index.json", index(top))]


@pytest.mark.parametrize("squeeze", [bytes, gzip.compress])
def test_blobs_with_sha512_digests_are_sent_with_those_of_containerd(
    source: Open, squeeze: Squeeze
) -> None:
    """containerd stores sha256 only."""
    archive = source(squeeze(pack(in_sha512(APP))))
    [found] = archive.all_images(None)
    assert (found.image_id, found.error) == (APP.image_id, None)
    with archive.save([found]) as chunks:
        sent = repack(b"".join(chunks), wanted(APP))
    assert (sent.image_id(), sent.layers()) == (APP.image_id, APP.layers)


@pytest.mark.parametrize("squeeze", [bytes, gzip.compress])
def test_a_blob_with_a_wrong_sha512_digest_is_damaged(source: Open, squeeze: Squeeze) -> None:
    with pytest.raises(DigestMismatch):
        source(squeeze(pack(in_sha512(APP, corrupt=True)))).all_images(None)


def test_a_child_of_an_index_is_no_image_of_its_own(source: Open) -> None:
    """Some tools list each platform beside the index."""
    arm = Image((layer("arm"),), platform="linux/arm64")
    inner = index(APP.entry, arm.entry)
    top = {**descriptor(inner, INDEX), "annotations": {IMAGE_NAME: NAME}}
    members = [*APP.members, *arm.members, blob(inner)]
    archive = source(layout((top, members), (APP.entry, []), (arm.entry, [])))
    [found] = archive.all_images(ARM)
    assert (found.image_id, found.names) == (arm.image_id, (NAME,))


def platformless(name: str = NAME) -> tuple[Json, list[Entry], bytes]:
    config = encode({"rootfs": {"diff_ids": [str(Digest.of(ONE))]}})
    return *listed(custom(config, ONE), config, ONE, name=name), config


def test_a_config_without_a_platform_runs_on_every_node(source: Open) -> None:
    """kind #1346, #2864."""
    entry, members, config = platformless()
    for platform in (None, AMD, ARM):
        found = source(layout((entry, members))).find("app:v1", platform)
        assert found
        assert (found.image_id, found.platform) == (Digest.of(config), ANY_PLATFORM)
        assert AMD.runs(found.platform)
        assert ARM.runs(found.platform)


def for_amd(text: str, **extra: object) -> tuple[Json, list[Entry]]:
    image = Image((layer(text),))
    entry, members = named(image)
    return {**entry, "platform": {"os": "linux", "architecture": "amd64", **extra}}, members


def test_an_image_with_further_os_features_does_not_hide_the_ordinary_one(source: Open) -> None:
    """containerd matches os.features as a subset of the machine's."""
    ordinary, special = for_amd("ordinary"), for_amd("special", **{"os.features": ["erofs"]})
    archive = source(layout(special, ordinary))
    [found] = archive.all_images(AMD)
    assert found.image_id == Image((layer("ordinary"),)).image_id


def test_two_images_for_one_platform_are_ambiguous_and_others_load(source: Open) -> None:
    images = source(layout(for_amd("a"), for_amd("b"), named(DB))).all_images(AMD)
    errors = {found.names: found.error for found in images}
    assert errors["ghcr.io/me/db:2",] is None
    assert isinstance(errors[NAME,], ImageAmbiguous)


def test_a_platform_that_one_image_lacks_does_not_fail_the_others(source: Open) -> None:
    arm = Image((layer("arm"),), "arm:v1", platform="linux/arm64")
    images = source(oci(APP, arm)).all_images(ARM)
    assert [type(found.error) for found in images] == [PlatformMissing, type(None)]


@pytest.mark.parametrize("form", [oci, docker25, docker20, podman])
def test_a_layer_may_be_absent(source: Open, form: Write) -> None:
    """pack --sparse; the nodes may have it."""
    members = [member for member in form(APP) if member[1] != ONE]
    [found] = source(members).all_images(None)
    assert found.image_id == APP.image_id
    assert set(found.absent_layers) == {Digest.of(ONE)}


def docker_sharing(content: bytes) -> list[Entry]:
    """Return a docker-archive with one file for two layers."""
    config, path = with_diff_ids(*APP_IDS), "shared/layer.tar"
    entry = {"Config": "config.json", "RepoTags": [NAME], "Layers": [path, path]}
    return [("config.json", config), (path, content), ("manifest.json", encode([entry]))]


SHARED = {
    "oci, empty": (layout(contradictory(b"", b"", diff_ids=APP_IDS)), {*APP_IDS}),
    "oci, the first layer's": (layout(contradictory(ONE, ONE, diff_ids=APP_IDS)), {APP_IDS[1]}),
    "docker, empty": (docker_sharing(b""), {*APP_IDS}),
    "docker, an unknown layer's": (docker_sharing(ONE), {*APP_IDS}),
}


@pytest.mark.parametrize(("members", "absent"), SHARED.values(), ids=SHARED)
def test_a_layer_whose_place_has_other_content_is_absent(
    source: Open, members: list[Entry], absent: set[Digest]
) -> None:
    """The nodes may have it (pack #2490)."""
    [found] = source(members).all_images(None)
    assert found.error is None
    assert found.absent_layers.keys() == absent
    assert all(found.absent_layers.values())
    assert set(found.blobs) == {*APP_IDS}


def test_layers_in_another_order_are_those_of_the_config(source: Open) -> None:
    [found] = source(layout(contradictory(TWO, ONE, diff_ids=APP_IDS))).all_images(None)
    assert (tuple(found.blobs), dict(found.absent_layers)) == (APP_IDS, {})


def test_diff_ids_by_another_algorithm_are_refused(source: Open) -> None:
    """containerd compares them with sha256 sums: "wrong diff id" on every node."""
    odd = contradictory(ONE, diff_ids=(Digest.of(ONE, "sha512"),))
    images = source(layout(odd, named(DB))).all_images(None)
    assert [type(image.error) for image in images] == [type(None), ArchiveInvalid]


def test_the_hint_for_the_tar_of_a_dir_folder_is_a_command(
    source: Open, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Neither docker load, podman load nor ctr reads it."""
    blobs = [(Digest.of(raw).hex, raw) for raw in (*APP.blobs, APP.config)]
    archive = source([("manifest.json", APP.manifest), ("version", b"1.1"), *blobs])
    with pytest.raises(ArchiveInvalid) as caught:
        archive.all_images(None)
    *commands, load = caught.value.hint.partition(": ")[2].split(" && ")
    monkeypatch.chdir(tmp_path)
    script = " && ".join(commands).replace("FILE", shlex.quote(archive.address))
    subprocess.run(["sh", "-c", script], check=True)
    [found] = ArchiveSource(load.split()[-1]).all_images(None)
    assert found.image_id == APP.image_id
