"""The images of an archive, and the choice of one."""

from collections.abc import Iterable

import pytest

from imgload.core.compression import compression_of
from imgload.core.errors import ArchiveInvalid, DigestMismatch, PlatformMissing
from imgload.oci.catalogue import Catalogue, catalogue_of, choose, scan
from imgload.oci.digest import Digest
from imgload.oci.document import IMAGE_NAME, INDEX, MAX_DOCUMENT
from imgload.oci.members import Blob, Blobs, may_be_document
from imgload.oci.platform import Platform
from tests.unit.archives import (
    FORMS,
    NAME,
    Entry,
    Image,
    Json,
    blob,
    descriptor,
    encode,
    index,
    layer,
    oci,
    pack,
    repack,
)
from tests.unit.archives import wanted as wanted_of

AMD, ARM = Platform("linux", "amd64"), Platform("linux", "arm64")
AMD_IMAGE = Image((layer("amd"),), platform="linux/amd64")
ARM_IMAGE = Image((layer("arm"),), platform="linux/arm64")
S390_IMAGE = Image((layer("s390x"),), platform="linux/s390x")


def attestation(image: Image) -> Json:
    """Return BuildKit's entry beside an image, whose blobs no `docker save` writes."""
    notes = {
        "vnd.docker.reference.type": "attestation-manifest",
        "vnd.docker.reference.digest": str(image.digest),
    }
    platform = {"os": "unknown", "architecture": "unknown"}
    return {**image.entry, **descriptor(b"absent", "m"), "platform": platform, "annotations": notes}


def multi(present: Iterable[Image], listed: Iterable[Json], name: str = "app:v1") -> bytes:
    """Return what Docker's containerd image store saves: an index that lists more than is there."""
    inner = index(*listed)
    outer = {**descriptor(inner, INDEX), "annotations": {"io.containerd.image.name": name}}
    members = [member for image in present for member in image.members]
    return pack([*members, blob(inner), ("index.json", index(outer)), ("oci-layout", b"{}")])


LISTED = [AMD_IMAGE.entry, ARM_IMAGE.entry, S390_IMAGE.entry, attestation(AMD_IMAGE)]


@pytest.mark.parametrize("image", [AMD_IMAGE, ARM_IMAGE])
def test_absent_platforms_and_attestations_are_skipped(image: Image) -> None:
    """The commonest report of all: `content digest …: not found` (kind #3795, k3d #1538)."""
    layout = repack(multi([image], LISTED), wanted_of(image))
    assert layout.image_id() == image.image_id
    assert len(layout.index["manifests"]) == 1
    assert layout.layers() == image.layers


def test_choose_takes_the_digest_of_an_index_and_a_platform() -> None:
    """On Docker's containerd image store an image's Id is the digest of its index."""
    found = scan([multi([AMD_IMAGE, ARM_IMAGE], LISTED)])
    target = Digest.of(index(*LISTED))
    assert choose(found, target, ARM).config.digest == ARM_IMAGE.image_id
    assert choose(found, target, AMD).config.digest == AMD_IMAGE.image_id


def test_choose_reports_the_available_platforms() -> None:
    """s390x is listed, and its blobs are absent (docker/cli #7278)."""
    found = scan([multi([AMD_IMAGE, ARM_IMAGE], LISTED)])
    with pytest.raises(PlatformMissing) as caught:
        choose(found, Digest.of(index(*LISTED)), Platform("linux", "s390x"))
    assert caught.value.message.endswith("it has linux/amd64, linux/arm64")
    assert "--platform" in caught.value.hint


def test_an_attestation_is_not_an_image() -> None:
    """Newer versions of Docker save attestations."""
    entry = {**attestation(AMD_IMAGE), **descriptor(ARM_IMAGE.manifest, "m")}
    archive = multi([AMD_IMAGE, ARM_IMAGE], [AMD_IMAGE.entry, entry])
    assert [image.config.digest for image in scan([archive]).images] == [AMD_IMAGE.image_id]


def test_images_of_a_nested_index_have_its_name() -> None:
    """The name stands on the outer entry only."""
    [found] = scan([multi([AMD_IMAGE], [AMD_IMAGE.entry], name="ghcr.io/o/app:v1")]).images
    assert found.names == ("ghcr.io/o/app:v1",)
    assert Digest.of(index(AMD_IMAGE.entry)) in found.digests
    assert AMD_IMAGE.digest in found.digests
    assert AMD_IMAGE.image_id in found.digests
    assert ARM_IMAGE.image_id not in found.digests


def test_an_incomplete_image_does_not_hide_a_complete_one() -> None:
    """The other platform has its manifest in the archive, but not its config."""
    archive = pack(
        [
            *AMD_IMAGE.members,
            blob(ARM_IMAGE.manifest),
            ("index.json", index(ARM_IMAGE.entry, AMD_IMAGE.entry)),
        ]
    )
    assert [image.config.digest for image in scan([archive]).images] == [AMD_IMAGE.image_id]


def test_an_index_without_images_falls_back_to_manifest_json() -> None:
    """Podman writes both, and sometimes an empty index."""
    entries: list[Entry] = [("index.json", index()), *FORMS["docker20"](AMD_IMAGE)]
    assert [image.config.digest for image in scan([pack(entries)]).images] == [AMD_IMAGE.image_id]


@pytest.mark.parametrize("write", FORMS.values(), ids=FORMS)
def test_scan_lists_the_images_that_a_repack_sends(write: object) -> None:
    """Without reading the layers: names, image IDs and diff IDs."""
    assert callable(write)
    images = [Image((layer("a"), layer("b")), "a:v1"), Image((layer("b"),), "b:v1")]
    found = scan([pack(write(*images))]).images
    assert [i.config.digest for i in found] == [i.image_id for i in images]
    assert [i.names for i in found] == [("a:v1",), ("b:v1",)]
    diff_ids = [tuple(map(Digest.of, i.layers)) for i in images]
    assert [i.config.diff_ids for i in found] == diff_ids


def test_docker_25s_layout_is_preferred_to_its_manifest_json() -> None:
    """The manifest's own digest is kept that way."""
    [found] = scan([pack(FORMS["docker25"](AMD_IMAGE))]).images
    assert found.manifest.raw == AMD_IMAGE.manifest


def test_choose_by_image_id_needs_no_platform() -> None:
    """None takes what is called so."""
    found = scan([pack(oci(AMD_IMAGE, ARM_IMAGE))])
    assert choose(found, ARM_IMAGE.image_id, None).config.platform == ARM


def test_choose_prefers_a_known_manifest() -> None:
    """Docker 28 saves one platform of an index without the index, and may not say which it is."""
    found = scan([pack(oci(AMD_IMAGE, ARM_IMAGE))])
    absent = Digest.of(index(*LISTED))
    assert choose(found, absent, ARM, [ARM_IMAGE.digest]).config.platform == ARM
    assert choose(found, absent, AMD, [ARM_IMAGE.digest]).config.platform == ARM
    assert choose(found, AMD_IMAGE.digest, AMD, [absent]).config.platform == AMD


V3 = Platform("linux", "amd64", "v3")


def test_the_platform_of_an_index_overrides_the_config() -> None:
    """The config of an image for amd64/v3 need not say so."""
    other = Image((layer("v3"),), platform="linux/amd64")
    third = {**other.entry, "platform": V3.to_json()}
    found = scan([multi([AMD_IMAGE, other], [AMD_IMAGE.entry, third])])
    assert {image.platform: image.config.digest for image in found.images} == {
        AMD: AMD_IMAGE.image_id,
        V3: other.image_id,
    }
    assert choose(found, found.images[0].indexes[-1], V3).config.digest == other.image_id


def test_platforms_without_content_are_absent() -> None:
    """Manifest absent, or config absent; not attestations, and not other images' platforms."""
    entries = [AMD_IMAGE.entry, ARM_IMAGE.entry, S390_IMAGE.entry, attestation(AMD_IMAGE)]
    members = [m for m in ARM_IMAGE.members if m != blob(ARM_IMAGE.config)]
    inner, alone = index(*entries), Image((layer("other"),), name="other:v1")
    tops = [descriptor(inner, INDEX), {**alone.entry, "annotations": {IMAGE_NAME: alone.name}}]
    files = [
        *members,
        *AMD_IMAGE.members,
        *alone.members,
        blob(inner),
        ("index.json", index(*tops)),
    ]
    amd, other = scan([pack(files)]).images
    assert amd.absent == {ARM, Platform("linux", "s390x")}
    assert other.absent == frozenset()


def test_choose_fails_without_the_image() -> None:
    """No images at all, or others."""
    with pytest.raises(ArchiveInvalid):
        choose(Catalogue(()), AMD_IMAGE.image_id, None)


@pytest.mark.parametrize(
    ("start", "compression"),
    [
        (b"\x1f\x8b\x08\x00", "gzip"),
        (b"\x28\xb5\x2f\xfd", "zstd"),
        (b"app.", ""),
        (b"", ""),
        (b"\x1f", ""),
        (b"\x28\xb5\x2f", ""),
        (b"\0\0\0\0", ""),
    ],
)
def test_compression_is_detected_by_the_first_bytes(start: bytes, compression: str) -> None:
    """Whatever the archive claims (containerd #14160)."""
    assert compression_of(start) == compression


@pytest.mark.parametrize(
    ("path", "size", "start", "maybe"),
    [
        ("index.json", 10, b"{", True),
        ("x/json", 10, b"", True),
        ("repositories", 10, b"x", True),
        ("blobs/sha256/00", 10, b"{", True),
        ("blobs/sha256/00", 10, b"app", False),
        ("blobs/sha256/00", MAX_DOCUMENT + 1, b"{", False),
        ("index.json", MAX_DOCUMENT + 1, b"{", False),
        ("layer.tar", 10, b"\x1f\x8b", False),
    ],
)
def test_only_small_documents_are_kept(path: str, size: int, start: bytes, *, maybe: bool) -> None:
    """By name, or because they begin as JSON objects do."""
    assert may_be_document(path, size, start) is maybe


def held(path: str, data: bytes) -> Blobs:
    blobs = Blobs()
    blobs.add(path, Blob(Digest.of(data), len(data), "", data))
    return blobs


def test_by_digest_checks_the_content() -> None:
    """A false path is a DigestMismatch."""
    path, _ = blob(b"right")
    assert held(path, b"right").by_digest(Digest.of(b"right")) is not None
    assert held("elsewhere", b"right").by_digest(Digest.of(b"right")) is None
    with pytest.raises(DigestMismatch):
        held(path, b"wrong").by_digest(Digest.of(b"right"))


def test_blobs_follow_links() -> None:
    """Through several; a file takes precedence over a link of its name."""
    blobs = held("a", b"content")
    blobs.link("b", "a")
    blobs.link("c", "b")
    blobs.link("a", "c")
    followed = blobs.get("c")
    assert followed is not None
    assert followed.data == b"content"
    assert blobs.get("absent") is None


def test_catalogue_of_rejects_an_archive_of_something_else() -> None:
    """No manifest.json, no index.json."""
    with pytest.raises(ArchiveInvalid, match="neither"):
        catalogue_of(held("README", b"x"))
    assert catalogue_of(held("index.json", index())).images == ()
    assert catalogue_of(held("manifest.json", encode([]))).images == ()


def test_names_in_the_archive_are_not_sent() -> None:
    """Only the requested names are."""
    image = Image(name="docker.io/library/other:v1")
    assert repack(pack(oci(image)), wanted_of(image)).names == [NAME]


def half_indexed(*images: Image) -> bytes:
    """Return what Docker's graphdriver store saves of several IDs: an index of the first only."""
    members = dict(FORMS["docker25"](*images))
    members["index.json"] = index(images[0].entry)
    return pack(members.items())


def test_an_index_that_lists_one_of_several_images_hides_none() -> None:
    """Docker 25 and later, images saved by ID (moby #51389); manifest.json has them all."""
    images = [Image((layer("base"), layer(name)), name=f"{name}:v1") for name in "abc"]
    archive = half_indexed(*images)
    assert [found.config.digest for found in scan([archive]).images] == [i.image_id for i in images]
    names = [f"docker.io/library/{name}:v1" for name in "abc"]
    wanted = [wanted_of(image, [name]) for image, name in zip(images, names, strict=True)]
    sent = repack(archive, *wanted)
    assert sent.names == names
    assert [sent.image_id(name) for name in names] == [image.image_id for image in images]
    assert sent.manifest(names[0]) == images[0].manifest


def test_what_only_manifest_json_lists_and_lacks_its_config_is_no_image() -> None:
    """As in an index, where what is listed and absent is left out."""
    members = dict(FORMS["docker25"](AMD_IMAGE, ARM_IMAGE))
    members["index.json"] = index(AMD_IMAGE.entry)
    del members[blob(ARM_IMAGE.config)[0]]
    assert [i.config.digest for i in scan([pack(members.items())]).images] == [AMD_IMAGE.image_id]
