"""The choice between different images in several engines."""

from collections.abc import Sequence
from pathlib import Path

import pytest

from imgload.core.errors import ImageAmbiguous, ImageNotFound
from imgload.engines.endpoint import Endpoint, EngineKind
from imgload.loader.events import Event, Note
from imgload.oci.digest import Digest
from imgload.sources.engine import EngineSource
from imgload.sources.locate import locate
from imgload.tools.dropins.run import prefer
from tests.unit.fakes import LocalEngine, engine_image


def source(folder: Path, kind: EngineKind, content: str | None) -> EngineSource:
    endpoint = Endpoint(kind, f"unix://{folder}/{kind}.sock")
    images = {"app:v1": engine_image(content, ["app:v1"])} if content else {}
    return EngineSource(LocalEngine(folder, images=images, endpoint=endpoint))


def taken(sources: Sequence[EngineSource], near: EngineSource) -> tuple[Digest | None, list[Event]]:
    events: list[Event] = []
    [found] = locate(["app:v1"], sources, None, prefer(near.address, events.append))
    return found.image_id, events


def test_prefer_takes_the_image_of_the_clusters_engine(tmp_path: Path) -> None:
    """A note names the other engine, whose image may be newer."""
    docker, podman = source(tmp_path, "docker", "one"), source(tmp_path, "podman", "two")
    for near, content in ((docker, b"one"), (podman, b"two")):
        image_id, [event] = taken([docker, podman], near)
        assert image_id == Digest.of(content)
        assert isinstance(event, Note)
        assert docker.address in event.text
        assert podman.address in event.text


def test_prefer_takes_the_image_of_the_only_engine_that_has_it(tmp_path: Path) -> None:
    docker, podman = source(tmp_path, "docker", None), source(tmp_path, "podman", "two")
    assert taken([docker, podman], docker) == (Digest.of(b"two"), [])


def test_prefer_notes_nothing_for_identical_images(tmp_path: Path) -> None:
    docker, podman = source(tmp_path, "docker", "one"), source(tmp_path, "podman", "one")
    assert taken([docker, podman], podman) == (Digest.of(b"one"), [])


def test_prefer_refuses_to_guess_between_two_other_engines(tmp_path: Path) -> None:
    docker, podman = source(tmp_path, "docker", "one"), source(tmp_path, "podman", "two")
    near = source(tmp_path / "elsewhere", "docker", None)
    with pytest.raises(ImageAmbiguous) as raised:
        taken([near, docker, podman], near)
    assert f"imgload load app:v1 --from {docker.address}" in raised.value.hint


def test_a_missing_image_is_named_as_typed(tmp_path: Path) -> None:
    with pytest.raises(ImageNotFound) as raised:
        taken([source(tmp_path, "docker", None)], source(tmp_path, "docker", None))
    assert raised.value.image == "app:v1"
