"""Images of several platforms in Docker's containerd image store, whole and in part."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import pytest

import imgload
from tests.engine.conftest import cri_id, forget, unique
from tests.engine.kinds import Made, Platforms, oci
from tests.lab import Lab
from tests.unit.archives import pack

CLUSTER = "lab-d21"
Held = Callable[[Made], str]


@pytest.fixture
def held(lab: Lab) -> Iterator[Held]:
    """Have Docker 28 load an image; returns its name. What is on the node goes at the end."""
    names: list[str] = []

    def load(made: Made) -> str:
        lab.docker28.cli("load", stdin=pack(oci([made])))
        names.append(made.name)
        return made.name

    yield load
    lab.docker28.cli("rmi", "--force", *names)
    forget(lab.cluster(CLUSTER).nodes[0], *(f"docker.io/library/{name}" for name in names))


def test_one_platform_of_an_index_is_saved(lab: Lab, held: Held) -> None:
    """What Docker saves for a platform has the manifest on top, and not the index."""
    made = Platforms(unique(), compression="gzip")
    name = held(made)
    report = imgload.load(name, cluster=CLUSTER, source=lab.docker28.url, transport="archive")
    assert str(report.images[0].image_id) == made.image_id
    assert cri_id(lab.cluster(CLUSTER).nodes[0], f"docker.io/library/{name}") == made.image_id
