"""Which nodes are meant, over engines that hold containers of our own making."""

from pathlib import Path

import pytest

from imgload.clusters.select import find_clusters, select_nodes
from imgload.core.errors import ClusterAmbiguous, ClusterNotFound, EngineFailed, NodeNotFound
from imgload.engines.base import Container
from imgload.engines.endpoint import Endpoint, EngineKind
from tests.unit.clusters.test_kind import container
from tests.unit.clusters.test_provider import k3d, minikube
from tests.unit.fakes import LocalEngine


def engine(tmp_path: Path, *containers: Container, kind: EngineKind = "docker") -> LocalEngine:
    endpoint = Endpoint(kind, f"unix://{tmp_path}/{kind}.sock")
    return LocalEngine(tmp_path, containers=containers, endpoint=endpoint)


def cluster(name: str = "kind", *workers: str) -> list[Container]:
    """Return a cluster's containers: a control plane, and the workers named."""
    head = container(f"{name}-control-plane", name, "control-plane")
    return [head, *(container(worker, name) for worker in workers)]


def selected(
    engines: list[LocalEngine], wanted: str | None = None, *nodes: str
) -> list[tuple[str, str]]:
    return [(n.engine.name, n.name) for n in select_nodes(engines, wanted, nodes)]


@pytest.fixture
def in_context(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> "Context":
    """Give a function that sets the kube context."""
    return Context(tmp_path / "kubeconfig", monkeypatch)


class Context:
    def __init__(self, path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        self._path = path
        monkeypatch.setenv("KUBECONFIG", str(path))

    def __call__(self, name: str) -> None:
        self._path.write_text(f"current-context: {name}\n")


def test_the_only_cluster_needs_no_name(tmp_path: Path) -> None:
    """On whichever engine it runs."""
    podman = engine(tmp_path, *cluster("dev", "dev-worker"), kind="podman")
    found = selected([engine(tmp_path), podman])
    assert found == [("podman", "dev-control-plane"), ("podman", "dev-worker")]


@pytest.mark.parametrize("name", ["a", "kind-a"])
def test_a_cluster_is_chosen_by_name(tmp_path: Path, name: str) -> None:
    """Or by its context's name, which is what kubectl shows."""
    engines = [engine(tmp_path, *cluster("a"), *cluster("b"))]
    assert selected(engines, name) == [("docker", "a-control-plane")]


def test_a_cluster_whose_name_begins_with_kind_is_not_another(tmp_path: Path) -> None:
    """The exact name comes first."""
    engines = [engine(tmp_path, *cluster("a"), *cluster("kind-a"))]
    assert selected(engines, "kind-a") == [("docker", "kind-a-control-plane")]
    assert selected(engines, "a") == [("docker", "a-control-plane")]


def test_the_kube_context_decides(tmp_path: Path, in_context: Context) -> None:
    """Where no name was given; a name given is stronger."""
    engines = [engine(tmp_path, *cluster("a"), *cluster("b"))]
    in_context("kind-b")
    assert selected(engines) == [("docker", "b-control-plane")]
    assert selected(engines, "a") == [("docker", "a-control-plane")]


@pytest.mark.parametrize("context", [None, "gke_project_region_kind"])
def test_without_a_guess_the_context_must_name_a_cluster(
    tmp_path: Path, in_context: Context, context: str | None
) -> None:
    """What deploys there would look for the image in another cluster; a name given will do."""
    engines = [engine(tmp_path, *cluster("a"))]
    if context:
        in_context(context)
    with pytest.raises(ClusterNotFound) as caught:
        select_nodes(engines, None, (), guess=False)
    assert (repr(context) if context else "none is set") in caught.value.message
    assert "kubectl config use-context" in caught.value.hint
    assert select_nodes(engines, "a", (), guess=False)
    in_context("kind-a")
    assert select_nodes(engines, None, (), guess=False)


def test_a_context_of_another_kind_decides_nothing(tmp_path: Path, in_context: Context) -> None:
    """The only cluster is meant, or one has to be named."""
    in_context("gke_project_region_kind")
    assert selected([engine(tmp_path, *cluster("a"))]) == [("docker", "a-control-plane")]
    with pytest.raises(ClusterAmbiguous):
        selected([engine(tmp_path, *cluster("a"), *cluster("b"))])


@pytest.mark.parametrize("context", ["kind-gone", "kind-kind-a"])
def test_a_context_whose_cluster_is_gone_is_said(
    tmp_path: Path, in_context: Context, context: str
) -> None:
    """Another cluster is not taken in its place: kind-kind-a is the cluster kind-a, not a."""
    in_context(context)
    with pytest.raises(ClusterNotFound) as caught:
        selected([engine(tmp_path, *cluster("a"))])
    assert repr(context) in caught.value.message
    assert repr(context.removeprefix("kind-")) in caught.value.message
    assert "a (docker)" in caught.value.message


def test_several_clusters_are_listed(tmp_path: Path) -> None:
    """With their engines, and how to say which."""
    podman = engine(tmp_path, *cluster("b"), kind="podman")
    with pytest.raises(ClusterAmbiguous, match=r"a \(docker\), b \(podman\)") as caught:
        selected([engine(tmp_path, *cluster("a")), podman])
    assert "--cluster" in caught.value.hint


def test_one_name_on_two_engines_is_no_guess(tmp_path: Path) -> None:
    """`kind` is everybody's first name for a cluster."""
    engines = [engine(tmp_path, *cluster()), engine(tmp_path, *cluster(), kind="podman")]
    for name in (None, "kind"):
        with pytest.raises(ClusterAmbiguous, match=r"kind \(docker\), kind \(podman\)"):
            selected(engines, name)


@pytest.mark.parametrize("there", [[], cluster("a")])
def test_a_cluster_that_is_nowhere_says_where_it_was_looked_for(
    tmp_path: Path, there: list[Container]
) -> None:
    """Every engine by its address; what is there, and what to do."""
    engines = [engine(tmp_path, *there), engine(tmp_path, kind="podman")]
    with pytest.raises(ClusterNotFound) as caught:
        selected(engines, "dev")
    assert all(str(e.endpoint) in caught.value.message for e in engines)
    assert caught.value.message.endswith("there: a (docker)" if there else "there: none")
    assert ("--cluster" if there else "kind create cluster") in caught.value.hint


def test_no_cluster_at_all_is_said(tmp_path: Path) -> None:
    """Without a name that nobody gave."""
    with pytest.raises(ClusterNotFound, match="no kind, k3d or minikube cluster on") as caught:
        selected([engine(tmp_path)])
    assert "kind create cluster" in caught.value.hint


def test_only_the_nodes_named_are_taken(tmp_path: Path) -> None:
    """In the order they were named, each once."""
    engines = [engine(tmp_path, *cluster("a", "a-worker", "a-worker2"))]
    found = selected(engines, "a", "a-worker2", "a-control-plane", "a-worker2")
    assert [name for _, name in found] == ["a-worker2", "a-control-plane"]


def test_a_nodes_name_says_which_cluster(tmp_path: Path, in_context: Context) -> None:
    """It is unique; neither the context nor --cluster is needed, and several clusters may be."""
    in_context("kind-gone")
    podman = engine(tmp_path, *cluster("b", "b-worker"), kind="podman")
    engines = [engine(tmp_path, *cluster("a")), podman]
    assert selected(engines, None, "b-worker", "a-control-plane") == [
        ("podman", "b-worker"),
        ("docker", "a-control-plane"),
    ]


def test_a_node_on_two_engines_is_no_guess(tmp_path: Path) -> None:
    """Both run a cluster of one name."""
    podman = engine(tmp_path, *cluster("kind", "only-here"), kind="podman")
    engines = [engine(tmp_path, *cluster()), podman]
    with pytest.raises(ClusterAmbiguous, match="kind-control-plane") as caught:
        selected(engines, None, "kind-control-plane")
    assert "DOCKER_HOST" in caught.value.hint
    assert selected(engines, None, "only-here") == [("podman", "only-here")]


@pytest.mark.parametrize("wanted", [None, "a"])
def test_nodes_that_are_not_there_are_all_named(tmp_path: Path, wanted: str | None) -> None:
    """With those that are."""
    engines = [engine(tmp_path, *cluster("a", "a-worker"))]
    with pytest.raises(NodeNotFound) as caught:
        selected(engines, wanted, "x", "a-worker", "y")
    assert "no node x, y; there: a-control-plane, a-worker" in caught.value.message


@pytest.mark.parametrize(("there", "hint"), [(["a"], "--node"), ([], "imgload clusters")])
def test_a_choice_is_offered_where_there_is_one(
    tmp_path: Path, there: list[str], hint: str
) -> None:
    """Or else the command that shows what there is."""
    engines = [engine(tmp_path, *(c for name in there for c in cluster(name)))]
    with pytest.raises(NodeNotFound) as caught:
        selected(engines, None, "x")
    assert caught.value.hint.endswith(hint)


def test_a_node_of_another_cluster_is_not_in_this_one(tmp_path: Path) -> None:
    """When the cluster was named, that counts."""
    engines = [engine(tmp_path, *cluster("a"), *cluster("b"))]
    with pytest.raises(NodeNotFound):
        selected(engines, "a", "b-control-plane")


def test_an_engine_that_fails_is_not_passed_over(tmp_path: Path) -> None:
    """It may run the cluster that is meant, or another of the same name."""

    class Broken(LocalEngine):
        def containers(self, label: str) -> list[Container]:
            raise EngineFailed(f"cannot list {label}")

    with pytest.raises(EngineFailed):
        selected([engine(tmp_path, *cluster("a")), Broken(tmp_path)], "a")


def test_clusters_are_found_on_every_engine(tmp_path: Path) -> None:
    """In the engines' order."""
    engines = [engine(tmp_path, *cluster("b")), engine(tmp_path, *cluster("a"), kind="podman")]
    assert [str(found) for found in find_clusters(engines)] == ["b (docker)", "a (podman)"]


def test_the_kube_context_names_a_cluster_of_any_tool(tmp_path: Path, in_context: Context) -> None:
    """`kind-dev`, `k3d-dev`, and minikube's own `dev` are three."""
    both = [*cluster("dev"), k3d("k3d-dev-server-0"), minikube("dev")]
    engines = [engine(tmp_path, *both)]
    for context, node in (
        ("kind-dev", "dev-control-plane"),
        ("k3d-dev", "k3d-dev-server-0"),
        ("dev", "dev"),
    ):
        in_context(context)
        assert selected(engines) == [("docker", node)]


def test_one_name_of_two_tools_is_told_apart_by_the_context(tmp_path: Path) -> None:
    """Never a guess; the hint is the way to say which."""
    engines = [engine(tmp_path, *cluster("dev"), k3d("k3d-dev-server-0"))]
    with pytest.raises(ClusterAmbiguous, match=r"kind-dev \(docker\), k3d-dev") as caught:
        selected(engines, "dev")
    assert "--cluster kind-dev" in caught.value.hint
    assert selected(engines, "k3d-dev") == [("docker", "k3d-dev-server-0")]


def test_only_the_contexts_tool_is_listed(tmp_path: Path, in_context: Context) -> None:
    """One question to an engine, as long as the cluster is there."""

    class Counting(LocalEngine):
        asked = 0

        def containers(self, label: str) -> list[Container]:
            self.asked += 1
            return super().containers(label)

    counting = Counting(tmp_path, containers=cluster("a"))
    in_context("kind-a")
    select_nodes([counting], None, [])
    assert counting.asked == 1


def test_a_minikube_that_is_no_container_is_told_apart(tmp_path: Path, in_context: Context) -> None:
    """Another cluster is not taken in its place: minikube may run in a virtual machine."""
    in_context("minikube")
    with pytest.raises(ClusterNotFound, match="'minikube'") as caught:
        selected([engine(tmp_path, *cluster("a"))])
    assert "minikube -p minikube image load" in caught.value.hint


def test_kinds_nodes_in_nerdctl_are_out_of_reach(
    tmp_path: Path, in_context: Context, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It has no socket to ask; that is said, and what does work."""
    monkeypatch.setenv("KIND_EXPERIMENTAL_PROVIDER", "nerdctl")
    in_context("kind-dev")
    with pytest.raises(ClusterNotFound) as caught:
        selected([engine(tmp_path)])
    assert "nerdctl" in caught.value.hint
    assert "kind load image-archive" in caught.value.hint


def test_a_container_without_a_cluster_can_be_named(tmp_path: Path) -> None:
    """Its containerd is looked for when it is asked."""
    lone = Container("c9", "lone", "running", {})
    engines = [engine(tmp_path, *cluster("a")), engine(tmp_path, lone, kind="podman")]
    assert selected(engines, None, "lone", "a-control-plane") == [
        ("podman", "lone"),
        ("docker", "a-control-plane"),
    ]
    [node] = select_nodes(engines, None, ["lone"])
    assert node.runtime is None
    with pytest.raises(NodeNotFound):
        selected(engines, "a", "lone")


def test_a_container_on_two_engines_is_no_guess(tmp_path: Path) -> None:
    """By whichever name."""
    lone = Container("c9", "lone", "running", {})
    engines = [engine(tmp_path, lone), engine(tmp_path, lone, kind="podman")]
    with pytest.raises(ClusterAmbiguous, match="lone"):
        selected(engines, None, "lone")
