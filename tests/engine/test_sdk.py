"""The engines through their SDKs, which is the way where a socket will not do."""

from __future__ import annotations

import os

import pytest

from imgload.core.errors import EngineFailed
from imgload.engines.base import Engine
from imgload.engines.docker import DockerEngine
from imgload.engines.endpoint import Endpoint
from imgload.engines.podman import PodmanEngine
from imgload.engines.sdk import SdkWire
from imgload.oci.digest import Digest
from imgload.oci.scan import scan
from tests.engine.conftest import Images, unique
from tests.lab import Lab

ENGINES = {"docker": DockerEngine, "docker28": DockerEngine, "podman": PodmanEngine}


@pytest.fixture(params=ENGINES)
def name(request: pytest.FixtureRequest) -> str:
    """Return the lab's name of an engine."""
    return str(request.param)


@pytest.fixture
def engine(lab: Lab, name: str) -> Engine:
    """Return an engine whose version no ping has told: its SDK asks for it."""
    kind = "podman" if name == "podman" else "docker"
    opened = ENGINES[name](Endpoint(kind, lab.engine(name).url))  # type: ignore[arg-type]
    assert isinstance(opened._wire, SdkWire)  # noqa: SLF001
    return opened


def test_an_image_is_found_and_saved(lab: Lab, images: Images, engine: Engine, name: str) -> None:
    """What is not there is None."""
    tag = unique()
    built = images.build(lab.engine(name), tag, os.urandom(100_000))
    found = engine.find(tag)
    assert found is not None
    assert found.target == Digest.parse(built)
    assert engine.find("no-such-image:v1") is None
    with engine.save([tag], found.platform) as archive:
        [image] = scan(archive)
    assert image.config.diff_ids == found.diff_ids
    engine.close()


def test_a_command_runs_with_input(lab: Lab, engine: Engine, name: str) -> None:
    """Both ways at once, and its exit status."""
    cluster = {"docker": "lab-d21", "docker28": "lab-e21", "podman": "lab-p21"}[name]
    node = engine.container(lab.cluster(cluster).nodes[0].name)
    assert node is not None
    script = 'read line; echo "got $line"; echo no >&2; exit 3'
    ended = engine.exec(node.id, ["sh", "-c", script], stdin=[b"it\n"])
    assert (ended.exit_status, ended.stdout, ended.stderr) == (3, b"got it\n", b"no\n")
    assert node.name in {c.name for c in engine.containers(f"io.x-k8s.kind.cluster={cluster}")}
    with pytest.raises(EngineFailed):
        engine.exec("no-such-container", ["true"])
    engine.close()
