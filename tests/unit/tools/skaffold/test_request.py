"""Skaffold's requests, the image built for them, and the engine of Skaffold's Docker client."""

from collections.abc import Mapping
from pathlib import Path

import attrs
import pytest

from imgload.core.errors import ImageAmbiguous, ImageNotFound, ReferenceInvalid, UsageError
from imgload.engines.base import Engine
from imgload.engines.discovery.candidates import Attempt, Candidate
from imgload.engines.discovery.discover import Discovery
from imgload.engines.endpoint import Endpoint, EngineKind
from imgload.oci.digest import Digest
from imgload.oci.platform import Platform
from imgload.oci.reference import Reference
from imgload.tools.skaffold.request import (
    DEFAULT_SOCKET,
    Request,
    docker_client,
    find_built,
    take_snapshots,
)
from tests.unit.fakes import LocalEngine, engine_image

AMD, ARM = Platform("linux", "amd64"), Platform("linux", "arm64")


def environ(folder: Path, **changed: str | None) -> dict[str, str]:
    """Return Skaffold's own variables, some of them changed or left out."""
    own: dict[str, str | None] = {
        "IMAGE": "app:dev",
        "PUSH_IMAGE": "false",
        "BUILD_CONTEXT": str(folder),
        "PLATFORMS": "",
        "SKIP_TEST": "false",
        "IMAGE_REPO": "app",
        "IMAGE_TAG": "dev",
    }
    return {name: value for name, value in {**own, **changed}.items() if value is not None}


def test_from_environ_parses_skaffolds_variables(tmp_path: Path) -> None:
    """The image name stays as passed: the engine and Skaffold must agree on it."""
    request = Request.from_environ(environ(tmp_path))
    assert (request.image, str(request.reference)) == ("app:dev", "docker.io/library/app:dev")
    assert (request.context, request.push, request.platforms) == (tmp_path, False, ())
    assert not request.multi_platform


@pytest.mark.parametrize(
    ("text", "platforms", "multi"),
    [
        ("linux/amd64", (AMD,), False),
        ("linux/amd64,linux/arm64", (AMD, ARM), True),
        ("linux/amd64, linux/arm64/v8,", (AMD, ARM), True),
        ("all", (), True),
    ],
)
def test_from_environ_parses_a_list_of_platforms(
    tmp_path: Path, text: str, platforms: tuple[Platform, ...], *, multi: bool
) -> None:
    request = Request.from_environ(environ(tmp_path, PLATFORMS=text))
    assert (request.platforms, request.multi_platform) == (platforms, multi)


@pytest.mark.parametrize(
    ("image", "repository", "tag"),
    [
        ("app:dev", "app", "dev"),
        ("app", "app", ""),
        ("app:latest", "app", "latest"),
        ("localhost:5000/a/b:v1", "localhost:5000/a/b", "v1"),
        ("app:dev@sha256:" + "0" * 64, "app", "dev"),
        ("app:dev", "docker.io/library/app", "dev"),
        ("app:dev", None, None),
    ],
)
def test_from_environ_accepts_an_image_that_matches_repo_and_tag(
    tmp_path: Path, image: str, repository: str | None, tag: str | None
) -> None:
    """Older versions of Skaffold do not set IMAGE_REPO and IMAGE_TAG."""
    changed = environ(tmp_path, IMAGE=image, IMAGE_REPO=repository, IMAGE_TAG=tag)
    assert Request.from_environ(changed).image == image


@pytest.mark.parametrize(
    ("image", "repository", "tag"),
    [("mine:v1", "app", "dev"), ("app:dev", "mine", "dev"), ("app:dev", "App!", "dev")],
)
def test_from_environ_refuses_an_image_exported_by_the_users_shell(
    tmp_path: Path, image: str, repository: str, tag: str
) -> None:
    """It overrides Skaffold's, so another image would be built."""
    with pytest.raises(UsageError) as caught:
        Request.from_environ(environ(tmp_path, IMAGE=image, IMAGE_REPO=repository, IMAGE_TAG=tag))
    assert repr(image) in caught.value.message
    assert "env -u IMAGE" in caught.value.hint


@pytest.mark.parametrize(
    ("missing", "message"),
    [
        ({"IMAGE", "BUILD_CONTEXT"}, "IMAGE and BUILD_CONTEXT are not set"),
        ({"IMAGE"}, "IMAGE is not set"),
        ({"BUILD_CONTEXT"}, "your own shell"),
    ],
)
def test_from_environ_explains_missing_variables(
    tmp_path: Path, missing: set[str], message: str
) -> None:
    variables = {k: v for k, v in environ(tmp_path).items() if k not in missing}
    with pytest.raises(UsageError) as caught:
        Request.from_environ(variables)
    assert message in caught.value.message
    assert "IMAGE=app:dev BUILD_CONTEXT=. imgload skaffold" in caught.value.hint


@pytest.mark.parametrize(
    ("name", "value"),
    [("PUSH_IMAGE", "yes"), ("PLATFORMS", "a b"), ("BUILD_CONTEXT", "/no/such/folder")],
)
def test_from_environ_names_an_invalid_value(tmp_path: Path, name: str, value: str) -> None:
    with pytest.raises(UsageError) as caught:
        Request.from_environ(environ(tmp_path, **{name: value}))
    assert repr(value) in caught.value.message


def test_from_environ_refuses_an_invalid_image_name(tmp_path: Path) -> None:
    with pytest.raises(ReferenceInvalid):
        Request.from_environ(environ(tmp_path, IMAGE="App:dev", IMAGE_REPO=None))


@pytest.mark.parametrize(("text", "push"), [("true", True), ("True", True), ("", False)])
def test_from_environ_parses_push_image_as_go_writes_it(
    tmp_path: Path, text: str, *, push: bool
) -> None:
    assert Request.from_environ(environ(tmp_path, PUSH_IMAGE=text)).push is push


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
def test_docker_client_uses_the_chosen_engine(endpoint: Endpoint, origin: str) -> None:
    """A variable or a context selects it; Podman has the same API."""
    discovery = Discovery((attempt(endpoint, origin, chosen=True), attempt(DOCKER)))
    assert docker_client(discovery) == (endpoint.url, origin, endpoint)


def test_docker_client_uses_the_default_socket_without_a_choice() -> None:
    """It ignores rootless Docker, which imgload also discovers, and skipped candidates."""
    discovery = Discovery((attempt(ROOTLESS), attempt(DOCKER)))
    assert docker_client(discovery) == (DEFAULT_SOCKET, "the default", DOCKER)
    silent = (DEFAULT_SOCKET, "the default", None)
    passed = attrs.evolve(attempt(DOCKER, chosen=True), skip_reason="it is not the current one")
    for attempts in ((), (attempt(ROOTLESS),), (passed,)):
        assert docker_client(Discovery(attempts)) == silent


def test_docker_client_returns_the_engines_own_endpoint_for_a_second_socket() -> None:
    again = attrs.evolve(attempt(DOCKER, "DOCKER_HOST", chosen=True), same_as=ROOTLESS)
    assert docker_client(Discovery((attempt(ROOTLESS), again)))[2] == ROOTLESS


def test_docker_client_keeps_a_chosen_address_that_does_not_answer() -> None:
    """Skaffold fails there."""
    dead = attrs.evolve(attempt(PODMAN, "DOCKER_HOST", chosen=True), endpoint=None)
    discovery = Discovery((dead, attempt(DOCKER)))
    assert docker_client(discovery) == (PODMAN.url, "DOCKER_HOST", None)
