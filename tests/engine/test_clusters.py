"""Clusters of every tool: nodes like the tool's, with a real containerd."""

from __future__ import annotations

import json
import os
import re
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from types import ModuleType
from typing import Any, Self

import docker
import pytest

import imgload
from imgload.cli.dropin import run as drop_in
from imgload.core.errors import NodeNotFound, NodeUnusable
from imgload.tools.dropins.tool import K3D as K3D_COMMAND
from imgload.tools.watch.watch import Watch
from tests.engine.conftest import Images, cri_id, unique
from tests.engine.findings import messages
from tests.engine.test_errors import run
from tests.engine.test_lab import kind
from tests.lab import Cluster, Lab
from tests.lab.engine import Engine
from tests.lab.shape import (
    ELSEWHERE,
    BareK3s,
    ClusterApi,
    K3d,
    K3dElsewhere,
    Minikube,
    Shape,
    VCluster,
)
from tests.lab.suites import NEWEST


@pytest.fixture(scope="module")
def k3d(lab: Lab) -> Iterator[Cluster]:
    """Two nodes and a load balancer, which is not a node."""
    roles = ("server", "agent")
    made = lab.make_cluster(name="lab-k", engine="docker", shape=K3d(), roles=roles, crictl=True)
    labels = ("--label=app=k3d", "--label=k3d.cluster=lab-k", "--label=k3d.role=loadbalancer")
    image = lab.docker.cli("inspect", "--format={{.Config.Image}}", made.nodes[0].name).strip()
    lab.docker.cli("create", "--name=k3d-lab-k-serverlb", *labels, image)
    yield made
    lab.docker.remove_containers("k3d-lab-k-serverlb")
    made.remove()


@pytest.fixture(scope="module")
def minikube(lab: Lab) -> Iterator[Cluster]:
    """Two nodes on Podman; the second node's labels do not name the profile."""
    roles = ("control-plane", "worker")
    options = {"name": "lab-m", "engine": "podman", "shape": Minikube(), "crictl": True}
    made = lab.make_cluster(roles=roles, **options)
    yield made
    made.remove()


def contains(cluster: Cluster, tag: str, image_id: str) -> bool:
    """Return whether CRI has the image on every node, without crictl."""
    name = f"docker.io/library/{tag}"
    return [cri_id(node, name) for node in cluster.nodes] == [image_id] * len(cluster.nodes)


@pytest.fixture
def in_context(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[str], None]:
    """Return a function that sets the kube context."""

    def set_context(name: str) -> None:
        (tmp_path / "config").write_text(f"current-context: {name}\n")
        monkeypatch.setenv("KUBECONFIG", str(tmp_path / "config"))

    return set_context


@pytest.mark.parametrize(("tool", "context"), [("k3d", "k3d-lab-k"), ("minikube", "lab-m")])
def test_the_kube_contexts_cluster_is_loaded(
    request: pytest.FixtureRequest, images: Images, tool: str, context: str
) -> None:
    """All nodes get the image, and a rebuild sends only changed layers."""
    cluster: Cluster = request.getfixturevalue(tool)
    request.getfixturevalue("in_context")(context)
    lab: Lab = request.getfixturevalue("lab")
    base, tag = unique("base"), unique()
    images.build(lab.docker, base, os.urandom(200_000))
    image_id = images.build(lab.docker, tag, b"one", base=base)
    [image] = imgload.load(tag).images
    assert [n.node for n in image.nodes] == sorted(node.name for node in cluster.nodes)
    assert all(n.ok and n.proof and n.proof.cri for n in image.nodes)
    assert contains(cluster, tag, image_id)
    image_id = images.build(lab.docker, tag, b"two", base=base)
    [image] = imgload.load(tag).images
    assert {n.action for n in image.nodes} == {"delta"}
    assert contains(cluster, tag, image_id)
    [image] = imgload.load(tag).images
    assert {n.action for n in image.nodes} == {"present"}


def test_the_snapshotter_in_k3s_configuration_is_used(
    lab: Lab, images: Images, k3d: Cluster
) -> None:
    """k3s unpacks with a snapshotter that containerd's default configuration does not name."""
    tag = unique()
    images.build(lab.docker, tag)
    [image] = imgload.load(tag, cluster="lab-k", nodes=["k3d-lab-k-agent-0"]).images
    assert [n.node for n in image.nodes] == ["k3d-lab-k-agent-0"]
    chain = lab.docker.cli("inspect", "--format={{index .RootFS.Layers 0}}", tag).strip()
    node = k3d.nodes[1]
    assert chain in node.ctr("snapshots", "--snapshotter", "native", "ls")
    assert chain not in node.ctr("snapshots", "--snapshotter", "overlayfs", "ls")


def test_the_k3d_drop_in_loads_k3d_clusters(lab: Lab, images: Images, k3d: Cluster) -> None:
    """The name selects k3d's clusters only, not kind's."""
    tag = unique()
    image_id = images.build(lab.docker, tag)
    assert drop_in(K3D_COMMAND, ["image", "import", tag, "-c", "lab-k"]) == 0
    assert contains(k3d, tag, image_id)
    assert drop_in(K3D_COMMAND, ["image", "import", tag, "-c", "lab-d21"]) == 1


def test_any_container_that_runs_containerd_is_a_node(lab: Lab, images: Images) -> None:
    """It has no labels, and ctr is part of k3s; a container without containerd is refused."""
    made = lab.make_cluster(name="lab-bare", engine="docker", shape=BareK3s(), roles=("server",))
    node = made.nodes[0]
    tag = unique()
    image_id = images.build(lab.docker, tag)
    try:
        [image] = imgload.load(tag, nodes=[node.name]).images
        assert [(n.node, n.action) for n in image.nodes] == [(node.name, "full")]
        assert contains(made, tag, image_id)
        node.exec("sh", "-c", "rm /run/k3s/containerd/containerd.sock")
        with pytest.raises(imgload.LoadFailed) as caught:
            imgload.load(tag, nodes=[node.name])
        error = caught.value.report.images[0].nodes[0].error
        assert isinstance(error, NodeUnusable)
        assert "containerd does not answer" in error.message
    finally:
        made.remove()
    with pytest.raises(NodeNotFound, match="no node no-such-container"):
        imgload.load(tag, nodes=["no-such-container"])


def test_the_recipe_for_testcontainers_loads_its_node(
    lab: Lab, images: Images, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of the page, with a node of the lab in the place of Testcontainers' K3s."""
    options = {"name": "lab-tc", "engine": "docker", "shape": BareK3s(), "roles": ("server",)}

    class K3SContainer:
        """The interface of Testcontainers' class."""

        def __init__(self, image: str) -> None:
            assert image.startswith("rancher/k3s:")

        def __enter__(self) -> Self:
            self.made = lab.make_cluster(**options)
            return self

        def __exit__(self, *_: object) -> None:
            self.made.remove()

        def get_wrapped_container(self) -> Any:
            return docker.DockerClient(lab.docker.url).containers.get(self.made.nodes[0].name)

        def config_yaml(self) -> str:
            name = f"docker.io/library/{tag}"
            return str(self.made.nodes[0].cri().image_id(name))

    module = ModuleType("testcontainers.community.k3s")
    module.K3SContainer = K3SContainer  # type: ignore[attr-defined]
    for name in ("testcontainers", "testcontainers.community"):
        monkeypatch.setitem(sys.modules, name, ModuleType(name))
    monkeypatch.setitem(sys.modules, module.__name__, module)
    page = (Path(__file__).parents[2] / "docs/testcontainers.md").read_text()
    [code] = re.findall(r"```python\n(.*?)```", page, re.DOTALL)
    tag, variables = unique(), dict[str, Any]()
    image_id = images.build(lab.docker, tag)
    exec(code.replace("app:dev", tag), variables)
    assert variables["report"].ok
    assert variables["kubeconfig"] == image_id


@pytest.mark.parametrize("name", ELSEWHERE)
def test_containerd_may_have_another_distributions_paths(
    lab: Lab, images: Images, name: str
) -> None:
    """Its options and its configuration name them; ctr may be part of another program."""
    shape, tag = ELSEWHERE[name], unique()
    made = lab.make_cluster(name=f"lab-{name}", engine="docker", shape=shape, roles=("server",))
    images.build(lab.docker, tag)
    [node] = made.nodes
    try:
        [image] = imgload.load(tag, nodes=[node.name]).images
        chain = lab.docker.cli("inspect", "--format={{index .RootFS.Layers 0}}", tag).strip()
        assert chain in node.ctr("snapshots", "--snapshotter", "native", "ls")
        assert chain not in node.ctr("snapshots", "--snapshotter", "overlayfs", "ls")
        assert f"docker.io/library/{tag}" in node.ctr("images", "ls", "-q")
        node.exec("test", "-d", f"{shape.root}/io.containerd.content.v1.content/blobs")
        assert [found.action for found in image.nodes] == ["full"]
        assert imgload.load(tag, nodes=[node.name]).images[0].nodes[0].action == "present"
    finally:
        made.remove()


_SECOND = "/run/second/containerd.sock"
_START_SECOND = f"""
mkdir -p /run/second
/var/lib/k0s/bin/containerd --root /var/lib/k0s/second --state /run/second --address {_SECOND} \
    --config /dev/null >/dev/null 2>&1 &
until /opt/ctr --address {_SECOND} plugins ls 2>/dev/null | grep -q 'cri .* ok'; do
    sleep 0.1
done
"""


def test_an_address_selects_one_of_several_containerds(lab: Lab, images: Images) -> None:
    """Both of one container, with their own configurations, programs and CRI."""
    shape, tag, options = ELSEWHERE["k0s"], unique(), {"crictl": True, "roles": ("server",)}
    made = lab.make_cluster(name="lab-two", engine="docker", shape=shape, **options)
    image_id, [node] = images.build(lab.docker, tag), made.nodes
    try:
        node.exec("sh", "-c", _START_SECOND)
        chain = lab.docker.cli("inspect", "--format={{index .RootFS.Layers 0}}", tag).strip()
        for address, snapshotter in ((_SECOND, "overlayfs"), (shape.socket, "native")):
            done = run("load", tag, "-n", node.name, "--address", address, "-o", "json")
            [result] = json.loads(done.stdout)["images"][0]["nodes"]
            assert (result["action"], result["proof"]["cri"]) == ("full", True)
            ctr = ("/opt/ctr", "--address", address, "-n", "k8s.io")
            assert chain in node.exec(*ctr, "snapshots", "--snapshotter", snapshotter, "ls")
        imgload.prune(nodes=[node.name], address=_SECOND, keep=0)
        assert imgload.images(nodes=[node.name], address=f"unix://{_SECOND}").images == ()
        [listed] = imgload.images(nodes=[node.name], address=shape.socket).images
        assert str(listed.image_id) == image_id
        assert imgload.verify(tag, nodes=[node.name], address=shape.socket).ok
        done = run("doctor", tag, "-n", node.name, "--address", _SECOND)
        assert f"{node.name} does not have docker.io/library/{tag}" in done.stdout
        with Watch.open(tag, nodes=[node.name], address=_SECOND) as watch:
            events = iter(watch)
            next(events)
            images.build(lab.docker, tag, b"new")
            load = next(events)
        assert isinstance(load, imgload.WatchedLoad)
        assert load.report
        assert load.report.images[0].nodes[0].action == "full"
        with pytest.raises(imgload.LoadFailed) as caught:
            imgload.load(tag, nodes=[node.name], address="/run/none.sock")
        error = caught.value.report.images[0].nodes[0].error
        assert isinstance(error, NodeUnusable)
        assert "no containerd listens at /run/none.sock" in error.message
        assert shape.socket in error.message
        done = run("load", tag, "-n", node.name, "--address", "/run/x;id")
        assert done.returncode == 2
    finally:
        made.remove()


def test_k3s_may_have_another_data_folder(lab: Lab, images: Images) -> None:
    """Its snapshotter is read from the configuration that its containerd was given."""
    made = lab.make_cluster(name="lab-kd", engine="docker", shape=K3dElsewhere(), roles=("server",))
    tag, [node] = unique(), made.nodes
    images.build(lab.docker, tag)
    try:
        imgload.load(tag, cluster="lab-kd")
        chain = lab.docker.cli("inspect", "--format={{index .RootFS.Layers 0}}", tag).strip()
        assert chain in node.ctr("snapshots", "--snapshotter", "native", "ls")
        assert " free" in messages(imgload.diagnose(nodes=[node.name]), "nodes", "ok")
    finally:
        made.remove()


@pytest.mark.parametrize("name", ["docker", "docker28", "podman"])
def test_a_node_without_a_shell_is_refused(
    lab: Lab, images: Images, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    """As Talos has none; the hint names the way that works."""
    made = lab.make_cluster(name="lab-talos", engine=name)
    tag, [node] = unique(), made.nodes
    source = lab.docker if name == "podman" else made.engine
    monkeypatch.setenv("DOCKER_HOST", source.url)
    images.build(source, tag)
    node.exec("rm", "/bin/sh")
    try:
        with pytest.raises(imgload.LoadFailed) as caught:
            imgload.load(tag, cluster="lab-talos", source="docker")
        error = caught.value.report.images[0].nodes[0].error
        assert isinstance(error, NodeUnusable)
        assert "likely Talos" in error.hint
        assert "imgload registry push" in error.hint
    finally:
        made.remove()


@pytest.mark.parametrize(
    ("shape", "engine", "context"),
    [
        pytest.param(VCluster(), "docker", "vcluster-docker_lab-v", id="vcluster"),
        pytest.param(VCluster(), "podman", "vcluster-docker_lab-v", marks=pytest.mark.long),
        pytest.param(ClusterApi(), "docker", "lab-v-admin@lab-v", marks=pytest.mark.long),
        pytest.param(ClusterApi(), "docker", "kind-lab-v", marks=pytest.mark.long),
    ],
)
def test_nodes_of_other_programs_are_listed_and_loaded(
    request: pytest.FixtureRequest, images: Images, shape: Shape, engine: str, context: str
) -> None:
    """Their kube context selects them, although other clusters run, too."""
    lab: Lab = request.getfixturevalue("lab")
    request.getfixturevalue("in_context")(context)
    roles, tag = ("control-plane", "worker"), unique()
    made = lab.make_cluster(name="lab-v", engine=engine, shape=shape, roles=roles, crictl=True)
    image_id = images.build(lab.docker, tag)
    try:
        [listed] = [c for c in imgload.find_clusters().clusters if c.current]
        names = sorted(node.name for node in made.nodes)
        assert (listed.name, listed.context) == ("lab-v", context)
        assert [(node.name, node.state) for node in listed.nodes] == [
            (name, "running") for name in names
        ]
        [image] = imgload.load(tag).images
        assert [(n.node, n.ok) for n in image.nodes] == [(name, True) for name in names]
        assert contains(made, tag, image_id)
    finally:
        made.remove()


def test_clusters_are_listed_with_the_states_of_their_nodes(
    lab: Lab, k3d: Cluster, minikube: Cluster, in_context: Callable[[str], None]
) -> None:
    """As text and as JSON; the kube context's cluster has a star, or `current`."""
    in_context("lab-m")
    image = lab.docker.cli("inspect", "--format={{.Config.Image}}", k3d.nodes[0].name).strip()
    labels = ("--label=app=k3d", "--label=k3d.cluster=lab-k", "--label=k3d.role=agent")
    lab.docker.cli("create", "--name=k3d-lab-k-agent-9", *labels, image)
    lab.docker.cli("pause", k3d.nodes[0].name)
    try:
        done, text = run("clusters", "-o", "json"), run("clusters")
    finally:
        lab.docker.cli("unpause", k3d.nodes[0].name)
        lab.docker.remove_containers("k3d-lab-k-agent-9")
    listed = {c["name"]: c for c in json.loads(done.stdout)["clusters"]}
    assert (listed["lab-m"]["tool"], listed["lab-m"]["current"]) == ("minikube", True)
    assert listed["lab-m"]["engine"]["url"] == lab.podman.url
    assert listed["lab-m"]["nodes"] == [
        {"name": node.name, "role": "node", "state": "running"} for node in minikube.nodes
    ]
    assert (listed["lab-k"]["context"], listed["lab-k"]["current"]) == ("k3d-lab-k", False)
    states = [("agent", "running"), ("agent", "stopped"), ("server", "paused")]
    assert [(n["role"], n["state"]) for n in listed["lab-k"]["nodes"]] == states
    assert f"* lab-m (minikube, podman at {lab.podman.url})" in text.stdout
    assert "k3d-lab-k-agent-9   agent          stopped" in text.stdout
    assert "  lab-k (k3d, docker at " in text.stdout


_FAKE = """
mkdir /fake
printf '#!/bin/sh\\ncat > /received\\n' > /fake/ctr
chmod +x /fake/ctr
cp /fake/ctr /fake/crictl
cp /fake/ctr /fake/containerd
"""
"""Creates programs that store everything they are sent."""


def run_a_copy(own: Engine, cluster: Cluster, copy: str) -> str:
    """Run an image that was committed from a container with a node's labels; return its name."""
    base = own.cli("inspect", "--format={{.Config.Image}}", cluster.nodes[0].name).strip()
    labels = ("io.x-k8s.kind.role=worker", f"io.x-k8s.kind.cluster={cluster.name}")
    sleep = ("--entrypoint=/bin/sh", "--network=none")
    wait = ("-c", "sleep 600")
    first = own.cli("run", "-d", *sleep, *(f"--label={label}" for label in labels), base, *wait)
    try:
        own.cli("exec", first.strip(), "sh", "-c", _FAKE)
        own.cli("commit", first.strip(), copy)
    finally:
        own.cli("rm", "-f", first.strip())
    second = own.cli("run", "-d", *sleep, "--env=PATH=/fake:/usr/bin:/bin", copy, *wait)
    return own.cli("inspect", "--format={{.Name}}", second.strip()).strip().lstrip("/")


@pytest.mark.parametrize("name", ["lab-d21", "lab-p21"])
def test_labels_of_an_image_do_not_make_a_node(lab: Lab, images: Images, name: str) -> None:
    """The real kind lists the container as a node; imgload refuses it even by its name."""
    cluster, copy, tag = lab.cluster(name), unique("copy"), unique()
    own, node = cluster.engine, cluster.nodes[0]
    image_id = images.build(own, tag)
    container = run_a_copy(own, cluster, copy)
    try:
        listed = json.loads(run("clusters", "-o", "json").stdout)["clusters"]
        [nodes] = [entry["nodes"] for entry in listed if entry["name"] == name]
        assert [entry["name"] for entry in nodes] == [node.name]
        [image] = imgload.load(tag, cluster=name).images
        assert [(n.node, n.ok) for n in image.nodes] == [(node.name, True)]
        assert contains(cluster, tag, image_id)
        assert "received" not in own.cli("exec", container, "ls", "/").split()
        assert container in kind(lab, NEWEST, cluster, "get", "nodes", "--name", name)
        with pytest.raises(imgload.LoadFailed) as caught:
            imgload.load(tag, nodes=[container])
        assert isinstance(caught.value.report.images[0].nodes[0].error, imgload.NodeError)
    finally:
        own.remove_containers(container)
        own.remove_image(copy)
