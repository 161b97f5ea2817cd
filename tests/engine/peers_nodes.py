"""The node on which users' reports are reproduced: containerd 1.7, with crictl as in kind."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.engine.peers import wipe
from tests.lab import Cluster, Lab


@pytest.fixture(scope="module")
def node_of_docker(lab: Lab) -> Iterator[Cluster]:
    """A node on Docker 20.10."""
    made = lab.make_cluster(name="lab-peers", engine="docker", containerd="1.7", crictl=True)
    yield made
    made.remove()


@pytest.fixture
def cluster(node_of_docker: Cluster) -> Iterator[Cluster]:
    """The node on Docker 20.10, empty."""
    yield node_of_docker
    wipe(node_of_docker)
