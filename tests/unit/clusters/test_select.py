"""Lists of clusters and selection of nodes, over engines with made-up containers."""

import json
import re
from pathlib import Path

import pytest

from imgload.clusters.cluster import find_clusters
from imgload.clusters.listing import ClusterList, list_clusters
from imgload.clusters.nodes.detect import UnusableNode
from imgload.clusters.select import select, select_nodes
from imgload.core import trace
from imgload.core.errors import (
    ClusterAmbiguous,
    ClusterNotFound,
    EngineFailed,
    EngineUnreachable,
    NodeNotFound,
    UsageError,
)
from imgload.engines.base import Container
from imgload.engines.endpoint import Endpoint, EngineKind
from tests.unit.clusters.test_provider import CAPD, container, k3d, minikube, profile
from tests.unit.fakes import LocalEngine


def engine(tmp_path: Path, *containers: Container, kind: EngineKind = "docker") -> LocalEngine:
    endpoint = Endpoint(kind, f"unix://{tmp_path}/{kind}.sock")
    return LocalEngine(tmp_path, containers=containers, endpoint=endpoint)


def cluster(name: str = "kind", *workers: str) -> list[Container]:
    """Return the containers of a cluster: a control plane and workers."""
    head = container(f"{name}-control-plane", name, "control-plane")
    return [head, *(container(worker, name) for worker in workers)]


def selected(
    engines: list[LocalEngine], wanted: str | list[str] | None = None, *nodes: str
) -> list[tuple[str, str]]:
    return [(n.engine.name, n.name) for n in select_nodes(engines, wanted, nodes)]


@pytest.fixture
def in_context(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> "Context":
    """Return a function that sets the kube context."""
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
def test_a_cluster_is_selected_by_name_or_context(tmp_path: Path, name: str) -> None:
    """kubectl shows the context."""
    engines = [engine(tmp_path, *cluster("a"), *cluster("b"))]
    assert selected(engines, name) == [("docker", "a-control-plane")]


def test_an_exact_name_takes_precedence_over_a_context(tmp_path: Path) -> None:
    engines = [engine(tmp_path, *cluster("a"), *cluster("kind-a"))]
    assert selected(engines, "kind-a") == [("docker", "kind-a-control-plane")]
    assert selected(engines, "a") == [("docker", "a-control-plane")]


def test_the_kube_context_selects_a_cluster(tmp_path: Path, in_context: Context) -> None:
    """Unless a name is given."""
    engines = [engine(tmp_path, *cluster("a"), *cluster("b"))]
    in_context("kind-b")
    assert selected(engines) == [("docker", "b-control-plane")]
    assert selected(engines, "a") == [("docker", "a-control-plane")]


@pytest.mark.parametrize("context", ["docker-desktop", "kind-desktop"])
def test_docker_desktops_cluster_has_two_contexts(
    tmp_path: Path, in_context: Context, context: str
) -> None:
    """It is a kind cluster, `desktop`; kind's own command would name the context otherwise."""
    engines = [engine(tmp_path, *cluster("a"), *cluster("desktop"))]
    assert selected(engines, context) == [("docker", "desktop-control-plane")]
    in_context(context)
    assert selected(engines) == [("docker", "desktop-control-plane")]
    listed = {c.name: (c.context, c.current) for c in list_clusters(engines).clusters}
    assert listed == {"a": ("kind-a", False), "desktop": (context, True)}


@pytest.mark.parametrize("context", ["capi-admin@capi", "kind-capi"])
def test_a_cluster_of_cluster_api_has_two_contexts(
    tmp_path: Path, in_context: Context, context: str
) -> None:
    """Those of clusterctl, and of kind, which finds its nodes by their labels as well."""
    in_context(context)
    engines = [engine(tmp_path, *cluster("a"), *CAPD)]
    for guess in (True, False):
        nodes = select_nodes(engines, None, (), guess=guess)
        assert [node.name for node in nodes] == [node.name for node in CAPD]
    listed = {c.name: (c.tool, c.context, c.current) for c in list_clusters(engines).clusters}
    assert listed["capi"] == ("capd", context, True)
    in_context("other-admin@other")
    with pytest.raises(ClusterNotFound, match="other-admin@other"):
        selected(engines)


def test_the_kube_context_selects_a_vcluster(tmp_path: Path, in_context: Context) -> None:
    """And its node's containerd is detected."""
    in_context("vcluster-docker_dev")
    lone = Container("id", "vcluster.cp.dev", "running", {})
    [node] = select_nodes([engine(tmp_path, *cluster("a"), lone)], None, ())
    assert (node.name, type(node)) == ("vcluster.cp.dev", UnusableNode)


def test_profiles_of_minikube_are_selected_by_context_and_name(
    tmp_path: Path, in_context: Context, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of two profiles on one engine, one with two nodes."""
    for name in ("dev", "prod"):
        profile(tmp_path, name)
    monkeypatch.setenv("MINIKUBE_HOME", str(tmp_path))
    engines = [engine(tmp_path, minikube("dev"), minikube("dev-m02"), minikube("prod"))]
    for context, nodes in (("dev", ["dev", "dev-m02"]), ("prod", ["prod"])):
        in_context(context)
        assert [name for _, name in selected(engines)] == nodes
        assert [name for _, name in selected(engines, context)] == nodes
        current = [c.name for c in list_clusters(engines).clusters if c.current]
        assert current == [context]
    in_context("gke_other")
    with pytest.raises(ClusterAmbiguous, match=r"dev \(docker\), prod \(docker\)"):
        selected(engines)


def test_docker_desktop_without_a_visible_node_is_an_error(
    tmp_path: Path, in_context: Context
) -> None:
    """It hides the node, or its pods use Docker's images."""
    in_context("docker-desktop")
    with pytest.raises(ClusterNotFound) as caught:
        selected([engine(tmp_path, *cluster("a"))])
    assert "Show system containers" in caught.value.hint


@pytest.mark.parametrize("context", [None, "gke_project_region_kind"])
def test_without_a_guess_the_context_must_name_a_cluster(
    tmp_path: Path, in_context: Context, context: str | None
) -> None:
    """A deployment to that context would look for the image elsewhere; a name is enough."""
    engines = [engine(tmp_path, *cluster("a"))]
    if context:
        in_context(context)
    with pytest.raises(ClusterNotFound) as caught:
        select_nodes(engines, None, (), guess=False)
    assert (repr(context) if context else "no kube context is set") in caught.value.message
    assert "kubectl config use-context" in caught.value.hint
    assert select_nodes(engines, "a", (), guess=False)
    in_context("kind-a")
    assert select_nodes(engines, None, (), guess=False)


def test_a_context_of_another_provider_selects_nothing(
    tmp_path: Path, in_context: Context, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The only cluster is selected with a note, or a name is needed."""
    log: list[str] = []
    monkeypatch.setattr(trace, "_write", log.append)
    in_context("gke_project_region_kind")
    selection = select([engine(tmp_path, *cluster("a"))], None, ())
    assert [node.name for node in selection.nodes] == ["a-control-plane"]
    [note] = selection.notes
    assert "'gke_project_region_kind' does not name a local cluster" in note
    assert "the only cluster, a (docker)" in note
    assert log[0].endswith("clusters: a (docker) (the only one)")
    with pytest.raises(ClusterAmbiguous, match="gke_project_region_kind"):
        selected([engine(tmp_path, *cluster("a"), *cluster("b"))])


def test_a_kubeconfig_that_cannot_be_used_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """In the note about the only cluster, and where a name is needed; prune needs one."""
    path = tmp_path / "config"
    path.write_text("current-context: [kind-a")
    monkeypatch.setenv("KUBECONFIG", str(path))
    message = f"the kubeconfig {path} cannot be used: it is not valid YAML"
    one, two = engine(tmp_path, *cluster("a")), engine(tmp_path, *cluster("a"), *cluster("b"))
    [note] = select([one], None, ()).notes
    assert message in note
    assert "selected the only cluster, a (docker)" in note
    assert not select([one], "a", ()).notes
    with pytest.raises(ClusterAmbiguous, match=re.escape(message)):
        selected([two])
    with pytest.raises(ClusterNotFound, match=re.escape(message)):
        select([one], None, (), ignores_context=False)


@pytest.mark.parametrize(("ci", "ignores_context"), [("true", True), (None, False)])
def test_a_context_of_another_provider_is_refused_in_ci_and_by_prune(
    tmp_path: Path,
    in_context: Context,
    monkeypatch: pytest.MonkeyPatch,
    ci: str | None,
    *,
    ignores_context: bool,
) -> None:
    engines = [engine(tmp_path, *cluster("a"))]
    if ci:
        monkeypatch.setenv("CI", ci)
    assert not select(engines, None, (), ignores_context=ignores_context).notes
    in_context("gke_project_region_kind")
    with pytest.raises(ClusterNotFound, match="gke_project_region_kind") as caught:
        select(engines, None, (), ignores_context=ignores_context)
    assert "--cluster a" in caught.value.hint
    for wanted, nodes in (("a", ()), (None, ["a-control-plane"])):
        assert not select(engines, wanted, nodes, ignores_context=ignores_context).notes
    in_context("kind-a")
    assert not select(engines, None, (), ignores_context=ignores_context).notes


def test_several_clusters_can_be_selected(tmp_path: Path) -> None:
    """On one or several engines, each cluster once; nodes are of any of them."""
    podman = engine(tmp_path, *cluster("b", "b-worker"), kind="podman")
    engines = [engine(tmp_path, *cluster("a"), *cluster("c")), podman]
    expected = [
        ("podman", "b-control-plane"),
        ("podman", "b-worker"),
        ("docker", "a-control-plane"),
    ]
    assert selected(engines, ["b", "a", "kind-a"]) == expected
    assert selected(engines, ["b", "a"], "b-worker") == [("podman", "b-worker")]
    with pytest.raises(NodeNotFound):
        selected(engines, ["b", "a"], "c-control-plane")
    with pytest.raises(ClusterNotFound, match="'d'"):
        selected(engines, ["b", "d"])


def test_nodes_of_two_clusters_with_one_name_are_refused(tmp_path: Path) -> None:
    """Results are by node name, and so are commands in hints."""
    podman = engine(tmp_path, minikube("kind-control-plane"), kind="podman")
    engines = [engine(tmp_path, *cluster("kind")), podman]
    assert selected(engines, "kind") == [("docker", "kind-control-plane")]
    with pytest.raises(ClusterAmbiguous, match="both have a node kind-control-plane") as caught:
        selected(engines, ["kind", "kind-control-plane"])
    assert "one command for each cluster" in caught.value.hint


def test_an_empty_cluster_name_is_refused(tmp_path: Path) -> None:
    """An unset variable, perhaps."""
    with pytest.raises(UsageError, match="empty"):
        selected([engine(tmp_path, *cluster("a"))], "")


@pytest.mark.parametrize("wanted", [None, "a"])
def test_a_cluster_as_node_gets_its_own_hint(tmp_path: Path, wanted: str | None) -> None:
    """kind's ``-n`` is the cluster."""
    with pytest.raises(NodeNotFound, match="a is a cluster, not a node") as caught:
        selected([engine(tmp_path, *cluster("a"))], wanted, "a")
    assert "--cluster a" in caught.value.hint


@pytest.mark.parametrize("context", ["kind-gone", "kind-kind-a"])
def test_a_context_without_its_cluster_is_an_error(
    tmp_path: Path, in_context: Context, context: str
) -> None:
    """No other cluster takes its place: kind-kind-a is the cluster kind-a, not a."""
    in_context(context)
    with pytest.raises(ClusterNotFound) as caught:
        selected([engine(tmp_path, *cluster("a"))])
    assert repr(context) in caught.value.message
    assert repr(context.removeprefix("kind-")) in caught.value.message
    assert "a (docker)" in caught.value.message


def test_several_clusters_are_ambiguous(tmp_path: Path) -> None:
    """The error lists them with their engines; the hint names the option."""
    podman = engine(tmp_path, *cluster("b"), kind="podman")
    with pytest.raises(ClusterAmbiguous, match=r"a \(docker\), b \(podman\)") as caught:
        selected([engine(tmp_path, *cluster("a")), podman])
    assert "--cluster" in caught.value.hint


def test_one_name_on_two_engines_is_ambiguous(tmp_path: Path) -> None:
    """`kind` is the default name of a cluster."""
    engines = [engine(tmp_path, *cluster()), engine(tmp_path, *cluster(), kind="podman")]
    for name in (None, "kind"):
        with pytest.raises(ClusterAmbiguous, match=r"kind \(docker\), kind \(podman\)"):
            selected(engines, name)


@pytest.mark.parametrize("there", [[], cluster("a")])
def test_a_missing_cluster_error_lists_engines_and_clusters(
    tmp_path: Path, there: list[Container]
) -> None:
    """With a hint that depends on whether there are clusters."""
    engines = [engine(tmp_path, *there), engine(tmp_path, kind="podman")]
    with pytest.raises(ClusterNotFound) as caught:
        selected(engines, "dev")
    assert all(str(e.endpoint) in caught.value.message for e in engines)
    assert caught.value.message.endswith("available: a (docker)" if there else "available: none")
    assert ("--cluster" if there else "kind create cluster") in caught.value.hint


def test_no_cluster_at_all_is_an_error(tmp_path: Path) -> None:
    """It names the providers."""
    with pytest.raises(ClusterNotFound, match="no local cluster on") as caught:
        selected([engine(tmp_path)])
    assert "kind create cluster" in caught.value.hint


def test_only_the_named_nodes_are_selected(tmp_path: Path) -> None:
    """In the order given, each once."""
    engines = [engine(tmp_path, *cluster("a", "a-worker", "a-worker2"))]
    found = selected(engines, "a", "a-worker2", "a-control-plane", "a-worker2")
    assert [name for _, name in found] == ["a-worker2", "a-control-plane"]


def test_a_nodes_name_needs_no_cluster(tmp_path: Path, in_context: Context) -> None:
    """It is unique; nodes of several clusters may be named, whatever the context."""
    in_context("kind-gone")
    podman = engine(tmp_path, *cluster("b", "b-worker"), kind="podman")
    engines = [engine(tmp_path, *cluster("a")), podman]
    assert selected(engines, None, "b-worker", "a-control-plane") == [
        ("podman", "b-worker"),
        ("docker", "a-control-plane"),
    ]


def test_the_clusters_of_named_nodes_are_selected(tmp_path: Path) -> None:
    """A container that is in no cluster has none."""
    box = Container("id-of-box", "box", "running", {})
    engines = [engine(tmp_path, *cluster("a"), *cluster("b", "b-worker"), box)]
    chosen = select(engines, None, ["box", "b-worker"]).clusters
    assert [found.name for found in chosen] == ["b"]
    assert select(engines, None, ["box"]).clusters == ()


def test_a_node_on_two_engines_is_ambiguous(tmp_path: Path) -> None:
    """Both run a cluster of the same name."""
    podman = engine(tmp_path, *cluster("kind", "only-here"), kind="podman")
    engines = [engine(tmp_path, *cluster()), podman]
    with pytest.raises(ClusterAmbiguous, match="kind-control-plane") as caught:
        selected(engines, None, "kind-control-plane")
    assert "DOCKER_HOST" in caught.value.hint
    assert selected(engines, None, "only-here") == [("podman", "only-here")]


@pytest.mark.parametrize("wanted", [None, "a"])
def test_a_missing_node_error_lists_missing_and_available_nodes(
    tmp_path: Path, wanted: str | None
) -> None:
    engines = [engine(tmp_path, *cluster("a", "a-worker"))]
    with pytest.raises(NodeNotFound) as caught:
        selected(engines, wanted, "x", "a-worker", "y")
    assert "no node x, y; available: a-control-plane, a-worker" in caught.value.message


@pytest.mark.parametrize(("there", "hint"), [(["a"], "--node"), ([], "imgload clusters")])
def test_a_missing_node_hint_depends_on_available_nodes(
    tmp_path: Path, there: list[str], hint: str
) -> None:
    """The option, or the command that lists nodes."""
    engines = [engine(tmp_path, *(c for name in there for c in cluster(name)))]
    with pytest.raises(NodeNotFound) as caught:
        selected(engines, None, "x")
    assert caught.value.hint.endswith(hint)


KIND = cluster("kind", "kind-worker", "kind-worker2")


@pytest.mark.parametrize(
    ("text", "names"),
    [
        ("worker2", ["kind-worker2"]),
        ("worker", ["kind-worker"]),
        ("worker*", ["kind-worker", "kind-worker2"]),
        ("kind-worker?", ["kind-worker2"]),
        ("*", ["kind-control-plane", "kind-worker", "kind-worker2"]),
        ("*-plane", ["kind-control-plane"]),
    ],
)
@pytest.mark.parametrize("wanted", ["kind", None])
def test_a_pattern_or_the_end_of_a_name_selects_nodes_of_the_cluster(
    tmp_path: Path, in_context: Context, text: str, names: list[str], wanted: str | None
) -> None:
    """As kind's nodes are called; another cluster has nodes that would match, too."""
    in_context("kind-kind")
    engines = [engine(tmp_path, *KIND, *cluster("other", "other-worker", "other-worker2"))]
    assert [name for _, name in selected(engines, wanted, text)] == names


def test_a_pattern_selects_no_nodes_of_other_clusters(tmp_path: Path, in_context: Context) -> None:
    engines = [engine(tmp_path, *KIND, *cluster("other", "other-worker9"))]
    with pytest.raises(ClusterAmbiguous):
        selected(engines, None, "worker*")
    in_context("kind-kind")
    with pytest.raises(NodeNotFound):
        selected(engines, None, "worker9")
    both = selected(engines, None, "other-worker9", "worker2")
    assert [name for _, name in both] == ["other-worker9", "kind-worker2"]


def test_the_end_of_several_names_is_ambiguous(tmp_path: Path) -> None:
    engines = [engine(tmp_path, k3d("k3d-dev-server-0"), k3d("k3d-dev-agent-0"))]
    with pytest.raises(NodeNotFound, match="k3d-dev-agent-0, k3d-dev-server-0") as caught:
        selected(engines, None, "0")
    assert "--node '*0'" in caught.value.hint
    assert len(selected(engines, None, "*0")) == 2


@pytest.mark.parametrize("text", ["", "x*", "-", "kind-", "../kind-worker", "*?x"])
def test_a_pattern_without_a_match_is_an_error(tmp_path: Path, text: str) -> None:
    """It never means all nodes."""
    with pytest.raises(NodeNotFound):
        selected([engine(tmp_path, *KIND)], None, text)


def test_a_missing_node_hint_corrects_a_typo(tmp_path: Path) -> None:
    for typo in ("kind-wroker2", "wroker2"):
        with pytest.raises(NodeNotFound) as caught:
            selected([engine(tmp_path, *KIND)], "kind", typo)
        assert caught.value.hint == "did you mean: --node kind-worker2"


def test_a_node_of_another_cluster_is_not_found(tmp_path: Path) -> None:
    """With --cluster, only that cluster counts."""
    engines = [engine(tmp_path, *cluster("a"), *cluster("b"))]
    with pytest.raises(NodeNotFound):
        selected(engines, "a", "b-control-plane")


def test_an_engine_that_fails_is_an_error(tmp_path: Path) -> None:
    """It may run the selected cluster, or another of the same name."""

    class Broken(LocalEngine):
        def containers(self, label: str) -> list[Container]:
            raise EngineFailed(f"cannot list {label}")

    with pytest.raises(EngineFailed):
        selected([engine(tmp_path, *cluster("a")), Broken(tmp_path)], "a")


def test_clusters_are_found_on_every_engine(tmp_path: Path) -> None:
    """In the engines' order."""
    engines = [engine(tmp_path, *cluster("b")), engine(tmp_path, *cluster("a"), kind="podman")]
    assert [str(found) for found in find_clusters(engines)] == ["b (docker)", "a (podman)"]


def test_the_kube_context_selects_a_cluster_of_any_provider(
    tmp_path: Path, in_context: Context
) -> None:
    """`kind-dev`, `k3d-dev`, and minikube's `dev` are three."""
    both = [*cluster("dev"), k3d("k3d-dev-server-0"), minikube("dev")]
    engines = [engine(tmp_path, *both)]
    for context, node in (
        ("kind-dev", "dev-control-plane"),
        ("k3d-dev", "k3d-dev-server-0"),
        ("dev", "dev"),
    ):
        in_context(context)
        assert selected(engines) == [("docker", node)]


def test_one_name_of_two_providers_is_ambiguous(tmp_path: Path) -> None:
    """The hint names the context of one."""
    engines = [engine(tmp_path, *cluster("dev"), k3d("k3d-dev-server-0"))]
    with pytest.raises(ClusterAmbiguous, match=r"kind-dev \(docker\), k3d-dev") as caught:
        selected(engines, "dev")
    assert "--cluster kind-dev" in caught.value.hint
    assert selected(engines, "k3d-dev") == [("docker", "k3d-dev-server-0")]


def test_only_the_contexts_provider_is_queried(tmp_path: Path, in_context: Context) -> None:
    """Once per engine, as long as the cluster exists; and once for all providers together."""

    class Counting(LocalEngine):
        asked = 0

        def containers(self, label: str) -> list[Container]:
            self.asked += 1
            return super().containers(label)

    counting = Counting(tmp_path, containers=cluster("a"))
    in_context("kind-a")
    select_nodes([counting], None, [])
    assert counting.asked == 1
    select_nodes([counting], "a", [])
    assert counting.asked == 2


def test_a_minikube_without_containers_is_an_error(tmp_path: Path, in_context: Context) -> None:
    """No other cluster takes its place: minikube may run in a virtual machine."""
    in_context("minikube")
    with pytest.raises(ClusterNotFound, match="'minikube'") as caught:
        selected([engine(tmp_path, *cluster("a"))])
    assert "minikube -p minikube image load" in caught.value.hint


def test_kinds_nodes_in_nerdctl_are_an_error(
    tmp_path: Path, in_context: Context, monkeypatch: pytest.MonkeyPatch
) -> None:
    """nerdctl has no socket; the hint is a command that works."""
    monkeypatch.setenv("KIND_EXPERIMENTAL_PROVIDER", "nerdctl")
    in_context("kind-dev")
    with pytest.raises(ClusterNotFound) as caught:
        selected([engine(tmp_path)])
    assert "nerdctl" in caught.value.hint
    assert "kind load image-archive" in caught.value.hint


def test_a_container_without_a_cluster_can_be_selected(tmp_path: Path) -> None:
    """Its runtime is detected."""
    lone = Container("c9", "lone", "running", {})
    engines = [engine(tmp_path, *cluster("a")), engine(tmp_path, lone, kind="podman")]
    assert selected(engines, None, "lone", "a-control-plane") == [
        ("podman", "lone"),
        ("docker", "a-control-plane"),
    ]
    with pytest.raises(NodeNotFound):
        selected(engines, "a", "lone")


def test_a_container_on_two_engines_is_ambiguous(tmp_path: Path) -> None:
    lone = Container("c9", "lone", "running", {})
    engines = [engine(tmp_path, lone), engine(tmp_path, lone, kind="podman")]
    with pytest.raises(ClusterAmbiguous, match="lone"):
        selected(engines, None, "lone")


def listed(folder: Path, *containers: Container) -> ClusterList:
    endpoint = Endpoint("podman", "unix:///p.sock", "CONTAINER_HOST")
    engine = LocalEngine(folder, containers=containers, endpoint=endpoint)
    return list_clusters([engine], [EngineUnreachable("docker is silent", hint="start it")])


def test_list_clusters_has_clusters_nodes_engines_and_errors(
    tmp_path: Path, in_context: "Context"
) -> None:
    in_context("kind-a")
    nodes = [container("a-worker", "a"), k3d("k3d-a-server-0", "a")]
    document = listed(tmp_path, *nodes).to_json()
    engine = {"kind": "podman", "url": "unix:///p.sock", "origin": "CONTAINER_HOST"}
    shared = {"name": "a", "engine": engine}
    assert json.loads(json.dumps(document)) == {
        "version": 1,
        "clusters": [
            shared
            | {"tool": "kind", "context": "kind-a", "current": True}
            | {"nodes": [{"name": "a-worker", "role": "worker", "state": "running"}]},
            shared
            | {"tool": "k3d", "context": "k3d-a", "current": False}
            | {"nodes": [{"name": "k3d-a-server-0", "role": "server", "state": "running"}]},
        ],
        "engines": [engine],
        "errors": [
            {"kind": "engine-unreachable", "message": "docker is silent", "hint": "start it"}
        ],
        "ok": True,
    }


@pytest.mark.parametrize(
    ("state", "told"),
    [
        ("running", "running"),
        ("paused", "paused"),
        ("exited", "stopped"),
        ("created", "stopped"),
        ("configured", "stopped"),
        ("restarting", "restarting"),
    ],
)
def test_node_states_are_the_same_for_every_engine(tmp_path: Path, state: str, told: str) -> None:
    """Other states than running and stopped are the engine's word."""
    [cluster] = listed(tmp_path, container("a-worker", "a", state=state)).clusters
    assert [node.state for node in cluster.nodes] == [told]
