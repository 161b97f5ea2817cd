"""The engines through the clients of their SDKs, which the caller already has."""

from __future__ import annotations

import os
from typing import Any

import docker
import podman
import pytest

from imgload.clusters.select import select_nodes
from imgload.core.errors import EngineFailed
from imgload.engines.base import Engine
from imgload.engines.docker import Docker
from imgload.engines.podman import Podman
from imgload.engines.sdk import SdkWire
from imgload.loader.loader import Loader
from imgload.oci.catalogue import scan
from imgload.oci.digest import Digest
from imgload.sources.engine import EngineSource
from tests.engine.conftest import Images, unique
from tests.lab import Lab

CLUSTERS = {"docker": "lab-d21", "docker28": "lab-e21", "podman": "lab-p21"}
ENGINES = {"docker": Docker, "docker28": Docker, "podman": Podman}


@pytest.fixture(params=ENGINES)
def name(request: pytest.FixtureRequest) -> str:
    """Return the lab's name of an engine."""
    return str(request.param)


def client_of(lab: Lab, name: str) -> Any:
    """Return a client of an engine's SDK."""
    of = podman.PodmanClient if name == "podman" else docker.DockerClient
    return of(base_url=lab.engine(name).url)


@pytest.fixture
def engine(lab: Lab, name: str) -> Engine:
    """Return an engine on a client of its SDK."""
    opened = ENGINES[name](client_of(lab, name))
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
        [image] = scan(archive).images
    assert image.config.diff_ids == found.diff_ids
    engine.close()


def test_a_command_runs_with_input(lab: Lab, engine: Engine, name: str) -> None:
    """Both ways at once, and its exit status."""
    cluster = CLUSTERS[name]
    node = engine.container(lab.cluster(cluster).nodes[0].name)
    assert node is not None
    script = 'read line; echo "got $line"; echo no >&2; exit 3'
    ended = engine.exec(node.id, ["sh", "-c", script], stdin=[b"it\n"])
    assert (ended.exit_status, ended.stdout, ended.stderr) == (3, b"got it\n", b"no\n")
    assert node.name in {c.name for c in engine.containers(f"io.x-k8s.kind.cluster={cluster}")}
    with pytest.raises(EngineFailed):
        engine.exec("no-such-container", ["true"])
    engine.close()


def test_an_image_is_loaded_by_a_client_of_the_callers(lab: Lab, images: Images, name: str) -> None:
    """The nodes are verified as with any other engine, and the client stays open."""
    tag, client = unique(), client_of(lab, name)
    images.build(lab.engine(name), tag, os.urandom(100_000))
    engine = ENGINES[name](client)
    nodes = select_nodes([engine], CLUSTERS[name], [])
    report = Loader(EngineSource(engine), nodes).load(tag)
    [image] = report.images
    assert {result.node for result in image.nodes} == {node.name for node in nodes}
    assert report.ok
    engine.close()
    assert client.ping()
