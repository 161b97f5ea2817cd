"""The selection of nodes, and the choice between different images in several engines."""

from collections.abc import Sequence
from pathlib import Path

import pytest

from imgload.core.errors import (
    ClusterAmbiguous,
    ClusterNotFound,
    EngineUnreachable,
    ImageAmbiguous,
    ImageNotFound,
    NodeNotFound,
)
from imgload.engines.base import Container, Engine
from imgload.engines.endpoint import Endpoint, EngineKind
from imgload.loader.events import Event, Note
from imgload.oci.digest import Digest
from imgload.sources.engine import EngineSource
from imgload.sources.locate import locate
from imgload.tools.dropins.run import prefer, select
from imgload.tools.dropins.tool import K3D, KIND, Request
from tests.unit.clusters.test_provider import container
from tests.unit.fakes import LocalEngine, engine_image

LISTED = Request(("kind",), ("app:dev",))


def engine(folder: Path, kind: EngineKind, *containers: Container, at: str = "x") -> LocalEngine:
    endpoint = Endpoint(kind, f"unix://{folder}/{at}-{kind}.sock")
    return LocalEngine(folder, containers=containers, endpoint=endpoint)


def nodes(cluster: str, count: int = 1) -> list[Container]:
    return [container(f"{cluster}-worker{number}", cluster) for number in range(2, count + 2)]


def chosen(engines: list[LocalEngine], request: Request = LISTED) -> list[tuple[str, str]]:
    reachable: list[Engine] = [*engines]
    selected = select(reachable, KIND, request, request.clusters[0])
    return [(node.engine.name, node.name) for node in selected.nodes]


def test_select_prefers_docker(tmp_path: Path) -> None:
    podman = engine(tmp_path, "podman", *nodes("kind"))
    assert chosen([engine(tmp_path, "docker", *nodes("a")), podman]) == [("podman", "kind-worker2")]
    assert chosen([podman, engine(tmp_path, "docker", *nodes("kind"))]) == [
        ("docker", "kind-worker2")
    ]


def test_select_uses_only_the_requested_engine(tmp_path: Path) -> None:
    both = [engine(tmp_path, "docker", *nodes("kind")), engine(tmp_path, "podman", *nodes("a"))]
    assert chosen(both, Request(("kind",), engine="docker")) == [("docker", "kind-worker2")]
    with pytest.raises(
        ClusterNotFound, match=r'^no nodes found for cluster "kind" on podman'
    ) as no:
        chosen(both, Request(("kind",), engine="podman"))
    assert no.value.hint == "another engine runs it: unset KIND_EXPERIMENTAL_PROVIDER"
    with pytest.raises(EngineUnreachable, match="no podman answers"):
        chosen(both[:1], Request(("kind",), engine="podman"))


def test_select_requires_the_exact_name(tmp_path: Path) -> None:
    """kind knows no contexts."""
    engines = [engine(tmp_path, "docker", *nodes("dev"))]
    for name in ("kind-dev", "", "de"):
        with pytest.raises(ClusterNotFound, match=f'no nodes found for cluster "{name}"'):
            chosen(engines, Request((name,)))


def test_select_ignores_clusters_of_other_tools(tmp_path: Path) -> None:
    engines = [engine(tmp_path, "docker", *nodes("kind"))]
    with pytest.raises(ClusterNotFound, match="available: none") as raised:
        select(engines, K3D, LISTED, "kind")
    assert raised.value.hint == "create one: k3d cluster create"


def test_select_refuses_to_guess_between_two_engines_of_one_kind(tmp_path: Path) -> None:
    """Rootful and rootless Docker."""
    two = [engine(tmp_path, "docker", *nodes("kind"), at=at) for at in "ab"]
    with pytest.raises(ClusterAmbiguous, match=r"a-docker\.sock and .*b-docker\.sock"):
        chosen(two)


def test_select_keeps_the_order_of_nodes_without_duplicates(tmp_path: Path) -> None:
    engines = [engine(tmp_path, "docker", *nodes("kind", 3))]
    request = Request(("kind",), nodes=("kind-worker4", "kind-worker2", "kind-worker4"))
    assert [name for _, name in chosen(engines, request)] == ["kind-worker4", "kind-worker2"]
    assert len(chosen(engines, Request(("kind",), nodes=()))) == 3
    with pytest.raises(NodeNotFound, match=r'^unknown node: "x"'):
        chosen(engines, Request(("kind",), nodes=("kind-worker2", "x")))


def source(folder: Path, kind: EngineKind, content: str | None) -> EngineSource:
    endpoint = Endpoint(kind, f"unix://{folder}/{kind}.sock")
    images = {"app:v1": engine_image(content, ["app:v1"])} if content else {}
    return EngineSource(LocalEngine(folder, images=images, endpoint=endpoint))


def taken(sources: Sequence[EngineSource], near: EngineSource) -> tuple[Digest | None, list[Event]]:
    events: list[Event] = []
    [found] = locate(["app:v1"], sources, None, prefer(near.address, events.append))
    return found.image_id, events


def test_prefer_takes_the_image_of_the_clusters_engine(tmp_path: Path) -> None:
    """A note names the other engine, whose image may be newer."""
    docker, podman = source(tmp_path, "docker", "one"), source(tmp_path, "podman", "two")
    for near, content in ((docker, b"one"), (podman, b"two")):
        image_id, [event] = taken([docker, podman], near)
        assert image_id == Digest.of(content)
        assert isinstance(event, Note)
        assert docker.address in event.text
        assert podman.address in event.text


def test_prefer_takes_the_image_of_the_only_engine_that_has_it(tmp_path: Path) -> None:
    docker, podman = source(tmp_path, "docker", None), source(tmp_path, "podman", "two")
    assert taken([docker, podman], docker) == (Digest.of(b"two"), [])


def test_prefer_notes_nothing_for_identical_images(tmp_path: Path) -> None:
    docker, podman = source(tmp_path, "docker", "one"), source(tmp_path, "podman", "one")
    assert taken([docker, podman], podman) == (Digest.of(b"one"), [])


def test_prefer_refuses_to_guess_between_two_other_engines(tmp_path: Path) -> None:
    docker, podman = source(tmp_path, "docker", "one"), source(tmp_path, "podman", "two")
    near = source(tmp_path / "elsewhere", "docker", None)
    with pytest.raises(ImageAmbiguous) as raised:
        taken([near, docker, podman], near)
    assert f"imgload load app:v1 --from {docker.address}" in raised.value.hint


def test_a_missing_image_is_named_as_typed(tmp_path: Path) -> None:
    with pytest.raises(ImageNotFound) as raised:
        taken([source(tmp_path, "docker", None)], source(tmp_path, "docker", None))
    assert raised.value.image == "app:v1"
