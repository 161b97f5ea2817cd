"""Which image was built just now, and in which engine."""

from collections.abc import Mapping
from pathlib import Path

import pytest

from imgload.core.errors import ImageAmbiguous, ImageNotFound
from imgload.engines.base import Engine
from imgload.engines.endpoint import Endpoint, EngineKind
from imgload.oci.digest import Digest
from imgload.oci.reference import Reference
from imgload.tools.skaffold.built_image import find_built, take_snapshots
from imgload.tools.skaffold.request import Request
from tests.unit.fakes import LocalEngine, engine_image

FULL, LOCAL = "docker.io/library/app:dev", "localhost/app:dev"
REQUEST = Request("app:dev", Reference.parse("app:dev"), Path())


class Store(LocalEngine):
    """An engine that takes a short name for its own localhost's first, as Podman does."""

    def holds(self, images: Mapping[str, str]) -> "Store":
        self.images = {name: engine_image(content) for name, content in images.items()}
        seen = LOCAL if LOCAL in images else FULL
        if seen in images:
            self.images["app:dev"] = self.images[seen]
        return self


@pytest.fixture
def docker(tmp_path: Path) -> Store:
    return store(tmp_path, "docker")


@pytest.fixture
def podman(tmp_path: Path) -> Store:
    return store(tmp_path, "podman")


def store(folder: Path, kind: EngineKind) -> Store:
    return Store(folder, endpoint=Endpoint(kind, f"unix://{folder}/{kind}.sock"))


def told(content: str) -> Digest:
    return Digest.of(content.encode())


def settled(
    before: Mapping[Store, Mapping[str, str]],
    after: Mapping[Store, Mapping[str, str]],
    image_id: Digest | None = None,
) -> tuple[Engine, Digest]:
    before_build = take_snapshots(
        [engine.holds(images) for engine, images in before.items()], REQUEST
    )
    for engine, images in after.items():
        engine.holds(images)
    return find_built(REQUEST, before_build, image_id)


def test_a_new_image_is_the_one(docker: Store) -> None:
    """Whether the name was there before or not."""
    assert settled({docker: {}}, {docker: {FULL: "new"}}) == (docker, told("new"))
    assert settled({docker: {FULL: "old"}}, {docker: {FULL: "new"}}) == (docker, told("new"))


def test_a_build_that_changed_nothing_is_the_one_that_is_there(docker: Store) -> None:
    """Everything came from the cache."""
    assert settled({docker: {FULL: "old"}}, {docker: {FULL: "old"}}) == (docker, told("old"))


def test_the_engine_that_changed_is_the_one(docker: Store, podman: Store) -> None:
    """Another engine's older image of the name is not taken for it."""
    before = {docker: {FULL: "old"}, podman: {}}
    after = {docker: {FULL: "old"}, podman: {LOCAL: "new"}}
    assert settled(before, after) == (podman, told("new"))


def test_two_engines_without_a_change_are_no_guess(docker: Store, podman: Store) -> None:
    """The hint says how to settle it."""
    both = {docker: {FULL: "one"}, podman: {LOCAL: "other"}}
    with pytest.raises(ImageAmbiguous) as caught:
        settled(both, both)
    assert all(told(each).short in caught.value.message for each in ("one", "other"))
    assert "--builder docker" in caught.value.hint


def test_a_build_that_left_nothing_is_told(docker: Store, podman: Store) -> None:
    """Both places are named."""
    with pytest.raises(ImageNotFound) as caught:
        settled({docker: {}, podman: {}}, {})
    assert str(docker.endpoint) in caught.value.message
    assert str(podman.endpoint) in caught.value.message
    assert "$IMAGE" in caught.value.hint


def test_an_image_id_that_was_told_must_be_there(podman: Store) -> None:
    """The program and the socket may have different stores: an old image is not taken for it."""
    same = {podman: {LOCAL: "old"}}
    with pytest.raises(ImageNotFound):
        settled(same, same, told("new"))
    assert settled(same, {podman: {LOCAL: "new"}}, told("new")) == (podman, told("new"))


def test_a_name_that_podman_takes_for_an_older_image_is_refused(podman: Store) -> None:
    """Skaffold would deploy the older one: it asks by the short name."""
    before = {podman: {LOCAL: "old"}}
    after = {podman: {LOCAL: "old", FULL: "new"}}
    with pytest.raises(ImageAmbiguous) as caught:
        settled(before, after)
    assert told("new").short in caught.value.message
    assert f"podman rmi {LOCAL}" in caught.value.hint


def test_an_older_image_that_podman_does_not_take_it_for_does_no_harm(podman: Store) -> None:
    """A pulled one of the same short name."""
    before = {podman: {FULL: "pulled"}}
    after = {podman: {FULL: "pulled", LOCAL: "new"}}
    assert settled(before, after) == (podman, told("new"))
    assert settled(before, after, told("new")) == (podman, told("new"))
