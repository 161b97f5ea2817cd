"""Which builder docker-buildx and `docker build` use; the files are as buildx 0.29 writes them."""

import json
from hashlib import sha256
from pathlib import Path

import attrs
import pytest

from imgload.engines.discovery.buildx import build_builder, buildx_builder

ADDRESS = "unix:///run/docker.sock"
OURS = {"Key": ADDRESS, "Name": "outside", "Global": False}
OTHERS = {"Key": "unix:///other.sock", "Name": "outside", "Global": False}


@attrs.frozen
class User:
    """A user's Docker configuration folder."""

    folder: Path

    def write(self, name: str, document: object) -> None:
        path = self.folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(document if isinstance(document, str) else json.dumps(document))

    def environ(self, **changed: str) -> dict[str, str]:
        return {"DOCKER_CONFIG": str(self.folder), "DOCKER_HOST": ADDRESS, **changed}


@pytest.fixture
def user(tmp_path: Path) -> User:
    user = User(tmp_path)
    for name, driver in {"outside": "docker-container", "inside": "docker"}.items():
        user.write(f"buildx/instances/{name}", {"Name": name, "Driver": driver})
    return user


@pytest.mark.parametrize(
    ("current", "changed", "expected"),
    [
        (OURS, {}, "outside"),
        (OURS, {"DOCKER_HOST": "unix:///other.sock"}, None),
        (OTHERS, {}, None),
        ({**OTHERS, "Global": True}, {}, "outside"),
        ({**OURS, "Key": "desktop"}, {"DOCKER_HOST": "", "DOCKER_CONTEXT": "desktop"}, "outside"),
        ({**OURS, "Key": "unix:///var/run/docker.sock"}, {"DOCKER_HOST": ""}, "outside"),
        ({**OURS, "Name": "inside"}, {}, None),
        ({**OURS, "Name": "removed"}, {}, None),
        ({**OURS, "Name": "../instances/outside"}, {}, None),
        (OURS, {"BUILDX_BUILDER": "inside"}, None),
        (OURS, {"BUILDX_BUILDER": "default"}, None),
        (OTHERS, {"BUILDX_BUILDER": "Outside"}, "outside"),
        (OURS, {"BUILDX_CONFIG": "/nowhere"}, None),
        ("not JSON", {}, None),
        ([], {}, None),
        ("", {}, None),
    ],
)
def test_buildx_builder_has_another_driver_than_docker(
    user: User, current: object, changed: dict[str, str], expected: str | None
) -> None:
    if current:
        user.write("buildx/current", current)
    assert buildx_builder(user.environ(**changed)) == expected


def test_buildx_builder_may_be_the_default_for_an_address(user: User) -> None:
    """As `docker buildx use --default` sets it."""
    user.write("buildx/current", OTHERS)
    user.write(f"buildx/defaults/{sha256(ADDRESS.encode()).hexdigest()[:20]}", "outside")
    assert buildx_builder(user.environ()) == "outside"


@pytest.mark.parametrize(
    ("settings", "changed", "expected"),
    [
        ({}, {}, None),
        ({"aliases": {"builder": "buildx"}}, {}, "outside"),
        ({"aliases": {"builder": "buildx"}}, {"DOCKER_BUILDKIT": "0"}, None),
        ({}, {"BUILDX_BUILDER": "outside"}, "outside"),
        ({}, {"BUILDX_BUILDER": "outside", "DOCKER_BUILDKIT": "1"}, "outside"),
        ({}, {"BUILDX_BUILDER": "outside", "DOCKER_BUILDKIT": "false"}, None),
        ({"aliases": 1}, {}, None),
    ],
)
def test_build_builder_is_buildxs_only_if_selected_or_installed(
    user: User, settings: object, changed: dict[str, str], expected: str | None
) -> None:
    user.write("buildx/current", OURS)
    user.write("config.json", settings)
    assert build_builder(user.environ(**changed)) == expected
