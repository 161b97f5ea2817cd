"""What a push needs in an engine is gone afterwards, and decides nothing about a load."""

import subprocess
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

import imgload
from imgload.clusters.nodes import node
from imgload.core.errors import EngineFailed
from imgload.engines.base import EngineImage
from imgload.engines.docker import Docker
from imgload.engines.endpoint import Endpoint
from imgload.engines.http_engine import read_image
from imgload.engines.temporary_tags import stale_names
from imgload.loader.loader import Loader
from imgload.oci.digest import Digest
from imgload.oci.reference import Reference
from imgload.sources.engine import EngineSource
from imgload.tools.doctor.image import find_in_engines
from imgload.tools.skaffold.build import PreparedLoad
from imgload.tools.skaffold.request import Request
from tests.unit.archives import Image
from tests.unit.stored import AMD, EMPTY, StoredEngine, StoredNode, annotated, loaded

IMAGE = Image()


@pytest.fixture(autouse=True)
def _cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))


@pytest.fixture
def engine(tmp_path: Path) -> StoredEngine:
    return StoredEngine(tmp_path, IMAGE)


def loader(engine: StoredEngine, node: StoredNode) -> Loader:
    return Loader([EngineSource(engine)], [node])


def listeners() -> list[str]:
    return [t.name for t in threading.enumerate() if "serve_forever" in t.name]


def test_one_tag_serves_all_pushes_and_is_removed(engine: StoredEngine) -> None:
    """Even if the nodes turn out to have the image."""
    seen: list[set[str]] = []
    node = StoredNode(engine)
    push_as_always = engine.push

    def look(repository: str) -> None:
        seen.append(set(engine.given))
        push_as_always(repository)

    engine.push = look  # type: ignore[method-assign]
    report = loader(engine, node).load(["app:v1"])
    assert report.ok
    assert len(seen) == 2
    assert seen[0] == seen[1]
    assert not engine.given
    assert not listeners()
    [result] = loader(engine, node).load(["app:v1"]).images[0].nodes
    assert (result.action, engine.given) == ("present", set())


def test_an_image_that_a_node_has_lost_is_not_present(engine: StoredEngine, tmp_path: Path) -> None:
    """A reused loader surveys again if an ID that it did not know is an old one."""
    rebuilt = StoredEngine(tmp_path, IMAGE, annotated(IMAGE.manifest))
    node = StoredNode(engine)
    loader(engine, node).load(["app:v1"])
    node.now, node.asked = EMPTY, 0
    node.after = loaded(IMAGE, rebuilt.held.target)
    [result] = loader(rebuilt, node).load(["app:v1"], transport="delta").images[0].nodes
    assert result.action == "full"
    assert node.asked


def test_an_interrupted_save_leaves_no_tag(engine: StoredEngine) -> None:
    """The KeyboardInterrupt is raised."""

    def interrupt(*_: object) -> None:
        assert not engine.given
        raise KeyboardInterrupt

    engine.save = interrupt  # type: ignore[assignment,method-assign]
    with pytest.raises(KeyboardInterrupt):
        loader(engine, StoredNode(engine)).load(["app:v1"], transport="archive")
    assert not engine.given


def test_the_doctor_and_skaffold_leave_no_tag(engine: StoredEngine) -> None:
    _, image = find_in_engines("app:v1", [engine])
    assert image
    assert (image.image_id, engine.given, listeners()) == (IMAGE.image_id, set(), [])

    def interrupt(repository: str) -> None:
        del repository
        raise KeyboardInterrupt

    engine.push = interrupt  # type: ignore[method-assign]
    request = Request("app:v1", Reference.parse("app:v1"), Path())
    with pytest.raises(KeyboardInterrupt):
        PreparedLoad(Loader([], []), lambda _: None).load(engine, request, engine.held.target, None)
    assert (engine.given, listeners()) == (set(), [])


class Untagged(Docker):
    """A daemon that gives a name and does not take it away again."""

    def __init__(self, folder: Path) -> None:
        self.endpoint = Endpoint("docker", f"unix://{folder}/engine.sock")

    @contextmanager
    def request(self, *_: object, **__: object) -> Iterator[Any]:
        yield None

    def remove_temporary(self, name: str, image: str) -> bool:
        del image
        raise EngineFailed(f"{name} is in use")


def test_a_tag_that_cannot_be_removed_is_left_to_the_next_run(tmp_path: Path) -> None:
    """The load succeeds; the note of the tag stays."""
    engine = Untagged(tmp_path)
    with engine.pushing(Digest.of(b""), "127.0.0.1:1234/imgload/" + "0" * 32):
        assert not list(stale_names([engine.endpoint.url]))
    [left] = stale_names([engine.endpoint.url])
    assert left.name.startswith("127.0.0.1:1234/imgload/")


def test_a_temporary_tag_is_not_a_name_of_the_image() -> None:
    """It may be another run's, and must not appear on nodes."""
    ours = "127.0.0.1:36039/imgload/" + "0" * 32 + ":" + "1" * 16
    found = {"Id": str(Digest.of(b"i")), "RepoTags": ["app:v1", ours], "Architecture": "amd64"}
    assert read_image(found).names == ("app:v1",)


def test_a_history_of_another_length_gives_no_layer_sizes(engine: StoredEngine) -> None:
    """The manifest's sizes are used as soon as it is known."""
    source = EngineSource(engine)
    found = source.find("app:v1", None)
    assert found
    assert not source.layer_sizes(found)
    assert source.layer_sizes(source.identify(found)) == [len(raw) for raw in IMAGE.layers]
    source.release()


def test_an_interrupted_copy_removes_its_folder(tmp_path: Path) -> None:
    """The shell in the node continues without imgload."""
    for command in ("true", "false"):
        folder = tmp_path / command
        folder.mkdir()
        subprocess.run(["sh", "-c", node._FROM_FOLDER, "imgload", folder, command], check=False)  # noqa: SLF001
        assert not folder.exists()


def test_a_failed_source_does_not_hide_the_results_of_others(
    engine: StoredEngine, tmp_path: Path
) -> None:
    """The report has the verified images, and the error of the rest."""
    (tmp_path / "other").mkdir()
    broken = StoredEngine(tmp_path / "other", Image(name="b:v1"))
    broken.endpoint = Endpoint("podman", "unix:///b")
    other = Digest.of(b"other")
    broken.images = {"b:v1": EngineImage(other, other, ("b:v1",), AMD, (Digest.of(b"q"),), 100)}

    def fail(*_: object) -> None:
        raise EngineFailed("podman: saving failed")

    broken.save = broken.pushing = fail  # type: ignore[assignment,method-assign]
    both = Loader([EngineSource(engine), EngineSource(broken)], [StoredNode(engine)])
    with pytest.raises(imgload.LoadFailed) as caught:
        both.load(["b:v1", "app:v1"])
    [failed, done] = caught.value.report.images
    assert done.nodes[0].ok
    assert "saving failed" in failed.nodes[0].error_text
    alone = Loader([EngineSource(broken)], [StoredNode(engine)])
    with pytest.raises(EngineFailed):
        alone.load(["b:v1"])
