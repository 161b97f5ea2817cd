"""Whose image is taken, and what is loaded in which order."""

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


def test_the_engine_that_runs_the_cluster_wins(tmp_path: Path) -> None:
    """Over another with another image, which is said: the one may be the older."""
    docker, podman = source(tmp_path, "docker", "one"), source(tmp_path, "podman", "two")
    for near, content in ((docker, b"one"), (podman, b"two")):
        image_id, [event] = taken([docker, podman], near)
        assert image_id == Digest.of(content)
        assert isinstance(event, Note)
        assert docker.address in event.text
        assert podman.address in event.text


def test_an_image_that_only_the_other_has_is_taken_from_there(tmp_path: Path) -> None:
    """kind would not find it, or ask the wrong one."""
    docker, podman = source(tmp_path, "docker", None), source(tmp_path, "podman", "two")
    assert taken([docker, podman], docker) == (Digest.of(b"two"), [])


def test_the_same_image_in_both_is_nothing_to_talk_about(tmp_path: Path) -> None:
    """It does not matter where it comes from."""
    docker, podman = source(tmp_path, "docker", "one"), source(tmp_path, "podman", "one")
    assert taken([docker, podman], podman) == (Digest.of(b"one"), [])


def test_two_others_with_different_images_are_no_guess(tmp_path: Path) -> None:
    """The error tells the command that can say which."""
    docker, podman = source(tmp_path, "docker", "one"), source(tmp_path, "podman", "two")
    near = source(tmp_path / "elsewhere", "docker", None)
    with pytest.raises(ImageAmbiguous) as raised:
        taken([near, docker, podman], near)
    assert f"imgload load app:v1 --from {docker.address}" in raised.value.hint


def test_an_image_that_nobody_has_is_named_as_it_was_typed(tmp_path: Path) -> None:
    """For kind's own message."""
    with pytest.raises(ImageNotFound) as raised:
        taken([source(tmp_path, "docker", None)], source(tmp_path, "docker", None))
    assert raised.value.image == "app:v1"
