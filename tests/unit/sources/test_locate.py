"""Which source has an image, and when that is not to be settled."""

from pathlib import Path

import attrs
import pytest

from imgload.core.errors import (
    EngineFailed,
    ImageAmbiguous,
    ImageNotFound,
    PlatformMissing,
    ReferenceInvalid,
    UsageError,
)
from imgload.engines.endpoint import Endpoint, EngineKind
from imgload.oci.digest import Digest
from imgload.oci.platform import Platform
from imgload.sources.archive import ArchiveSource
from imgload.sources.base import Image
from imgload.sources.engine import EngineSource
from imgload.sources.locate import locate, match_platform, named
from tests.unit import archives
from tests.unit.archives import NAME, layer, oci, pack
from tests.unit.fakes import LocalEngine, engine_image
from tests.unit.samples import Shelf

AMD = Platform("linux", "amd64")
SHELF = Shelf("docker")


def found(content: str, *names: str, known: bool = True) -> Image:
    digest = Digest.of(content.encode())
    target = digest if known else Digest.of(b"manifest of " + content.encode())
    image_id = digest if known else None
    return Image(SHELF, content, names or (NAME,), target, image_id, AMD, (digest,), 10)


def engine_source(folder: Path, kind: EngineKind, content: str) -> EngineSource:
    endpoint = Endpoint(kind, f"unix://{folder}/{kind}.sock")
    image = engine_image(content, ["app:v1"])
    return EngineSource(LocalEngine(folder, images={"app:v1": image}, endpoint=endpoint))


def test_different_images_under_one_name_are_no_guess(tmp_path: Path) -> None:
    """Both are named, with where and what they are, and how to say which is meant."""
    sources = [engine_source(tmp_path, "docker", "old"), engine_source(tmp_path, "podman", "new")]
    with pytest.raises(ImageAmbiguous) as caught:
        locate(["app:v1"], sources, None)
    for source, content in zip(sources, ("old", "new"), strict=True):
        short = Digest.of(content.encode()).short
        assert f"{source.describe} has {short}" in caught.value.message
        assert f"--from {source.name}" in caught.value.hint


def test_one_image_in_two_sources_is_one(tmp_path: Path) -> None:
    """The first source asked gives it."""
    sources = [engine_source(tmp_path, "docker", "app"), engine_source(tmp_path, "podman", "app")]
    [image] = locate(["app:v1"], sources, None)
    assert image.origin is sources[0]
    assert image.image_id == Digest.of(b"app")


def test_an_archive_and_an_engine_are_compared_too(tmp_path: Path) -> None:
    """By image ID, whatever the layers are stored as."""
    image = archives.Image((layer("x"),))
    (tmp_path / "a.tar").write_bytes(pack(oci(image)))
    archive = ArchiveSource(str(tmp_path / "a.tar"))
    same = Shelf("docker", {"app:v1": found(image.config.decode())})
    [first] = locate(["app:v1"], [same, archive], None)
    assert first.origin is same
    with pytest.raises(ImageAmbiguous, match=r"a\.tar"):
        locate(["app:v1"], [Shelf("docker", {"app:v1": found("other")}), archive], None)


def test_a_hint_tells_two_engines_of_one_kind_apart() -> None:
    """A rootful and a rootless Docker: `--from docker` would mean both again."""
    urls = ["unix:///run/docker.sock", "unix:///run/user/1/docker.sock"]
    sources = [Shelf("docker", {"app": found(url)}, url) for url in urls]
    with pytest.raises(ImageAmbiguous) as caught:
        locate(["app"], sources, None)
    assert [url for url in urls if url not in caught.value.hint] == []


@pytest.mark.parametrize("order", [1, -1])
def test_an_id_that_is_not_known_is_not_taken_for_the_same(order: int) -> None:
    """A manifest's digest and an image ID say nothing about each other."""
    shelves = [Shelf("a", {"x": found("app")}), Shelf("b", {"x": found("app", known=False)})]
    with pytest.raises(ImageAmbiguous):
        locate(["x"], shelves[::order], None)


def test_an_image_that_only_one_source_has_is_found_there() -> None:
    """Each image on its own."""
    docker, podman = Shelf("docker", {"a": found("a")}), Shelf("podman", {"b": found("b")})
    located = locate(["b", "a"], [docker, podman], None)
    assert [(image.id, image.origin) for image in located] == [("b", podman), ("a", docker)]


def test_an_image_that_is_nowhere_says_where_it_was_looked_for() -> None:
    """Every place, and a command that shows what is there (kind: "not present locally")."""
    sources = [Shelf("docker", {}), Shelf("podman", {})]
    with pytest.raises(ImageNotFound) as caught:
        locate(["absent:v9"], sources, None)
    assert "'absent:v9'" in caught.value.message
    assert all(source.describe in caught.value.message for source in sources)
    assert "docker images" in caught.value.hint


def test_why_an_engine_may_not_know_a_digest_is_told() -> None:
    """A local build has none there."""
    with pytest.raises(ImageNotFound) as caught:
        locate([f"app@{Digest.of(b'other')}"], [Shelf("docker", {})], None)
    assert "pulled or pushed" in caught.value.hint
    assert "docker images" in caught.value.hint


def test_what_an_archive_has_instead_is_told(tmp_path: Path) -> None:
    """An archive asked for by a digest that it lacks, say; a hundred names are not told."""
    images = [archives.Image((layer(str(i)),), f"app:v{i}") for i in range(12)]
    path = tmp_path / "a.tar"
    path.write_bytes(pack(oci(*images)))
    wish = f"app@{Digest.of(b'other')}"
    with pytest.raises(ImageNotFound) as caught:
        locate([wish], [ArchiveSource(str(path))], None)
    assert f"no image '{wish}' in {path}; it has docker.io/library/app@" in caught.value.message
    assert str(images[9].digest) in caught.value.message
    assert caught.value.message.endswith(" and 2 more")


def test_one_image_that_is_missing_stops_all() -> None:
    """Before anything is sent."""
    with pytest.raises(ImageNotFound, match="'b:latest'"):
        locate(["a", "b"], [Shelf("docker", {"a": found("a")})], None)


def test_a_source_that_fails_is_not_passed_over() -> None:
    """It may hold another image of that name."""

    class Broken(Shelf):
        def find(self, text: str, platform: Platform | None) -> Image | None:
            raise EngineFailed(f"cannot look for {text} on {platform}")

    with pytest.raises(EngineFailed):
        locate(["a"], [Shelf("docker", {"a": found("a")}), Broken("podman", {})], None)


def test_an_image_named_twice_is_loaded_once() -> None:
    """In the order of the first."""
    shelf = Shelf("docker", {"a": found("a"), "b": found("b")})
    assert [image.id for image in locate(["a", "b", "a"], [shelf], None)] == ["a", "b"]


def test_naming_none_means_all_of_an_archive(tmp_path: Path) -> None:
    """And nothing of an engine: that could be hundreds."""
    (tmp_path / "a.tar").write_bytes(
        pack(oci(archives.Image(), archives.Image((layer("db"),), "db:v1")))
    )
    located = locate([], [ArchiveSource(str(tmp_path / "a.tar"))], None)
    assert [image.names for image in located] == [(NAME,), ("docker.io/library/db:v1",)]
    with pytest.raises(UsageError, match="no image given") as caught:
        locate([], [Shelf("docker", {})], None)
    assert caught.value.hint == "name an image, or an archive: app:dev, app.tar"


def test_the_platform_reaches_the_sources(tmp_path: Path) -> None:
    """Otherwise the source's own is taken."""
    images = [archives.Image(platform=f"linux/{a}") for a in ("amd64", "arm64")]
    (tmp_path / "a.tar").write_bytes(pack(oci(*images)))
    archive = ArchiveSource(str(tmp_path / "a.tar"))
    for image in images:
        [chosen] = locate(["app:v1"], [archive], Platform.parse(image.platform))
        assert chosen.image_id == image.image_id


def several(tmp_path: Path, *platforms: str) -> ArchiveSource:
    """Return an archive with images of one name and these platforms."""
    path = tmp_path / "-".join(platforms).replace("/", "")
    path.write_bytes(pack(oci(*(archives.Image(platform=platform) for platform in platforms))))
    return ArchiveSource(str(path))


@pytest.mark.parametrize("order", [1, -1])
def test_another_platform_in_one_source_does_not_hide_the_right_one(
    tmp_path: Path, order: int
) -> None:
    """One engine has it for arm64 only, the other for amd64; the first error is not the end."""
    arm, amd = several(tmp_path, "linux/arm64"), several(tmp_path, "linux/amd64")
    [image] = locate(["app:v1"], [arm, amd][::order], AMD)
    assert image.origin is amd
    assert image.platform == AMD


def test_a_platform_that_no_source_has_is_told(tmp_path: Path) -> None:
    """As the first source says it, and not as an image that is not there."""
    sources = [Shelf("docker", {}), several(tmp_path, "linux/arm64"), Shelf("podman", {})]
    with pytest.raises(PlatformMissing, match="linux/arm64"):
        locate(["app:v1"], sources, AMD)


def test_an_image_that_cannot_be_provided_does_not_stop_the_others(tmp_path: Path) -> None:
    both = several(tmp_path, "linux/amd64", "linux/riscv64")
    only = Shelf("docker", {"tool": found("tool", "x/tool:1")})
    app, tool = locate(["app:v1", "tool"], [both, only], Platform("linux", "s390x"))
    assert isinstance(app.error, PlatformMissing)
    assert (app.names, app.error.image) == ((NAME,), "app:v1")
    assert tool.error is None


RISCV = Platform("linux", "riscv64")


def test_the_nodes_platform_decides(tmp_path: Path) -> None:
    """Where the source would have taken another; what has no other stays."""
    both = several(tmp_path, "linux/amd64", "linux/riscv64", "linux/s390x")
    only = Shelf("docker", {"tool": found("tool", "x/tool:1")})
    for platform in (AMD, RISCV):
        texts, sources = ["app:v1", "tool"], [both, only]
        first = locate(texts, sources, AMD)
        app, tool = match_platform(first, texts, [platform]) or first
        assert app.platform == platform
        assert tool == first[1]
    assert match_platform(first, texts, [AMD, RISCV]) is None


def test_the_nodes_platform_decides_for_all_of_an_archive(tmp_path: Path) -> None:
    """No image is named."""
    archive = several(tmp_path, "linux/amd64", "linux/riscv64")
    first = locate([], [archive], AMD)
    fitted = match_platform(first, [], [RISCV])
    assert fitted is not None
    assert [image.platform for image in fitted] == [RISCV]
    assert match_platform(first, [], [Platform("linux", "arm64")]) is None


def test_each_name_is_an_image_to_load() -> None:
    """An ID with two tags is loaded under both, from one source image."""
    image = found("a", "x/a:1", "x/a:2")
    images = named([image], None)
    assert images == [attrs.evolve(image, name="x/a:1"), attrs.evolve(image, name="x/a:2")]


def test_an_image_asked_for_by_two_texts_is_one() -> None:
    """`app:v1` and its ID: one name, one image."""
    assert len(named([found("a"), found("a")], None)) == 1


@pytest.mark.parametrize(
    ("name", "record"),
    [
        ("app", "docker.io/library/app:latest"),
        ("ghcr.io/me/app:v1", "ghcr.io/me/app:v1"),
        ("localhost:5000/app", "localhost:5000/app:latest"),
    ],
)
def test_a_name_given_takes_the_place_of_all_its_own(name: str, record: str) -> None:
    """Normalised as a pod spec's name is."""
    image = found("a", "x/a:1", "x/a:2")
    assert named([image], name) == [attrs.evolve(image, name=record, names=(record,))]


def test_further_names_stand_beside_its_own() -> None:
    """Normalised, and each once; the source sends the image once for all of them."""
    image = found("a", "docker.io/library/app:v1")
    images = named([image], None, ["app:v2", "docker.io/library/app:v1", "ghcr.io/me/app:v3"])
    names = ("docker.io/library/app:v1", "docker.io/library/app:v2", "ghcr.io/me/app:v3")
    assert tuple(image.name for image in images) == names
    assert {image.names for image in images} == {names}
    given = named([image], "db:v1", ["db:v2"])
    assert [image.name for image in given] == [f"docker.io/library/db:v{n}" for n in (1, 2)]


def test_further_names_for_several_images_are_wrong_usage() -> None:
    """They would be one name of two images."""
    with pytest.raises(UsageError, match="one name"):
        named([found("a", "a:1"), found("b", "b:1")], None, ["c:1"])


def test_one_name_for_several_images_is_wrong_usage() -> None:
    """The last would win."""
    pairs = [found("a"), found("b")]
    with pytest.raises(UsageError, match="one name"):
        named(pairs, "app:v1")


@pytest.mark.parametrize("name", ["", "App", "a b", "app:", "0" * 64])
def test_a_name_that_is_none_is_refused(name: str) -> None:
    """Also an empty one: `--as "$TAG"` where TAG is not set must not load another name."""
    with pytest.raises(ReferenceInvalid):
        named([found("a")], name)


def test_two_images_of_one_name_are_no_guess() -> None:
    """An archive that has the name twice, say: the last would replace the first in silence."""
    with pytest.raises(ImageAmbiguous, match=NAME):
        named([found("a"), found("b")], None)


@pytest.mark.parametrize(
    ("text", "shown"),
    [("app", "app:latest"), ("me/app:latest", "me/app:latest"), ("app:v1", "app:v1")],
)
def test_a_missing_image_is_shown_with_its_tag(text: str, shown: str) -> None:
    with pytest.raises(ImageNotFound, match=f"no image '{shown}' in docker"):
        locate([text], [Shelf("docker", {})], None)


def test_a_missing_image_id_has_no_tag() -> None:
    with pytest.raises(ImageNotFound, match="no image 'deadbeef' in docker"):
        locate(["deadbeef"], [Shelf("docker", {})], None)


@pytest.mark.parametrize(
    ("text", "similar"),
    [
        ("app", "app:dev, app:v1"),
        ("app:latest", "app:dev, app:v1"),
        ("ap:dev", "app:dev"),
        ("ghcr.io/me/tol:v1", "ghcr.io/me/tool:v1"),
        ("unlike:v1", ""),
    ],
)
def test_a_missing_image_of_an_engine_gets_similar_names(
    tmp_path: Path, text: str, similar: str
) -> None:
    """Other tags of its repository first; Podman's localhost/ is omitted, as in pods."""
    names = ["app:dev", "localhost/app:v1", "ghcr.io/me/tool:v1", "db@sha256:" + "0" * 64]
    images = {name: engine_image(name, [name]) for name in names}
    with pytest.raises(ImageNotFound) as caught:
        locate([text], [EngineSource(LocalEngine(tmp_path, images=images))], None)
    assert caught.value.message.partition("similar: ")[2] == similar
