"""Finding the built image, the engine that has it, and the engine of Skaffold's Docker client."""

from collections.abc import Mapping
from pathlib import Path

import attrs
import pytest

from imgload.core.errors import ImageAmbiguous, ImageNotFound
from imgload.engines.base import Engine
from imgload.engines.discovery.attempt import Attempt, Candidate
from imgload.engines.discovery.discover import Discovery
from imgload.engines.endpoint import Endpoint, EngineKind
from imgload.oci.digest import Digest
from imgload.oci.reference import Reference
from imgload.tools.skaffold.built_image import (
    DEFAULT_SOCKET,
    Client,
    find_built,
    take_snapshots,
)
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


PODMAN = Endpoint("podman", "unix:///run/podman.sock")
DOCKER = Endpoint("docker", DEFAULT_SOCKET)
ROOTLESS = Endpoint("docker", "unix:///run/user/1/docker.sock")


def attempt(endpoint: Endpoint, origin: str = "Docker", *, chosen: bool = False) -> Attempt:
    return Attempt(Candidate("docker", endpoint.url, origin, chosen=chosen), endpoint)


@pytest.mark.parametrize("endpoint", [PODMAN, DOCKER, ROOTLESS])
@pytest.mark.parametrize("origin", ["DOCKER_HOST", "the current Docker context 'x'"])
def test_client_uses_the_chosen_engine(endpoint: Endpoint, origin: str) -> None:
    """A variable or a context selects it; Podman has the same API."""
    discovery = Discovery((attempt(endpoint, origin, chosen=True), attempt(DOCKER)))
    assert Client.of(discovery) == Client(endpoint.url, origin, endpoint)


def test_client_uses_the_default_socket_without_a_choice() -> None:
    """It ignores rootless Docker, which imgload also discovers, and skipped candidates."""
    discovery = Discovery((attempt(ROOTLESS), attempt(DOCKER)))
    assert Client.of(discovery) == Client(DEFAULT_SOCKET, "the default", DOCKER)
    silent = Client(DEFAULT_SOCKET, "the default")
    passed = attrs.evolve(attempt(DOCKER, chosen=True), skip_reason="it is not the current one")
    for attempts in ((), (attempt(ROOTLESS),), (passed,)):
        assert Client.of(Discovery(attempts)) == silent


def test_client_returns_the_engines_own_endpoint_for_a_second_socket() -> None:
    again = attrs.evolve(attempt(DOCKER, "DOCKER_HOST", chosen=True), same_as=ROOTLESS)
    assert Client.of(Discovery((attempt(ROOTLESS), again))).endpoint == ROOTLESS


def test_client_keeps_a_chosen_address_that_does_not_answer() -> None:
    """Skaffold fails there."""
    dead = attrs.evolve(attempt(PODMAN, "DOCKER_HOST", chosen=True), endpoint=None)
    discovery = Discovery((dead, attempt(DOCKER)))
    assert Client.of(discovery) == Client(PODMAN.url, "DOCKER_HOST")
