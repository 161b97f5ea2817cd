"""An archive of any tool becomes one OCI layout that containerd can import."""

import hashlib
import io
import json
import tarfile
from collections.abc import Callable, Iterator

import pytest
from hypothesis import given
from hypothesis import strategies as st

from imgload.core.errors import ManifestMissing, PlatformMissing
from imgload.oci import tar
from imgload.oci.archive import Wanted
from imgload.oci.digest import Digest
from imgload.oci.document import INDEX
from imgload.oci.platform import Platform
from tests.unit.archives import (
    FORMS,
    NAME,
    Entry,
    Image,
    Layout,
    Repack,
    blob,
    descriptor,
    encode,
    index,
    layer,
    oci,
    pack,
    podman,
    repack,
    repacked,
    split,
    wanted,
)
from tests.unit.bounds import memory_below

Write = Callable[..., list[Entry]]
forms = pytest.mark.parametrize("write", FORMS.values(), ids=FORMS)

BASE, ONE, TWO = layer("base"), layer("one"), layer("two")


@forms
def test_the_image_comes_out_with_its_id_and_layers(write: Write) -> None:
    """The config's digest and every layer's content are as they went in (kind #2835)."""
    image = Image((BASE, ONE))
    layout = repack(pack(write(image)), wanted(image))
    assert layout.names == [NAME]
    assert layout.image_id() == image.image_id
    assert layout.layers() == (BASE, ONE)


@forms
def test_the_layout_file_is_first_and_the_index_last(write: Write) -> None:
    """What breaks on the way leaves no index, and so no image (kind #2402)."""
    image = Image()
    paths = repack(pack(write(image)), wanted(image)).paths
    assert paths[0] == "oci-layout"
    assert paths[-1] == "index.json"
    assert len(set(paths)) == len(paths)
    assert all(path.startswith("blobs/sha256/") for path in paths[1:-1])


@forms
@pytest.mark.parametrize("chunk", [1, 2, 3, 511, 513, 4096])
def test_an_archive_may_come_in_any_chunks(write: Write, chunk: int) -> None:
    """A network's pieces may split a layer's first bytes, which tell its compression."""
    image = Image((BASE, ONE), gzipped=write in {FORMS["oci"], FORMS["docker25"]})
    layout = repack(pack(write(image)), wanted(image), chunk=chunk)
    assert layout.image_id() == image.image_id
    assert layout.layers() == image.blobs


@given(chunk=st.integers(1, 600), zipped=st.booleans())
def test_a_compressed_layer_of_a_docker_archive_may_come_in_any_chunks(
    chunk: int, *, zipped: bool
) -> None:
    """Its media type has to be found out from the content (containerd #14160)."""
    image = Image((BASE, ONE), gzipped=zipped)
    layers = [f"{i}/layer.tar" for i in range(2)]
    manifest = [{"Config": "config.json", "RepoTags": None, "Layers": layers}]
    entries: list[Entry] = [*zip(layers, image.blobs, strict=True)]
    entries += [("config.json", image.config), ("manifest.json", encode(manifest))]
    layout = repack(pack(entries), wanted(image), chunk=chunk)
    assert layout.layers() == image.blobs
    kinds = {entry["mediaType"] for entry in json.loads(layout.manifest())["layers"]}
    suffix = "+gzip" if zipped else ""
    assert kinds == {f"application/vnd.oci.image.layer.v1.tar{suffix}"}


@pytest.mark.parametrize("write", [FORMS["oci"], FORMS["docker25"]])
@pytest.mark.parametrize("gzipped", [False, True])
def test_a_manifest_of_the_archive_is_kept_byte_for_byte(write: Write, *, gzipped: bool) -> None:
    """Its digest is what `name@sha256:…` means (kind #2394, containerd #6307)."""
    image = Image(gzipped=gzipped)
    layout = repack(pack(write(image)), wanted(image))
    assert layout.manifest() == image.manifest


@forms
def test_the_same_layer_twice_is_sent_once(write: Write) -> None:
    """Docker writes a link for the second one."""
    image = Image((BASE, ONE, BASE))
    stream = repacked(pack(write(image)), wanted(image))
    assert Layout.read(stream).layers() == (BASE, ONE, BASE)
    assert stream.count(BASE) == 1


@forms
def test_an_image_without_layers_is_an_image(write: Write) -> None:
    """FROM scratch with nothing but a config."""
    image = Image(())
    layout = repack(pack(write(image)), wanted(image))
    assert layout.image_id() == image.image_id
    assert layout.layers() == ()


@forms
def test_several_images_share_their_layers(write: Write) -> None:
    """One save, one stream, the common layer once."""
    images = [Image((BASE, ONE), "one:v1"), Image((BASE, TWO), "two:v1")]
    names = ["docker.io/library/one:v1", "docker.io/library/two:v1"]
    requests = [wanted(i, [n]) for i, n in zip(images, names, strict=True)]
    stream = repacked(pack(write(*images)), *requests)
    layout = Layout.read(stream)
    assert layout.names == names
    for image, name in zip(images, names, strict=True):
        assert layout.image_id(name) == image.image_id
        assert layout.layers(name) == image.layers
    assert [stream.count(raw) for raw in (BASE, ONE, TWO)] == [1, 1, 1]


@forms
def test_only_wanted_images_are_named(write: Write) -> None:
    """The archive's other image is not in the index."""
    images = [Image((ONE,), "one:v1"), Image((TWO,), "two:v1")]
    layout = repack(pack(write(*images)), wanted(images[1]))
    assert layout.names == [NAME]
    assert layout.image_id() == images[1].image_id


@forms
def test_only_requested_names_are_sent(write: Write) -> None:
    """Not the archive's own, and never import-DATE@sha256 (kind #4028)."""
    image = Image(name="evil.example/other:v9")
    names = ["ghcr.io/o/app:v1", "docker.io/library/app:v1"]
    assert repack(pack(write(image)), wanted(image, names)).names == names


@forms
def test_a_demanded_digest_must_be_in_the_archive(write: Write) -> None:
    """A name with a digest is usable only when the manifest has just that (kind #2394)."""
    image = Image()
    with pytest.raises(ManifestMissing, match="demands"):
        repack(pack(write(image)), wanted(image, ["docker.io/library/app@sha256:" + "0" * 64]))


@pytest.mark.parametrize("write", [FORMS["oci"], FORMS["docker25"]])
def test_a_digest_is_the_manifests_own(write: Write) -> None:
    """Byte for byte as it was in the archive."""
    image = Image(gzipped=True)
    name = f"docker.io/library/app@{image.digest}"
    layout = repack(pack(write(image)), wanted(image, [name]))
    assert layout.names == [name]
    assert layout.manifest(name) == image.manifest


def test_a_demanded_digest_may_be_that_of_an_index() -> None:
    """As a registry tells it for several platforms; the record leads to the index itself."""
    image = Image(gzipped=True)
    inner = index(image.entry, {**image.entry, "digest": "sha256:" + "1" * 64})
    members = [*image.members, blob(inner), ("index.json", index(descriptor(inner, INDEX)))]
    name = f"docker.io/library/app@{Digest.of(inner)}"
    stream = Repack([pack(members)], [wanted(image, [name])])
    with tarfile.open(fileobj=io.BytesIO(b"".join(stream))) as layout:
        top = layout.extractfile("index.json")
        assert top is not None
        [entry] = json.loads(top.read())["manifests"]
        assert entry["digest"] == str(Digest.of(inner))
        assert f"blobs/sha256/{Digest.of(inner).hex}" in layout.getnames()


@forms
def test_send_returns_the_images_by_target(write: Write) -> None:
    """The image that each target means, and the size of all blobs sent."""
    image = Image((BASE, ONE))
    stream = Repack([pack(write(image))], [wanted(image)])
    b"".join(stream)
    found = stream.images[image.image_id]
    assert found.config.digest == image.image_id
    assert found.config.diff_ids == (Digest.of(BASE), Digest.of(ONE))
    blobs = [*image.layers, image.config, found.manifest.raw]
    assert {Digest.of(raw): len(raw) for raw in blobs}.items() <= stream.sizes.items()


def test_paths_may_start_with_a_dot() -> None:
    """`tar -C folder -cf archive.tar .` makes them."""
    image = Image()
    entries: list[Entry] = [(f"./{path}", content) for path, content in oci(image)]
    assert repack(pack(entries), wanted(image)).image_id() == image.image_id


def test_the_index_may_come_first() -> None:
    """An OCI layout has no order."""
    image = Image()
    assert repack(pack(oci(image)[::-1]), wanted(image)).manifest() == image.manifest


def test_a_link_may_come_before_what_it_leads_to() -> None:
    """Podman's legacy folders are written in any order."""
    image = Image()
    assert repack(pack(podman(image)[::-1]), wanted(image)).layers() == image.layers


def test_a_layer_that_begins_like_json_is_still_a_layer() -> None:
    """Its first file may be called {."""
    image = Image((pack([("{weird}.json", b"x")]), ONE))
    for write in FORMS.values():
        assert repack(pack(write(image)), wanted(image)).layers() == image.layers


@pytest.mark.parametrize("write", [FORMS["oci"], FORMS["docker25"]])
def test_a_target_may_be_the_digest_of_a_manifest(write: Write) -> None:
    """Docker's containerd image store calls an image so."""
    image = Image()
    assert repack(pack(write(image)), Wanted(image.digest, (NAME,))).image_id() == image.image_id


def test_an_image_for_another_platform_is_rejected() -> None:
    """The error lists the available platforms."""
    image = Image(platform="linux/arm64")
    stream = Repack(
        [pack(oci(image))], [Wanted(image.image_id, (NAME,), Platform("linux", "amd64"))]
    )
    with pytest.raises(PlatformMissing, match=r"no linux/amd64; it has linux/arm64"):
        b"".join(stream)


def large_archive(mebibytes: int) -> tuple[Iterator[bytes], Digest]:
    """Return a docker-archive with one large layer, made as it is read, and its image ID."""
    piece = bytes(range(256)) * 4096
    hasher = hashlib.sha256()
    for _ in range(mebibytes):
        hasher.update(piece)
    rootfs = {"diff_ids": [f"sha256:{hasher.hexdigest()}"]}
    config = encode({"os": "linux", "architecture": "amd64", "rootfs": rootfs})
    manifest = encode([{"Config": "config.json", "Layers": ["layer.tar"]}])

    def chunks() -> Iterator[bytes]:
        yield tar.header("layer.tar", mebibytes << 20)
        for _ in range(mebibytes):
            yield piece
        for path, data in (("config.json", config), ("manifest.json", manifest)):
            yield tar.header(path, len(data)) + data + tar.padding(len(data))
        yield tar.END

    return chunks(), Digest.of(config)


def test_memory_stays_flat_for_a_large_layer() -> None:
    """A 16 GB image kills minikube (#17983)."""
    archive, image_id = large_archive(200)
    total = 0
    with memory_below(20 << 20):
        for piece in Repack(archive, [Wanted(image_id, (NAME,))]):
            total += len(piece)
    assert total > 200 << 20


def test_the_path_of_a_streamed_blob_is_random() -> None:
    """Its digest is not known yet, and no other member may collide with it."""
    image = Image()
    first = repack(pack(oci(image)), wanted(image)).paths
    second = repack(pack(oci(image)), wanted(image)).paths
    assert len(first) == len(second)
    assert set(first[1:3]).isdisjoint(second[1:3])


@pytest.mark.parametrize("platform", ["linux/amd64", "linux/arm64"])
def test_the_sent_index_has_the_platform(platform: str) -> None:
    """ctr's --platform chooses by it."""
    image = Image(platform=platform)
    [entry] = repack(pack(oci(image)), wanted(image)).index["manifests"]
    os, architecture = platform.split("/")
    assert entry["platform"] == {"os": os, "architecture": architecture}


def test_the_archive_is_read_to_its_very_end() -> None:
    """An engine that still sends would see a broken pipe."""
    image = Image()
    chunks = iter([*split(pack(oci(image)), 1000), bytes(10_000)])
    b"".join(Repack(chunks, [wanted(image)]))
    assert next(chunks, None) is None
