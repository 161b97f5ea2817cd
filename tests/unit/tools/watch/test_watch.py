"""The engine that a watch loads from, and the nodes that it loads into."""

from pathlib import Path

import pytest

from imgload.core.errors import EngineFailed
from imgload.engines.base import EngineImage, ImageEvent
from imgload.engines.endpoint import Endpoint, EngineKind
from imgload.loader.events import Note
from imgload.sources.engine import EngineSource
from imgload.tools.watch.listener import Heard
from imgload.tools.watch.watch import ClusterSelector, Watch, WatchedLoad
from tests.unit.clusters import test_select
from tests.unit.clusters.test_provider import container, k3d
from tests.unit.fakes import LocalEngine, engine_image
from tests.unit.tools.watch import test_listener

STOPPED = container("kind-control-plane", "kind", "control-plane", "exited")


def engine(folder: Path, kind: EngineKind, image: EngineImage) -> LocalEngine:
    """Return an engine with an image; Docker runs the cluster, whose only node is stopped."""
    return LocalEngine(
        folder,
        images=dict.fromkeys(image.names, image),
        containers=[STOPPED] if kind == "docker" else [],
        endpoint=Endpoint(kind, f"unix://{folder}/{kind}.sock"),
    )


@pytest.mark.parametrize("builder", ["docker", "podman"])
def test_watch_loads_an_image_from_the_engine_that_built_it(
    tmp_path: Path, builder: EngineKind
) -> None:
    """Both engines have an image of that name; the report names the source."""
    kinds: tuple[EngineKind, ...] = ("docker", "podman")
    images = {kind: engine_image(kind, ["app:dev"]) for kind in kinds}
    engines = {kind: engine(tmp_path, kind, images[kind]) for kind in kinds}
    sources = [EngineSource(one) for one in engines.values()]
    watch = Watch(sources, ClusterSelector.settle([*engines.values()], "kind", ()), ["app"])
    results = iter(watch)
    note = next(results)
    assert isinstance(note, Note)
    assert note.text.endswith("; loading into kind-control-plane (exited)")
    event = ImageEvent("app:dev", images[builder].target)
    watch.listeners[0].notify(Heard(engines[builder], event))
    load = next(results)
    assert isinstance(load, WatchedLoad)
    assert load.report
    [result] = load.report.images
    assert (result.source, result.image_id) == (builder, images[builder].image_id)


def test_watch_does_not_retry_a_build_that_another_engine_replaced(tmp_path: Path) -> None:
    """Podman's image could not be loaded; Docker has built a newer one of that name since."""
    kinds: tuple[EngineKind, ...] = ("docker", "podman")
    names = ["app:dev", "app:two"]
    engines = {kind: engine(tmp_path, kind, engine_image(kind, names)) for kind in kinds}
    sources = [EngineSource(one) for one in engines.values()]
    watch = Watch(sources, ClusterSelector.settle([*engines.values()], "kind", ()), ["app"])
    results, listener = iter(watch), watch.listeners[0]
    next(results)
    loads = []
    builds: list[tuple[EngineKind, str]] = [
        ("podman", "app:dev"),
        ("docker", "app:dev"),
        ("docker", "app:two"),
    ]
    for kind, name in builds:
        listener.notify(Heard(engines[kind], ImageEvent(name, engine_image(kind, names).target)))
        loads.append(next(results))
    reports = [load.report for load in loads if isinstance(load, WatchedLoad) and load.report]
    assert [report.images[0].source for report in reports] == ["podman", "docker", "docker"]


class Unreadable(test_listener.Scripted):
    """An engine that cannot look up an image by its ID alone."""

    def find(self, name: str) -> EngineImage | None:
        if name.startswith("sha256:"):
            raise EngineFailed("the connection was cut")
        return super().find(name)


def test_watch_compares_names_if_an_image_cannot_be_looked_up(tmp_path: Path) -> None:
    """Docker's event for an image from an archive has only its ID."""
    built = engine_image("new", ["app:v1"])
    scripted = Unreadable(tmp_path)

    def build() -> ImageEvent:
        scripted.images["app:v1"] = built
        return ImageEvent("", built.target)

    scripted.steps.append(build)
    nodes = engine(tmp_path, "docker", built)
    watch = Watch([EngineSource(scripted)], ClusterSelector.settle([nodes], "kind", ()), ["app"])
    results = iter(watch)
    next(results)
    watch.listeners[0].start()
    load = next(results)
    watch.listeners[0].stop()
    scripted.done.set()
    assert isinstance(load, WatchedLoad)
    assert load.references == ("app:v1",)


def test_lasting_selection_keeps_its_cluster_when_the_kube_context_changes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The context decides once, when the watch starts."""
    kubeconfig = tmp_path / "kubeconfig"
    monkeypatch.setenv("KUBECONFIG", str(kubeconfig))
    kubeconfig.write_text("current-context: kind-a\n")
    selection = ClusterSelector.settle(
        [test_select.engine(tmp_path, *test_select.cluster("a"), *test_select.cluster("b"))],
        cluster=None,
        names=(),
    )
    kubeconfig.write_text("current-context: kind-b\n")
    assert not selection.renew()
    assert [node.name for node in selection.nodes] == ["a-control-plane"]


def test_a_watch_keeps_its_cluster_when_another_tool_makes_one_of_that_name(tmp_path: Path) -> None:
    """Without an error, although the name alone is ambiguous then."""
    before = test_select.cluster("dev")
    engine = test_select.engine(tmp_path, *before)
    selection = ClusterSelector.settle([engine], "dev", ())
    engine._containers = [k3d("k3d-dev-server-0"), *before]  # noqa: SLF001
    assert not selection.renew()
    assert [node.name for node in selection.nodes] == ["dev-control-plane"]


def test_a_pattern_selects_nodes_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """In the cluster of the kube context when the watch starts."""
    kubeconfig = tmp_path / "kubeconfig"
    monkeypatch.setenv("KUBECONFIG", str(kubeconfig))
    kubeconfig.write_text("current-context: kind-a\n")
    containers = [*test_select.cluster("a"), *test_select.cluster("b")]
    engines = [test_select.engine(tmp_path, *containers)]
    selection = ClusterSelector.settle(engines, cluster=None, names=("*plane",))
    kubeconfig.write_text("current-context: kind-b\n")
    assert not selection.renew()
    assert [node.name for node in selection.nodes] == ["a-control-plane"]
