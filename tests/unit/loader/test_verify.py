"""What is said of a node that lacks an image."""

import shlex
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import pytest

import imgload
from imgload.clusters.select import Selection
from imgload.engines.discovery.discover import Discovery
from imgload.loader.session import Session
from imgload.sources.archive import ArchiveSource
from imgload.sources.base import Source
from imgload.sources.engine import EngineSource
from tests.unit.archives import Image, layer, oci, pack
from tests.unit.clusters.nodes.test_node import node_on
from tests.unit.fakes import LocalEngine, engine_image

NODE = "kind-control-plane"
NAMES = ("app:dev", "other/db:v1")


@pytest.fixture
def archive(tmp_path: Path) -> str:
    """Give the path of an archive with two images, and a space in it."""
    path = tmp_path / "two images.tar"
    path.write_bytes(pack(oci(*(Image((layer(name),), name) for name in NAMES))))
    return str(path)


@pytest.fixture(autouse=True)
def connections(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Connect to a node without these images, and an engine that has app:dev."""
    node = node_on(tmp_path)
    engine = LocalEngine(tmp_path, images={"app:dev": engine_image("app", ["app:dev"])})

    @contextmanager
    def opened(
        source: str | None = None, *, follow_links: bool = False, archives: Sequence[str] = ()
    ) -> Iterator[Session]:
        assert not archives
        known: Source = EngineSource(engine)
        if source and source.endswith(".tar"):
            known = ArchiveSource(source, follow_links=follow_links)
        yield Session((known,), (engine,), Discovery(()))

    monkeypatch.setattr(Session, "open", opened)
    monkeypatch.setattr(Session, "select", lambda *_, **__: Selection((node,)))


def hints(images: list[str], **options: str | bool) -> list[str]:
    """Return what is to be tried where no node has the images."""
    with pytest.raises(imgload.LoadFailed) as caught:
        imgload.verify(images, **options)  # type: ignore[arg-type]
    errors = [node.error for _, node in caught.value.report.failures()]
    return [error.hint for error in errors if error]


@pytest.mark.parametrize(
    ("options", "command"),
    [
        ({}, "imgload load app:dev"),
        ({"source": "docker"}, "imgload load app:dev --from docker"),
        ({"tag": "ghcr.io/me/app"}, "imgload load app:dev --tag ghcr.io/me/app"),
        ({"platform": "linux/amd64"}, "imgload load app:dev --platform linux/amd64"),
        (
            {"source": "docker", "tag": "a:b"},
            "imgload load app:dev --from docker --tag a:b",
        ),
    ],
)
def test_the_hint_is_the_command_that_loads_the_image(
    options: dict[str, str], command: str
) -> None:
    """The requested name, source and platform are in it."""
    assert hints(["app:dev"], **options) == [f"{command} --node {NODE}"]


def test_the_hint_names_an_image_of_an_archive(archive: str) -> None:
    """One image in each hint, and the file quoted for a shell."""
    quoted = shlex.quote(archive)
    assert hints([], source=archive) == [
        f"imgload load docker.io/library/app:dev --from {quoted} --node {NODE}",
        f"imgload load docker.io/other/db:v1 --from {quoted} --node {NODE}",
    ]
    assert hints(["other/db:v1"], source=archive) == [
        f"imgload load other/db:v1 --from {quoted} --node {NODE}"
    ]
    assert hints(["other/db:v1"], source=archive, follow_links=True) == [
        f"imgload load other/db:v1 --from {quoted} --follow-links --node {NODE}"
    ]


def test_the_hint_omits_the_name_of_a_renamed_image(tmp_path: Path) -> None:
    """With --as, the archive's own name is unknown."""
    path = tmp_path / "one.tar"
    path.write_bytes(pack(oci(Image())))
    assert hints([], source=str(path), tag="x:y") == [
        f"imgload load --from {path} --tag x:y --node {NODE}"
    ]
