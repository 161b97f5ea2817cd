"""Skaffold's requests, and variables that Skaffold cannot have set."""

from pathlib import Path

import pytest

from imgload.core.errors import ReferenceInvalid, UsageError
from imgload.oci.platform import Platform
from imgload.tools.skaffold.request import Request

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
