"""The real kind recognises the lab's clusters as its own."""

import os
import subprocess
from pathlib import Path

import pytest

from tests.lab import Cluster, Lab, Node
from tests.lab.kind import VERSIONS
from tests.lab.lab import SPECS

TAG = "docker.io/library/lab-check:v1"


@pytest.fixture(params=SPECS)
def cluster(lab: Lab, request: pytest.FixtureRequest) -> Cluster:
    return lab.cluster(request.param)


@pytest.fixture(params=["lab-d21", "lab-d3", "lab-d16", "lab-p3", "lab-p17", "lab-e21"])
def target(lab: Lab, request: pytest.FixtureRequest) -> Cluster:
    return lab.cluster(request.param)


@pytest.fixture(scope="module")
def archive(lab: Lab, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("archive") / "image.tar"
    lab.docker.build(TAG, {"app.txt": b"v1"})
    path.write_bytes(lab.docker.raw("save", TAG))
    lab.docker.remove_image(TAG)
    return path


def kind(lab: Lab, version: str, cluster: Cluster, *args: str | Path) -> list[str]:
    done = subprocess.run(
        [lab.kind(version), *args],
        env={**os.environ, **lab.environ(cluster.engine.name)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout.split()


def has_image(node: Node) -> bool:
    return TAG in node.ctr("images", "ls", "-q").split()


@pytest.mark.parametrize("version", VERSIONS)
def test_kind_lists_the_cluster_and_its_nodes(lab: Lab, cluster: Cluster, version: str) -> None:
    """`kind get` finds each cluster and all of its nodes."""
    assert cluster.name in kind(lab, version, cluster, "get", "clusters")
    nodes = kind(lab, version, cluster, "get", "nodes", "--name", cluster.name)
    assert sorted(nodes) == sorted(node.name for node in cluster.nodes)


@pytest.mark.parametrize("version", VERSIONS)
def test_kind_loads_an_archive(lab: Lab, target: Cluster, archive: Path, version: str) -> None:
    """`kind load image-archive` puts an image on every node, and CRI sees it."""
    kind(lab, version, target, "load", "image-archive", archive, "--name", target.name)
    for node in target.nodes:
        assert has_image(node)
        assert node.cri().image_status(TAG) is not None
        node.ctr("images", "rm", "--sync", TAG)


def test_crictl_answers_as_the_cri_does(lab: Lab, archive: Path) -> None:
    """The nodes' crictl prints the CRI's answers in the format of the real program.

    From containerd 2.2 on, a warning precedes them on stderr.
    """
    node = lab.cluster("lab-d21").nodes[0]
    node.ctr("images", "import", "-", stdin=archive.read_bytes())
    status = node.cri().image_status(TAG)
    assert status is not None
    assert status["status"]["repoTags"] == [TAG]
    assert f'"id": "{status["status"]["id"]}"' in node.exec("crictl", "inspecti", TAG)
    assert node.exec("crictl", "rmi", TAG) == f"Deleted: {TAG}\n"
    assert node.cri().image_status(TAG) is None
