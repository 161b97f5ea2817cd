"""Which engine a watch loads an image from."""

from pathlib import Path

import pytest

from imgload.clusters.lasting import LastingSelection
from imgload.engines.base import Endpoint, EngineImage, EngineKind, ImageEvent
from imgload.engines.listening import Heard
from imgload.sources.engine import EngineSource
from imgload.watching import Watch, WatchedLoad
from tests.unit.clusters.test_kind import container
from tests.unit.fakes import LocalEngine, engine_image

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
    sources = [EngineSource(each) for each in engines.values()]
    watch = Watch(sources, LastingSelection.settle([*engines.values()], "kind", ()), ["app"])
    results = iter(watch)
    next(results)
    event = ImageEvent("app:dev", images[builder].target)
    watch.listeners()[0].tell(Heard(engines[builder], event))
    load = next(results)
    assert isinstance(load, WatchedLoad)
    assert load.report
    [result] = load.report.images
    assert (result.source, result.image_id) == (builder, images[builder].image_id)
