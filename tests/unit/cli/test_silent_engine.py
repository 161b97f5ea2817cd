"""Errors mention a configured engine that does not respond: it may have the missing object."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from imgload.registry.server import receiving
from imgload.registry.sink import ManifestSink
from tests.unit.cli.conftest import Run
from tests.unit.cli.stub import Docker

COMMANDS = (
    "load app:dev",
    "verify app:dev",
    "watch app",
    "images",
    "prune",
    "registry connect http://registry:5000",
    "registry disconnect",
)


@pytest.fixture(autouse=True)
def stale(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """Answer for Docker, and give Podman's address, where nobody is."""
    path = f"unix://{tmp_path}/stale.sock"
    monkeypatch.setenv("CONTAINER_HOST", path)
    with Docker().listening(tmp_path) as url:
        monkeypatch.setenv("DOCKER_HOST", url)
        yield path


@pytest.mark.parametrize("command", COMMANDS)
def test_a_missing_cluster_error_names_the_unreachable_engine(
    run: Run, stale: str, command: str
) -> None:
    """In every command that takes a cluster."""
    outcome = run(*command.split(), "--cluster", "other")
    assert outcome.status == 4
    assert "no cluster 'other'" in outcome.stderr
    assert stale in outcome.stderr


@pytest.mark.parametrize("command", ["load {image}", "registry push {image} --to http://{host}"])
def test_a_missing_image_error_names_the_unreachable_engine(
    run: Run, stale: str, command: str
) -> None:
    """In loads and pushes."""
    with receiving(ManifestSink()) as repository:
        host = repository.partition("/")[0]
        outcome = run(*command.format(image="absent:dev", host=host).split())
    assert outcome.status == 3
    assert "no image 'absent:dev'" in outcome.stderr
    assert stale in outcome.stderr
