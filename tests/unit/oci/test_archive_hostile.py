"""A damaged or hostile archive yields no index.json, and no unexpected error."""

import hashlib
from collections.abc import Callable, Iterable
from contextlib import suppress

import pytest
from hypothesis import given
from hypothesis import strategies as st

from imgload.core.errors import ArchiveInvalid, DigestMismatch, ImgloadError, SourceError
from imgload.oci import members as module
from imgload.oci.archive import Wanted
from imgload.oci.digest import Digest
from imgload.oci.document import CONFIG, INDEX, LAYER, MANIFEST
from tests.unit.archives import (
    FORMS,
    NAME,
    Entry,
    Image,
    Json,
    Repack,
    blob,
    descriptor,
    docker20,
    encode,
    index,
    layer,
    oci,
    pack,
    podman,
    split,
    wanted,
)
from tests.unit.bounds import memory_below, within

Write = Callable[..., list[Entry]]
forms = pytest.mark.parametrize("write", FORMS.values(), ids=FORMS)
IMAGE = Image()


def refused(
    archive: bytes, target: Digest = IMAGE.image_id, chunk: int = 1 << 20
) -> ImgloadError | None:
    """Return the error, having seen that no index was sent before it."""
    sent = bytearray()
    try:
        for piece in Repack(split(archive, chunk), [Wanted(target, (NAME,))]):
            sent += piece
    except ImgloadError as error:
        assert b"index.json" not in sent
        return error
    return None


def without(entries: Iterable[Entry], content: bytes) -> list[Entry]:
    return [entry for entry in entries if entry[1] != content]


def replaced(entries: Iterable[Entry], old: bytes, new: bytes) -> list[Entry]:
    return [(path, new if content == old else content) for path, content in entries]


@forms
@pytest.mark.parametrize("layer_number", [0, 1])
def test_a_layer_with_wrong_content_is_a_digest_mismatch(write: Write, layer_number: int) -> None:
    """Of the same length, so that only its sum tells."""
    old = IMAGE.layers[layer_number]
    new = old.replace(b"app.txt", b"bad.txt")
    assert new != old
    assert isinstance(refused(pack(replaced(write(IMAGE), old, new))), DigestMismatch)


@forms
def test_a_missing_layer_is_named(write: Write) -> None:
    """docker save of an incomplete image, or a file cut and patched."""
    error = refused(pack(without(write(IMAGE), IMAGE.layers[1])))
    assert isinstance(error, ArchiveInvalid)
    assert "layer" in error.message


@forms
def test_a_missing_config_is_an_invalid_archive(write: Write) -> None:
    """The image ID is its digest."""
    assert isinstance(refused(pack(without(write(IMAGE), IMAGE.config))), ArchiveInvalid)


@forms
def test_a_config_with_wrong_content_is_another_image(write: Write) -> None:
    """A docker-archive's config has no sum of its own: its digest is the image ID."""
    other = IMAGE.config.replace(b"amd64", b"arm64")
    assert isinstance(refused(pack(replaced(write(IMAGE), IMAGE.config, other))), SourceError)


@forms
def test_an_absent_image_is_an_invalid_archive(write: Write) -> None:
    """The error names the digest."""
    absent = Digest.of(b"absent")
    error = refused(pack(write(IMAGE)), absent)
    assert isinstance(error, ArchiveInvalid)
    assert str(absent) in error.message


@forms
@given(data=st.data())
def test_a_cut_anywhere_yields_no_index(write: Write, data: st.DataObject) -> None:
    """As k3d's and kind's archives end when the disk is full."""
    archive = pack(write(IMAGE))
    end = data.draw(st.integers(0, len(archive.rstrip(b"\0"))))
    assert isinstance(refused(archive[:end]), ArchiveInvalid)


@forms
@given(data=st.data())
def test_a_mutated_archive_yields_an_honest_layout_or_none(
    write: Write, data: st.DataObject
) -> None:
    """Junk anywhere: only ImgloadError, and no index unless everything wanted is right."""
    archive = bytearray(pack(write(IMAGE)))
    start = data.draw(st.integers(0, len(archive) - 1))
    junk = data.draw(st.binary(min_size=1, max_size=30))
    archive[start : start + len(junk)] = junk
    refused(bytes(archive), chunk=data.draw(st.integers(500, 2000)))


@given(st.binary(max_size=3000))
def test_garbage_is_rejected(data: bytes) -> None:
    """Any bytes."""
    assert refused(data) is not None


def test_two_different_members_of_one_name_are_rejected() -> None:
    """containerd and we could take one each."""
    for write in FORMS.values():
        entries = [*write(IMAGE), *replaced(write(IMAGE), IMAGE.layers[1], layer("other"))]
        error = refused(pack(entries))
        assert isinstance(error, SourceError)
        assert "two different members" in error.message


@forms
def test_the_same_member_twice_is_harmless(write: Write) -> None:
    """Old versions of Docker did that."""
    assert refused(pack([*write(IMAGE), *write(IMAGE)])) is None


@pytest.mark.parametrize(
    "links",
    [
        [("l/layer.tar", "layer.tar")],
        [("l/layer.tar", "../m"), ("m", "l/layer.tar")],
        [(f"l{i}", f"l{i + 1}") for i in range(30)],
    ],
)
def test_cyclic_links_are_rejected(links: list[Entry]) -> None:
    """One to itself, two to one another, or a long chain."""
    config = encode({"rootfs": {"diff_ids": [str(Digest.of(b""))]}})
    manifest = encode([{"Config": "c.json", "Layers": [links[0][0]]}])
    entries: list[Entry] = [*links, ("c.json", config), ("manifest.json", manifest)]
    error = refused(pack(entries), Digest.of(config))
    assert isinstance(error, ArchiveInvalid)
    assert "cycle" in error.message


def test_a_link_to_nothing_is_a_missing_layer() -> None:
    """Podman's link without its target."""
    assert isinstance(refused(pack(without(podman(IMAGE), IMAGE.layers[0]))), ArchiveInvalid)


@pytest.mark.parametrize(
    "manifest",
    [
        b"",
        b"{}",
        b"null",
        b"[1]",
        b"[{}]",
        b"[[]]",
        b'[{"Config": 5}]',
        b'[{"Config": "absent.json"}]',
        b'[{"Config": "../../etc/passwd"}]',
        b"[" * 50_000,
        b"[" + b"{}," * 1001 + b"{}]",
        b"\xff",
    ],
    ids=lambda raw: repr(raw[:40]),
)
def test_a_malformed_docker_manifest_is_rejected(manifest: bytes) -> None:
    """Each in the place of a good one."""
    entries = [e for e in docker20(IMAGE) if e[0] != "manifest.json"]
    assert isinstance(refused(pack([*entries, ("manifest.json", manifest)])), ArchiveInvalid)


def test_the_layers_of_all_images_of_a_docker_archive_are_counted() -> None:
    """Each is a value in a bounded document, and would be a descriptor of some hundred bytes."""
    member = layer("l")
    config = encode({"rootfs": {"type": "layers", "diff_ids": [str(Digest.of(member))] * 1000}})
    entry: Json = {"Config": "c.json", "Layers": ["l"] * 1000}
    files = [("c.json", config), ("l", member), ("manifest.json", encode([entry] * 51))]
    error = refused(pack(files))
    assert isinstance(error, ArchiveInvalid)
    assert "50000 layers" in error.message


@pytest.mark.parametrize("layers", [None, [], ["a"], ["a"] * 1001, "ab", {"a": 1}, [None, None]])
def test_a_docker_manifests_layers_fit_its_config(layers: object) -> None:
    """As many as there are diff IDs, and all there."""
    config = f"{IMAGE.image_id.hex}.json"
    manifest = encode([{"Config": config, "Layers": layers}])
    entries = [e for e in docker20(IMAGE) if e[0] != "manifest.json"]
    assert isinstance(refused(pack([*entries, ("manifest.json", manifest)])), ArchiveInvalid)


def test_an_archive_without_a_manifest_is_rejected_with_a_hint() -> None:
    """A tar with neither manifest.json nor index.json; the hint says how to make one."""
    error = refused(pack([("README.md", b"hello")]))
    assert isinstance(error, ArchiveInvalid)
    assert "docker save" in error.hint


def test_too_much_metadata_is_rejected(monkeypatch: pytest.MonkeyPatch) -> None:
    """What is kept in memory is bounded over all members."""
    monkeypatch.setattr(module, "MAX_KEPT", 5000)
    entries: list[Entry] = [(f"{i}.json", b"{}" * 300) for i in range(20)]
    error = refused(pack([*entries, *oci(IMAGE)]))
    assert isinstance(error, ArchiveInvalid)
    assert "metadata" in error.message


def test_a_document_beyond_8_mib_is_not_kept() -> None:
    """An index.json of 9 MiB is no index."""
    entries = [entry for entry in oci(IMAGE) if entry[0] != "index.json"]
    archive = pack([*entries, ("index.json", b" " * (9 << 20))])
    with memory_below(8 << 20), pytest.raises(ArchiveInvalid, match="too large"):
        for _ in Repack(split(archive, 1 << 20), [wanted(IMAGE)]):
            pass


def nested(inner: Json, depth: int, width: int = 1) -> list[Entry]:
    """Return an OCI layout whose index leads to `inner` through further indexes."""
    entries: list[Entry] = []
    for level in range(depth):
        raw = index(*[{**inner, "annotations": {"n": f"{level}.{i}"}} for i in range(width)])
        entries.append(blob(raw))
        inner = descriptor(raw, INDEX)
    return [*entries, ("index.json", index(inner)), ("oci-layout", b"{}")]


def test_deeply_nested_indexes_are_rejected() -> None:
    """Three levels are more than any tool writes."""
    archive = pack([*IMAGE.members, *nested(IMAGE.entry, 30)])
    assert isinstance(refused(archive), ArchiveInvalid)


def test_an_index_that_lists_itself_is_rejected() -> None:
    """Possible where its path is not a sha256 sum of it."""
    digest = "sha512:" + hashlib.sha512(b"anything").hexdigest()
    raw = index({"mediaType": INDEX, "digest": digest, "size": 5})
    path = "blobs/sha512/" + digest.partition(":")[2]
    assert isinstance(refused(pack([(path, raw), ("index.json", raw)])), SourceError)


def test_indexes_that_multiply_end_soon() -> None:
    """Four levels of 40 entries each are 2.5 million images, out of a few kilobytes."""
    archive = pack([*IMAGE.members, *nested(IMAGE.entry, 4, width=40)])
    with within(5), suppress(ArchiveInvalid):
        list(Repack([archive], [wanted(IMAGE)]))


def test_a_blob_under_a_sha512_name_is_checked_as_well() -> None:
    """Otherwise any content would do for it."""
    digest = "sha512:" + hashlib.sha512(b"something else").hexdigest()
    path = "blobs/sha512/" + digest.partition(":")[2]
    entry = {"mediaType": MANIFEST, "digest": digest, "size": len(IMAGE.manifest)}
    archive = pack([*IMAGE.members, (path, IMAGE.manifest), ("index.json", index(entry))])
    assert isinstance(refused(archive), SourceError)


@pytest.mark.parametrize(
    "kind",
    [
        "application/vnd.oci.image.layer.nondistributable.v1.tar",
        "application/vnd.docker.image.rootfs.foreign.diff.tar.gzip",
    ],
)
def test_an_absent_foreign_layer_is_reported(kind: str) -> None:
    """Tools may leave such layers out; nothing is fetched for them."""
    foreign = descriptor(IMAGE.layers[0], kind, urls=["https://example.com/layer"])
    layers = [foreign, descriptor(IMAGE.layers[1], LAYER)]
    manifest = encode({"config": descriptor(IMAGE.config, CONFIG), "layers": layers})
    files = [blob(raw) for raw in (*IMAGE.layers, IMAGE.config, manifest)]
    top = ("index.json", index(descriptor(manifest, MANIFEST)))
    assert refused(pack([*files, top])) is None
    error = refused(pack([*files[1:], top]))
    assert isinstance(error, ArchiveInvalid)
    assert "foreign" in error.message
