"""Finding the built image, and the engine that has it."""

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

    def set_images(self, images: Mapping[str, str]) -> "Store":
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


def image_id_of(content: str) -> Digest:
    return Digest.of(content.encode())


def build(
    before: Mapping[Store, Mapping[str, str]],
    after: Mapping[Store, Mapping[str, str]],
    image_id: Digest | None = None,
) -> tuple[Engine, Digest]:
    before_build = take_snapshots(
        [engine.set_images(images) for engine, images in before.items()], REQUEST
    )
    for engine, images in after.items():
        engine.set_images(images)
    return find_built(REQUEST, before_build, image_id)


def test_find_built_returns_a_new_image(docker: Store) -> None:
    assert build({docker: {}}, {docker: {FULL: "new"}}) == (docker, image_id_of("new"))
    assert build({docker: {FULL: "old"}}, {docker: {FULL: "new"}}) == (docker, image_id_of("new"))


def test_find_built_returns_the_existing_image_after_a_cached_build(docker: Store) -> None:
    assert build({docker: {FULL: "old"}}, {docker: {FULL: "old"}}) == (docker, image_id_of("old"))


def test_find_built_returns_the_engine_that_changed(docker: Store, podman: Store) -> None:
    """Another engine has an older image with that name."""
    before = {docker: {FULL: "old"}, podman: {}}
    after = {docker: {FULL: "old"}, podman: {LOCAL: "new"}}
    assert build(before, after) == (podman, image_id_of("new"))


def test_find_built_refuses_to_guess_between_two_unchanged_engines(
    docker: Store, podman: Store
) -> None:
    both = {docker: {FULL: "one"}, podman: {LOCAL: "other"}}
    with pytest.raises(ImageAmbiguous) as caught:
        build(both, both)
    assert all(image_id_of(name).short in caught.value.message for name in ("one", "other"))
    assert "--builder docker" in caught.value.hint


def test_find_built_names_the_engines_without_the_image(docker: Store, podman: Store) -> None:
    with pytest.raises(ImageNotFound) as caught:
        build({docker: {}, podman: {}}, {})
    assert str(docker.endpoint) in caught.value.message
    assert str(podman.endpoint) in caught.value.message
    assert "$IMAGE" in caught.value.hint


def test_find_built_requires_the_reported_image_id(podman: Store) -> None:
    """The builder and the socket may have different stores."""
    same = {podman: {LOCAL: "old"}}
    with pytest.raises(ImageNotFound):
        build(same, same, image_id_of("new"))
    assert build(same, {podman: {LOCAL: "new"}}, image_id_of("new")) == (podman, image_id_of("new"))


def test_find_built_refuses_a_name_that_podman_resolves_to_an_older_image(podman: Store) -> None:
    """Skaffold asks by the short name, and would deploy the older one."""
    before = {podman: {LOCAL: "old"}}
    after = {podman: {LOCAL: "old", FULL: "new"}}
    with pytest.raises(ImageAmbiguous) as caught:
        build(before, after)
    assert image_id_of("new").short in caught.value.message
    assert f"podman rmi {LOCAL}" in caught.value.hint


def test_find_built_ignores_an_older_image_that_podman_does_not_resolve_to(podman: Store) -> None:
    before = {podman: {FULL: "pulled"}}
    after = {podman: {FULL: "pulled", LOCAL: "new"}}
    assert build(before, after) == (podman, image_id_of("new"))
    assert build(before, after, image_id_of("new")) == (podman, image_id_of("new"))
